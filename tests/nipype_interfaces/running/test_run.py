"""A workflow run as the command line runs it: resuming, failing, interrupting, and what goes where."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nipype.pipeline import engine as pe

from napari_neuraldiffuser.core.base.lock import BusyError
from nipype_interfaces.engines.choice import EngineError
from nipype_interfaces.running import dry_run
from nipype_interfaces.running.run import configure, locked, run
from tests.support import ROOT
from tests.support.workflows.small_workflows import counts, fails, map_node, node, ok, workflow


def counted(tmp_path, *values):
    """A workflow that writes a line for every item it computes."""
    folder = str(tmp_path)
    recon = map_node(counts, "recon", ["x"], x=list(values), folder=folder)
    return workflow(tmp_path, recon, node(counts, "last", x=0, folder=folder))


def lines(tmp_path):
    return sorted((tmp_path / "log").read_text().split())


def test_a_second_run_computes_nothing_and_says_cached(tmp_path, capsys):
    outcome = run(counted(tmp_path, 1, 2))
    assert outcome.failures == [] and outcome.summary.startswith("2 nodes: 2 run, 0 cached; ")
    assert len(list(outcome.graph.nodes())) == 2
    capsys.readouterr()
    outcome = run(counted(tmp_path, 1, 2))
    assert outcome.summary.startswith("2 nodes: 0 run, 2 cached; ")
    assert lines(tmp_path) == ["0", "1", "2"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "2/2 nodes  sub-01 last: cached" in said.err


@pytest.mark.parametrize("plugin", ["Linear", pytest.param("MultiProc", marks=pytest.mark.slow)])
def test_no_resume_runs_every_node_once_more(tmp_path, plugin):
    arguments = {"n_procs": 2} if plugin == "MultiProc" else {}
    run(counted(tmp_path, 1, 2), plugin, arguments)
    outcome = run(counted(tmp_path, 1, 2), plugin, arguments, resume=False)
    assert outcome.summary.startswith("2 nodes: 2 run")
    assert lines(tmp_path) == ["0", "0", "1", "1", "2", "2"]


@pytest.mark.parametrize("plugin", ["Linear", pytest.param("MultiProc", marks=pytest.mark.slow)])
def test_a_failure_leaves_the_others_and_a_rerun_does_the_rest(tmp_path, plugin, capsys):
    arguments = {"n_procs": 2} if plugin == "MultiProc" else {}

    def made(x):
        folder = str(tmp_path)
        wf = workflow(tmp_path, node(fails, "fit", x=x), node(counts, "after", folder=folder), chain=True)
        subject = wf.get_node("sub_01_wf")
        subject.connect(subject.get_node("after"), "out", node(ok, "last"), "x")
        other = node(counts, "other", x="other", folder=folder)
        wf.add_nodes([other])
        return wf

    outcome = run(made("library"), plugin, arguments)
    assert outcome.failed_subjects == {"sub-01"}
    assert outcome.summary.startswith("4 nodes: 1 run, 0 cached, 1 failed, 2 not run; ")
    said = capsys.readouterr().err
    assert "sub-01 fit: failed after" in said
    assert "after" not in said.replace("failed after", "") and "Traceback" not in said
    outcome = run(made("mended"), plugin, arguments)
    assert outcome.failures == [] and outcome.summary.startswith("4 nodes: 3 run, 1 cached; ")
    assert lines(tmp_path) == ["mended", "other"]


@pytest.mark.parametrize("plugin", ["Linear", pytest.param("MultiProc", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("x", "reason"),
    [
        ("user", "sub-01 fit: x must be 1, got user. Give 1."),
        ("disk", "sub-01 fit: OSError: [Errno 28] No space left on device; the disk of "),
        ("library", "sub-01 fit: ValueError: first line second line; nothing that a usual remedy is known for"),
    ],
)
def test_the_reason_is_told_when_a_node_fails_and_not_at_the_end(tmp_path, plugin, x, reason, capsys):
    folder = str(tmp_path)
    wf = workflow(tmp_path, node(fails, "fit", x=x), node(ok, "between", x=1), node(counts, "last", folder=folder))
    subject = wf.get_node("sub_01_wf")
    subject.connect(subject.get_node("between"), "out", subject.get_node("last"), "x")
    run(wf, plugin, {"n_procs": 1} if plugin == "MultiProc" else {})
    said = capsys.readouterr().err
    assert said.count(reason) == 1
    assert said.index(reason) < said.index("sub-01 last: done")


@pytest.fixture
def loud(monkeypatch, caplog):
    """Nipype's log as it is outside of pytest, whose own handler raises where a record does not fit its values."""
    monkeypatch.setattr(logging.getLogger("nipype"), "propagate", False)
    caplog.set_level("INFO", "nipype.workflow")


