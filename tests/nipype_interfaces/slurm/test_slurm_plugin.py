"""Our SLURM engine over commands that answer what a real SLURM rarely does; test_slurm.py has the real one."""

from types import SimpleNamespace

import pytest
from nipype.pipeline import engine as pe
from nipype.utils.filemanip import savepkl

import nipype_interfaces.slurm.engine as slurm
from nipype_interfaces.engines.resources import for_batch
from nipype_interfaces.no_environment import Function
from nipype_interfaces.running import crash
from nipype_interfaces.slurm import commands as slurm_jobs
from nipype_interfaces.slurm.commands import GONE, SlurmError, State
from nipype_interfaces.slurm.engine import JOURNAL, WatchedSLURMPlugin
from nipype_interfaces.slurm.results import NodeJob, file_version
from tests.support.workflows.fake_slurm import FakeSlurm
from tests.support.workflows.small import prepared
from tests.support.workflows.small_workflows import ok

TIMEOUT = 30.0


@pytest.fixture
def fake(tmp_path, monkeypatch):
    commands = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", commands.path)
    return commands


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on when the engine sleeps, or the test says so."""
    time = SimpleNamespace(now=1000.0)
    time.monotonic = lambda: time.now
    time.sleep = time.go = lambda seconds: setattr(time, "now", time.now + seconds)
    monkeypatch.setattr(slurm, "time", time)
    return time


@pytest.fixture
def plugin(fake, clock):
    return made_plugin(clock)


def made_plugin(clock, **plugin_args):
    made = WatchedSLURMPlugin(plugin_args={"poll_seconds": 1, "patience_seconds": 100, **plugin_args})
    made._config = {"execution": {"job_finished_timeout": str(TIMEOUT)}}
    made._answered = clock.now
    return made


@pytest.fixture
def task(plugin, clock, tmp_path):
    """Job 7 of node `one`, submitted just now."""
    folder = tmp_path / "one"
    folder.mkdir()
    made = NodeJob("one", folder / "result_one.pklz", tmp_path / "crashdump_one.pklz", tmp_path / "slurm-7.out")
    made.number, made.submitted = 7, clock.now
    plugin._jobs[7] = made
    clock.go(1.5)
    return made


def node(name="one", base=None, **inputs):
    made = pe.Node(Function(function=ok), name=name, base_dir=base and str(base))
    made.inputs.trait_set(**inputs)
    return made


def write_result(task, value="done", traceback=None):
    savepkl(str(task.result), {"result": value, "traceback": traceback, "hostname": "n0"})


def message(result):
    return result["traceback"][-1]


# -- what the commands say


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


# -- submitting


def test_options_count_in_the_order_node_plugin_file_gpu_own(plugin, clock):
    one = node()
    one.plugin_args = {"sbatch_args": "--time=5 --comment='two words'"}
    wf = pe.Workflow("wf")
    wf.add_nodes([one])
    for_batch(wf, extra="--partition=short")
    made = made_plugin(clock, sbatch_args="--mem=9G", gpu_sbatch_args="--partition=gpu")
    expected = ["--mem=205M", "--cpus-per-task=1", "--partition=short", "--mem=9G", "--time=5", "--comment=two words"]
    assert made._arguments(one) == expected
    one.interface.inputs.add_trait("use_gpu", True)
    one.interface.inputs.use_gpu = True
    assert made._arguments(one)[4:6] == ["--partition=gpu", "--time=5"]
    one.plugin_args = {"sbatch_args": "--mem=1G", "overwrite": True}
    assert made._arguments(one) == ["--mem=1G"]


@pytest.mark.parametrize("own", ["-o x", "-ox", "--output x", "--output=x"])
def test_a_log_that_the_user_chose_stays(own):
    assert slurm._has(own.split(), "-o", "--output")
    assert not slurm._has(["--mem=1G", "--cpus-per-task=4"], "-o", "--output")


def test_a_busy_controller_is_asked_again(plugin, fake):
    fake.fail("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", times=2)
    assert plugin._sbatch(["x.sh"], "name") == 101
    assert len(fake.calls("sbatch")) == 3


def test_a_job_that_was_taken_without_an_answer_is_not_submitted_twice(plugin, fake):
    fake.fail("sbatch", "Socket timed out on send/recv operation")
    fake.answer(names="55|name\n")
    assert plugin._sbatch(["x.sh"], "name") == 55
    assert len(fake.calls("sbatch")) == 1


@pytest.mark.parametrize(("said", "tries"), [("invalid partition specified", 1), ("Connection refused", 3)])
def test_a_refusal_is_raised_at_once_and_a_silence_after_some_tries(plugin, fake, said, tries):
    fake.fail("sbatch", said)
    with pytest.raises(SlurmError, match=f"got 1: {said}"):
        plugin._sbatch(["x.sh"], "name")
    assert len(fake.calls("sbatch")) == tries


def test_an_answer_without_a_number_is_told(plugin, fake):
    fake.answer(said="Welcome!\n")
    with pytest.raises(SlurmError, match="must name the job it submitted, got 'Welcome!'; set jobid_re"):
        plugin._sbatch(["x.sh"], "name")


# -- waiting


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


# -- whole runs, without processes on other computers


def run(wf, **plugin_args):
    return wf.run(plugin=WatchedSLURMPlugin(plugin_args={"poll_seconds": 0.05, **plugin_args}))


def workflow(base, *nodes, connect=()):
    wf = prepared(pe.Workflow("wf"), base, job_finished_timeout="2")
    wf.add_nodes(list(nodes))
    for source, target in connect:
        wf.connect(source, "out", target, "x")
    return wf


def test_a_node_that_sbatch_refuses_fails_alone_and_is_named(fake, tmp_path):
    fake.answer(runs="", refused="wrong")
    fine, wrong, after = (node(name, x=1) for name in ("fine", "wrong", "after"))
    with pytest.raises(RuntimeError, match="wrong: no job could be submitted: .*invalid partition"):
        run(workflow(tmp_path, fine, connect=[(wrong, after)]))
    (report,) = (tmp_path / "crash").glob("crash*.txt")
    (failed,) = crash.read_crash(report, tmp_path / "wf")
    assert str(failed.label) == "wrong" and failed.explained
    assert (tmp_path / "wf/fine/result_fine.pklz").is_file() and not (tmp_path / "wf/after").exists()
    assert not (tmp_path / "wf" / JOURNAL).exists()
    # the name says which node it is; the log is kept beside the script
    (call,) = [line for line in fake.calls("sbatch") if "-J fine." in line]
    assert f"-o {tmp_path}/wf/batch/slurm-%j.out" in call


def test_an_interrupt_cancels_what_was_submitted(fake, tmp_path, monkeypatch):
    def interrupted(self, taskid):
        raise KeyboardInterrupt

    monkeypatch.setattr(WatchedSLURMPlugin, "_is_pending", interrupted)
    monkeypatch.setattr(WatchedSLURMPlugin, "_get_result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(workflow(tmp_path, node("one", x=1), node("two", x=1)))
    assert fake.calls("scancel") == ["scancel 101 102"]
    assert not (tmp_path / "wf" / JOURNAL).exists()


def test_where_nothing_can_be_cancelled_the_journal_stays_for_the_next_run(fake, tmp_path, monkeypatch):
    def interrupted(self, taskid):
        raise KeyboardInterrupt

    fake.fail("scancel", "Unable to contact")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WatchedSLURMPlugin, "_get_result", interrupted)
        run(workflow(tmp_path, node(x=1)))
    (name,) = (tmp_path / "wf" / JOURNAL).read_text().split()
    (fake.folder / "scancel_fails").unlink()
    fake.answer(names=f"101|{name}\n102|others\n", runs="")
    run(workflow(tmp_path, node(x=1)))
    assert fake.calls("scancel")[-1] == "scancel 101" and not (tmp_path / "wf" / JOURNAL).exists()


def test_jobs_of_another_subject_are_left_alone(fake, tmp_path):
    def whole(subject):
        wf, part = pe.Workflow("wf", base_dir=str(tmp_path)), pe.Workflow(subject)
        part.add_nodes([node(x=1, base=tmp_path)])
        wf.add_nodes([part])
        return wf._create_flat_graph()

    (tmp_path / "wf").mkdir()
    for subject, name in (("sub_01_wf", "one.ab"), ("sub_02_wf", "two.cd")):
        (tmp_path / "wf" / f"{subject}-{JOURNAL}").write_text(f"{name}\n")
    fake.answer(names="7|one.ab\n8|two.cd\n", runs="")
    WatchedSLURMPlugin().end_left_over(whole("sub_02_wf"))
    assert fake.calls("scancel") == ["scancel 8"]
    assert [path.name for path in (tmp_path / "wf").iterdir()] == [f"sub_01_wf-{JOURNAL}"]


def test_jobs_of_an_earlier_run_that_do_not_end_stop_the_next(fake, tmp_path, clock):
    (tmp_path / "wf").mkdir()
    (tmp_path / "wf" / JOURNAL).write_text("one.ab\n")
    fake.answer(names="7|one.ab\n")
    (fake.folder / "scancel").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(SlurmError, match=r"jobs of an earlier run must end first: \[7\]"):
        run(workflow(tmp_path, node(x=1)), patience_seconds=1)
    assert not fake.calls("sbatch")
