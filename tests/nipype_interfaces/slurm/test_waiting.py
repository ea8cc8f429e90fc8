"""Waiting for jobs over commands that answer what a real SLURM rarely does."""

from nipype.utils.filemanip import savepkl

import nipype_interfaces.slurm.engine as slurm
from nipype_interfaces.running import crash
from nipype_interfaces.slurm.commands import GONE, State
from nipype_interfaces.slurm.results import NodeJob, file_version
from tests.support.workflows.slurm_jobs import TIMEOUT, message, write_result


def test_squeue_may_fail_for_a_while(plugin, task, fake, clock):
    fake.fail("squeue", "Unable to contact slurm controller", times=3)
    fake.answer(states="7|COMPLETED|None\n")
    write_result(task)
    for _ in range(3):
        assert plugin._get_result(7) is None
        clock.go(20)
    assert plugin._get_result(7)["result"] == "done"


def test_a_state_that_was_known_holds_while_squeue_fails(plugin, task, fake, clock):
    fake.answer(states="7|COMPLETED|None\n")
    assert plugin._get_result(7) is None
    fake.fail("squeue", "Unable to contact", times=1)
    clock.go(2)
    assert plugin._get_state(task) == State("COMPLETED")


def test_squeue_that_never_answers_again_ends_the_wait(plugin, task, fake, clock):
    fake.fail("squeue", "Unable to contact slurm controller")
    while (result := plugin._get_result(7)) is None:
        clock.go(10)
        assert clock.now < 1200
    assert "one: SLURM must answer within 1" in message(result) and "Job 7 may still run" in message(result)
    assert "keeps finished nodes" in message(result)
    plugin._clear_task(7)
    plugin._root = task.log.parent
    plugin._cancel()
    assert fake.calls("scancel") == ["scancel 7"]


def test_many_jobs_are_one_question_and_not_more_often_than_asked(plugin, task, fake, clock):
    plugin._jobs[8] = NodeJob("two", task.result, task.crash, task.log, number=8, submitted=task.submitted)
    fake.answer(states="7|RUNNING|None\n8|RUNNING|None\n")
    for _ in range(5):
        assert plugin._get_result(7) is None and plugin._get_result(8) is None
    assert len(fake.calls("squeue")) == 1 and fake.calls("squeue")[0].endswith("-j 7,8")
    clock.go(1.5)
    plugin._get_result(7)
    assert len(fake.calls("squeue")) == 2


def test_a_job_that_vanished_fails_after_the_wait_for_its_file(plugin, task, clock):
    assert plugin._get_result(7) is None
    clock.go(TIMEOUT - 1)
    assert plugin._get_result(7) is None
    clock.go(2)
    result = plugin._get_result(7)
    assert "one: SLURM job 7 ended without a result: SLURM does not know it any more" in message(result)


def test_a_job_that_vanished_after_it_wrote_its_result_is_done(plugin, task):
    write_result(task)
    assert plugin._get_result(7)["result"] == "done"


def test_a_job_that_was_just_submitted_is_not_taken_for_a_vanished_one(plugin, task, clock):
    plugin._get_result(7)
    plugin._jobs[8] = NodeJob("two", task.result, task.crash, task.log, number=8, submitted=clock.now)
    assert plugin._get_state(plugin._jobs[8]).runs and plugin._get_state(task) == GONE


def test_a_result_may_come_late_and_in_pieces(plugin, task, fake, clock):
    fake.answer(states="7|COMPLETED|None\n")
    assert plugin._get_result(7) is None
    write_result(task)
    whole = task.result.read_bytes()
    task.result.write_bytes(whole[: len(whole) // 2])
    clock.go(10)
    assert plugin._get_result(7) is None
    task.result.write_bytes(whole)
    clock.go(10)
    assert plugin._get_result(7)["result"] == "done"
    assert not task.result.exists(), "kept as Nipype does: not as a result of the next run"


def test_a_result_that_never_comes_is_told_after_the_timeout(plugin, task, fake, clock):
    fake.answer(states="7|COMPLETED|None\n")
    assert plugin._get_result(7) is None
    clock.go(TIMEOUT + 1)
    assert "on a disk that every node of the cluster shares" in message(plugin._get_result(7))


def test_a_killed_job_is_told_sooner_and_with_the_end_of_its_log(plugin, task, fake, clock):
    fake.answer(states="7|FAILED|NonZeroExitCode\n", job=f"JobId=7 JobState=FAILED ExitCode=0:9 StdErr={task.log}\n")
    task.log.write_text("\n".join(f"line {k}" for k in range(100)) + "\nTraceback (most recent call last):\n")
    assert plugin._get_result(7) is None
    clock.go(slurm.GRACE_S + 1)
    result = plugin._get_result(7)
    assert "it was killed (signal 9)" in message(result) and str(task.log) in message(result)
    text = "".join(result["traceback"])
    assert "| line 99" in text and "| line 80" not in text
    # the crash report's reader must find our message, not what the log ended with
    kind, said = crash.last_error(text)
    assert crash.is_user_error(kind) and said.startswith("one: SLURM job 7")


def test_a_result_of_an_earlier_run_is_not_that_of_a_failed_job(plugin, task, fake, clock):
    savepkl(str(task.result), {"result": "old", "traceback": None, "hostname": "n0"})
    task.earlier = file_version(task.result)
    fake.answer(states="7|FAILED|None\n")
    assert plugin._get_result(7) is None
    clock.go(slurm.GRACE_S + 1)
    assert "ended without a result" in message(plugin._get_result(7))


def test_an_unchanged_result_is_good_if_the_job_found_nothing_to_do(plugin, task, fake, clock):
    write_result(task, "old")
    task.earlier = file_version(task.result)
    fake.answer(states="7|COMPLETED|None\n")
    assert plugin._get_result(7) is None
    clock.go(TIMEOUT + 1)
    assert plugin._get_result(7)["result"] == "old"


def test_a_failure_that_the_node_reports_is_its_own(plugin, task, fake):
    fake.answer(states="7|COMPLETED|None\n")
    write_result(task, None, ["ValueError: no"])
    assert plugin._get_result(7)["traceback"] == ["ValueError: no"]


def test_a_job_that_waits_again_is_waited_for(plugin, task, fake, clock):
    fake.answer(states="7|NODE_FAIL|None\n")
    assert plugin._get_result(7) is None
    fake.answer(states="7|PENDING|BeginTime\n")
    clock.go(slurm.GRACE_S + 1)
    assert plugin._get_result(7) is None
    clock.go(1000)
    fake.answer(states="7|COMPLETED|None\n")
    assert plugin._get_result(7) is None, "its files may be late again"
    write_result(task)
    assert plugin._get_result(7)["result"] == "done"


def test_a_job_that_can_never_run_is_cancelled(plugin, task, fake):
    fake.answer(states="7|PENDING|BadConstraints\n")
    assert "would never run (BadConstraints)" in message(plugin._get_result(7))
    assert fake.calls("scancel") == ["scancel 7"]


def test_a_job_that_somebody_must_act_for_is_told_once(plugin, task, fake, clock, monkeypatch):
    told = []
    monkeypatch.setattr(slurm.logger, "warning", lambda text, *args: told.append(text % args))
    fake.answer(states="7|PENDING|JobHeldUser\n")
    for _ in range(3):
        assert plugin._get_result(7) is None
        clock.go(5)
    assert told == ["one: SLURM job 7 waits until somebody acts: JobHeldUser"]
