"""Submitting, and whole runs, over commands that answer what a test says; test_slurm.py has a real SLURM."""

import pytest
from nipype.pipeline import engine as pe

import nipype_interfaces.slurm.engine as slurm
from nipype_interfaces.engines.resources import for_batch
from nipype_interfaces.running import crash
from nipype_interfaces.slurm.commands import SlurmError
from nipype_interfaces.slurm.engine import JOURNAL, WatchedSLURMPlugin
from tests.support.workflows.slurm_jobs import made_plugin, node
from tests.support.workflows.small import prepared


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