def test_nipypes_log_goes_to_a_file_and_its_own_handlers_come_back(tmp_path, capsys, loud):
    before = list(logging.getLogger("nipype").handlers)
    run(workflow(tmp_path, node(ok, "fit", x=1)))
    assert logging.getLogger("nipype").handlers == before
    assert 'Executing "fit"' in (tmp_path / "nipype.log").read_text()
    said = capsys.readouterr()
    assert said.out == "" and "Executing" not in said.err


def warns(x):
    import logging

    logging.getLogger("nipype.interface").warning("the scanner was %s", "cold")
    logging.getLogger("nipype.interface").info("value %d", "text")
    return x


def test_warnings_reach_the_terminal_and_a_slip_in_a_record_does_not(tmp_path, capsys, loud):
    run(workflow(tmp_path, node(warns, "fit", x=1)))
    said = capsys.readouterr().err
    assert "WARNING the scanner was cold" in said
    assert "Logging error" not in said
    assert "value %d ('text',)" in (tmp_path / "nipype.log").read_text()


def test_debug_shows_the_log(tmp_path, capsys, loud):
    run(workflow(tmp_path, node(ok, "fit", x=1)), debug=True)
    assert 'Executing "fit"' in capsys.readouterr().err


def test_options_hold_for_this_workflow_only(tmp_path):
    from nipype import config

    before = {name: dict(values) for name, values in config._sections.items()}
    wf = workflow(tmp_path, node(ok, "fit", x=1))
    run(wf)
    assert wf.config["execution"]["crashfile_format"] == "txt"
    assert wf.config["execution"]["write_provenance"] == "false"
    assert wf.config["monitoring"]["enabled"] == "false"
    assert {name: dict(values) for name, values in config._sections.items()} == before
    assert not list(tmp_path.rglob("report.rst"))


def test_a_batch_system_waits_longer_for_files(tmp_path):
    wf = workflow(tmp_path, node(ok, "fit", x=1))
    configure(wf, local=False)
    assert wf.config["execution"]["job_finished_timeout"] == "60"


def test_what_no_engine_can_give_is_said_before_anything_runs(tmp_path):
    wf = workflow(tmp_path, node(ok, "fit", x=1))
    wf.get_node("sub_01_wf.fit")._mem_gb = 10_000
    with pytest.raises(EngineError, match="must have what each node asks for"):
        run(wf, "MultiProc", {"n_procs": 1})


def test_an_engines_own_error_is_not_hidden(tmp_path, monkeypatch):
    from nipype.pipeline.plugins.linear import LinearPlugin

    def broken(*args, **kwargs):
        raise RuntimeError("the engine broke")

    monkeypatch.setattr(LinearPlugin, "run", broken)
    with pytest.raises(RuntimeError, match="the engine broke"):
        run(workflow(tmp_path, node(ok, "fit", x=1)))


