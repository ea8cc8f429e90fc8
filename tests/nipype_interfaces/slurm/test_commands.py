"""What the commands of SLURM say, and why a job ended."""

import pytest

from nipype_interfaces.slurm import commands as slurm_jobs
from nipype_interfaces.slurm.commands import SlurmError, State


def test_states_are_read_whatever_else_squeue_prints(fake):
    fake.answer(states="  7|RUNNING|None\n8|PENDING|(Resources, Priority)\n9_1|RUNNING|None\n9+0|FAILED|x\nslurm: hi\n")
    assert slurm_jobs.states([7, 8]) == {7: State("RUNNING"), 8: State("PENDING", "Resources, Priority")}
    assert slurm_jobs.states([]) == {} and len(fake.calls("squeue")) == 1
    assert fake.calls("squeue")[0].endswith("-j 7,8")


def test_a_single_forgotten_job_is_no_failure_of_squeue(fake):
    fake.fail("squeue", "slurm_load_jobs error: Invalid job id specified")
    assert slurm_jobs.states([7]) == {}
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    with pytest.raises(SlurmError, match="squeue must end with status 0, got 1: .*Unable to contact"):
        slurm_jobs.states([7])


def test_commands_that_are_not_there_or_do_not_answer(fake, monkeypatch):
    with pytest.raises(SlurmError, match="nosuchcommand must be a program on this machine"):
        slurm_jobs.command("nosuchcommand")
    monkeypatch.setattr(slurm_jobs, "WAIT_S", 0.2)
    (fake.folder / "squeue").write_text("#!/bin/sh\nexec sleep 20\n")
    with pytest.raises(SlurmError, match="squeue must answer within 0.2 s") as error:
        slurm_jobs.command("squeue")
    assert slurm_jobs.is_transient(error.value)


def test_jobs_are_found_by_name_only_if_they_are_ours(fake):
    fake.answer(names="7|one.ab\n8|one.abc\n 9|two.cd \n")
    assert slurm_jobs.named({"one.ab", "two.cd"}) == [7, 9]
    assert slurm_jobs.newest("one.abc") == 8 and slurm_jobs.newest("none") == 0
    fake.fail("squeue", "Unable to contact")
    assert slurm_jobs.newest("one.abc") == 0


def test_details_come_from_the_controller_then_from_the_accounts(fake):
    fake.answer(job="JobId=7 JobName=one Reason=Bad luck ExitCode=0:9 StdErr=/a b/c.out Power=\n")
    found = slurm_jobs.details(7)
    assert [found[name] for name in ("Reason", "ExitCode", "StdErr", "Power")] == ["Bad luck", "0:9", "/a b/c.out", ""]
    (fake.folder / "job").unlink()
    assert slurm_jobs.details(7) == {}
    fake.answer(accounts="CANCELLED by 1000|0:15|n3|00:01:02|4G\n")
    assert slurm_jobs.details(7) == {
        "JobState": "CANCELLED", "ExitCode": "0:15", "NodeList": "n3", "RunTime": "00:01:02", "MinMemoryNode": "4G"
    }  # fmt: skip
    fake.answer(accounts="")
    assert slurm_jobs.details(7) == {} and slurm_jobs.parse_details("") == {}


@pytest.mark.parametrize(
    ("state", "facts", "log", "why", "what"),
    [
        ("OUT_OF_MEMORY", {"MinMemoryNode": "2G"}, [], "more memory than the 2G it had", "--mem"),
        ("OUT_OF_MEMORY", {}, [], "more memory than it had", "--mem"),
        ("CANCELLED", {}, ["slurmstepd: error: Exceeded job memory limit"], "more memory", "--mem"),
        ("FAILED", {}, ["Detected 1 oom_kill event in StepId=3.batch"], "more memory", "--mem"),
        ("FAILED", {"ExitCode": "0:9"}, [], "signal 9", "--mem"),
        ("FAILED", {"ExitCode": "137:0"}, [], "signal 9", "--mem"),
        ("FAILED", {"ExitCode": "1:0"}, ["no module named x"], "it said last: no module named x", "Read its log"),
        ("TIMEOUT", {}, [], "time limit", "--time"),
        ("NODE_FAIL", {}, [], "computer it ran on failed", "--requeue"),
        ("PREEMPTED", {}, [], "higher priority", "--requeue"),
        ("CANCELLED", {}, [], "it was cancelled", "who did"),
        ("COMPLETED", {}, [], "not to be seen here", "job_finished_timeout"),
        ("UNKNOWN", {}, [], "does not know it", "its log"),
    ],
)
def test_every_end_has_a_reason_and_a_remedy(state, facts, log, why, what):
    found_why, found_what = slurm_jobs.remedy(state, facts, log)
    assert why in found_why and what in found_what