WAITING = """
import sys
from nipype_interfaces.running.run import run
from tests.support.workflows.small_workflows import map_node, waits, workflow
if __name__ == "__main__":
    folder, plugin = sys.argv[1:]
    wf = workflow(folder, map_node(waits, "recon", ["x"], x=[1, 2, 3], folder=folder))
    try:
        run(wf, plugin, {"n_procs": 2} if plugin == "MultiProc" else None)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("plugin", "number"), [("Linear", signal.SIGINT), ("MultiProc", signal.SIGTERM)])
def test_an_interrupt_ends_the_workers_too(tmp_path, plugin, number):
    (tmp_path / "waiting.py").write_text(WAITING)
    command = [sys.executable, str(tmp_path / "waiting.py"), str(tmp_path), plugin]
    started = 1 if plugin == "Linear" else 2
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE) as process:
        pids = until(lambda: [int(p.read_text() or 0) for p in tmp_path.glob("*.pid")], started)
        process.send_signal(number)
        said = process.communicate(timeout=100)[1].decode()
    assert process.returncode == 130, said
    assert len(list(tmp_path.glob("*.pid"))) == started
    assert until(lambda: [pid for pid in pids if not alive(pid)], started)
    assert "Traceback" not in said
    assert not list(tmp_path.glob("crash/*"))


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    command = [sys.executable, str(tmp_path / "waiting.py"), str(tmp_path), "MultiProc"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        pids = until(lambda: [int(p.read_text() or 0) for p in tmp_path.glob("*.pid")], 2)
        process.kill()
    assert until(lambda: [pid for pid in pids if not alive(pid)], 2)


def tells(x):
    import logging
    import sys

    logging.getLogger("nipype.interface").warning("item %d is cold", x)
    print("to stderr", file=sys.stderr)
    return x


@pytest.mark.slow
def test_workers_log_to_the_file_too_and_not_to_stdout(tmp_path, new_forkserver, capfd):
    outcome = run(workflow(tmp_path, map_node(tells, "recon", ["x"], x=[1, 2])), "MultiProc", {"n_procs": 2})
    assert outcome.failures == []
    said = capfd.readouterr()
    assert said.out == ""
    assert "WARNING item 1 is cold" in said.err and "Executing" not in said.err
    assert 'Executing "_recon1"' in (tmp_path / "nipype.log").read_text()


def kills(x):
    import os
    import signal
    import time

    if x == 2:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.slow
def test_a_killed_worker_is_told_as_a_failure_of_its_item(tmp_path, capfd):
    wf = workflow(tmp_path, map_node(kills, "recon", ["x"], x=[1, 2, 3]))
    outcome = run(wf, "MultiProc", {"n_procs": 2})
    (failure,) = outcome.failures
    assert (str(failure.label), failure.explained, failure.user_error) == ("sub-01 recon, part 2", True, False)
    assert "was killed by signal 9" in outcome.report() and outcome.user_errors() == []
    # the pool that took the place of the broken one is as quiet
    assert capfd.readouterr().out == ""


def until(found, n):
    """The list that `found` returns once it has `n` entries, none of them 0."""
    for _ in range(1000):
        values = found()
        if len(values) >= n and all(values):
            return values
        time.sleep(0.1)
    raise AssertionError(f"{n} expected, got {values}")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_plan_lists_the_nodes_in_order_and_runs_none(tmp_path):
    wf = counted(tmp_path, 1, 2)
    subject = wf.get_node("sub_01_wf")
    subject.connect(subject.get_node("last"), "out", node(ok, "end"), "x")
    wf.get_node("sub_01_wf.last")._mem_gb = 3.5
    run(counted(tmp_path, 1, 2))
    configure(wf)
    found = {node.label.node: node for node in dry_run.preview(wf)}
    assert [found[name].state for name in ("recon", "last", "end")] == ["cached", "cached", "to run"]
    assert list(found).index("last") < list(found).index("end")
    assert found["recon"].parts == "2" and found["end"].parts == "-"
    assert lines(tmp_path) == ["0", "1", "2"]
    text = dry_run.table(list(found.values()))
    assert "sub-01 last   Function   3.5" in text
    assert text.endswith("3 nodes, 1 to run; 0 on a GPU; at most 3.5 GB each")


def test_the_graph_is_drawn_where_graphviz_is(tmp_path, monkeypatch):
    wf = counted(tmp_path, 1, 2)
    monkeypatch.setattr(dry_run.shutil, "which", lambda name: None)
    dot = dry_run.write_graph(wf, tmp_path / "sub" / "graph")
    assert dot.name == "graph.dot" and dot.read_text().startswith("strict digraph")
    assert "recon" in dot.read_text()
    asked, status = [], iter([0, 1])

    def draws(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, next(status))

    monkeypatch.setattr(dry_run.shutil, "which", lambda name: "/usr/bin/dot")
    monkeypatch.setattr(dry_run.subprocess, "run", draws)
    assert dry_run.write_graph(wf, tmp_path / "graph").name == "graph.png"
    assert asked[0][:2] == ["dot", "-Tpng"]
    assert dry_run.write_graph(wf, tmp_path / "graph").name == "graph.dot"


def test_a_second_run_of_the_same_subject_is_refused_and_one_of_another_is_not(tmp_path):
    first, again = counted(tmp_path, 1), counted(tmp_path, 1)
    other = pe.Workflow("wf", base_dir=str(tmp_path))
    subject = pe.Workflow("sub_02_wf")
    subject.add_nodes([node(ok, "one", x=1)])
    other.add_nodes([subject])
    with locked(first):
        with pytest.raises(BusyError, match=rf"sub_01_wf must be .* process {os.getpid()} on .* --work-dir"):
            run(again)
        assert run(other).failures == []
    assert run(again).failures == []
