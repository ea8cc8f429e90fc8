"""Workflows on a real SLURM with two computers and four fake GPUs: what a user sees when jobs end badly."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from nipype.pipeline import engine as pe

from nipype_interfaces.engines.resources import for_batch
from nipype_interfaces.no_environment import Function
from nipype_interfaces.running import crash
from nipype_interfaces.slurm.engine import JOURNAL, WatchedSLURMPlugin
from tests.support import ROOT
from tests.support.workflows import slurm_cluster
from tests.support.workflows.slurm_cluster import Cluster
from tests.support.workflows.small import CUT, contents, prepared, run_job, times

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(bool(slurm_cluster.why_not()), reason=slurm_cluster.why_not() or "runs"),
]


@pytest.fixture(scope="module")
def running():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running, monkeypatch):
    for name, value in running.env.items():
        monkeypatch.setenv(name, value)
    # a login node has it, a service that starts a run may not
    monkeypatch.delenv("LOGNAME", raising=False)
    yield running
    left = [job for job, (state, _) in running.jobs().items() if state in ("PENDING", "RUNNING")]
    running.run("scancel", *map(str, left), check=False)
    assert not left, "a run must leave no job behind"


def act(x, folder):
    """Write down that it ran, then wait or fill memory if a file of the folder says so."""
    import os
    import time

    with open(os.path.join(folder, "ran"), "a") as log:
        log.write(f"{x}\n")
    start, gpu, computer = time.time(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.environ.get("SLURMD_NODENAME")
    if os.path.exists(os.path.join(folder, f"fill_{x}")):
        full = bytearray(800 * 2**20)
        full[::4096] = b"1" * len(full[::4096])
        # SLURM looks once a second
        time.sleep(20)
    while os.path.exists(os.path.join(folder, f"hold_{x}")):
        time.sleep(0.05)
    if gpu:
        time.sleep(2)
    return f"{x}!", [gpu, computer, start, time.time()]


def act_node(name, x, folder, args="", map_over=False):
    interface = Function(function=act, output_names=["out", "where"])
    node = pe.MapNode(interface, ["x"], name=name) if map_over else pe.Node(interface, name=name)
    node.inputs.trait_set(x=x, folder=str(folder))
    node.plugin_args = {"sbatch_args": f" --mem=400M {args}"}
    return node


def workflow(base, *nodes, connect=()):
    wf = prepared(pe.Workflow("wf"), base, job_finished_timeout="10", remove_unnecessary_outputs="false")
    wf.add_nodes(list(nodes))
    for source, target in connect:
        wf.connect(source, "out", target, "x")
    return wf


def run_slurm(wf, **plugin_args):
    return wf.run(plugin=WatchedSLURMPlugin(plugin_args={"poll_seconds": 0.5, **plugin_args}))


def failed_run(wf, base):
    """Messages of the nodes that failed, by the name of the node."""
    with pytest.raises(RuntimeError):
        run_slurm(wf)
    found = [one for path in (base / "crash").glob("crash*.txt") for one in crash.read_crash(path, base / wf.name)]
    assert all(one.explained for one in found), found
    return {str(one.label): one for one in found}


def ran(folder):
    return sorted((folder / "ran").read_text().splitlines())


def meanwhile(*steps):
    """A thread that does the steps one after another; what they raise is raised by `join`."""

    class Steps(threading.Thread):
        error = None

        def run(self):
            try:
                for step in steps:
                    step()
            except BaseException as error:
                self.error = error

        def join(self, timeout=None):
            super().join(timeout)
            if self.error:
                raise self.error

    thread = Steps(daemon=True)
    thread.start()
    return thread


def test_results_are_those_of_linear_and_jobs_that_run_at_once_have_different_gpus(cluster, tmp_path):
    def made(base):
        base.mkdir()
        many = act_node("many", list("abcd"), base, "--gres=gpu:1 --nodelist=n0", map_over=True)
        after = act_node("after", "", base)
        return workflow(base, many, connect=[(many, after)]), base

    (linear, _), (slurm, base) = made(tmp_path / "linear"), made(tmp_path / "slurm")
    expected = {n.name: n.result.outputs.out for n in linear.run(plugin="Linear").nodes()}
    nodes = {n.name: n for n in run_slurm(slurm).nodes()}
    assert {name: node.result.outputs.out for name, node in nodes.items()} == expected
    where = nodes["many"].result.outputs.where
    assert {w[1] for w in where} == {"n0"} and {w[0] for w in where} == {"0", "1"}
    together = [(a, b) for a in where for b in where if a is not b and a[2] < b[3] and b[2] < a[3]]
    assert together and all(a[0] != b[0] for a, b in together)
    # the MapNode only collects what its items made: no job, and no GPU, for that
    assert sum("many" in name for _, name in cluster.jobs().values()) == 4
    before = times(base, "")
    run_slurm(slurm)
    assert times(base, "") == before and len(ran(base)) == 5


def test_killed_cancelled_and_too_large_jobs_are_told_apart_and_a_rerun_does_the_rest(cluster, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("hold_killed", "hold_cancelled", "fill_large"):
        (folder / name).touch()
    several = act_node("several", ["fine1", "killed", "fine2"], folder, map_over=True)
    nodes = [act_node(name, name, folder) for name in ("cancelled", "large", "fine3")]
    next_one, after = act_node("next", "", folder), act_node("after", "", folder)
    wf = workflow(tmp_path, several, *nodes, connect=[(nodes[2], next_one), (nodes[0], after)])

    def ready(part, mark):
        (job,) = cluster.wait(lambda: mark in (folder / "ran").read_text() and cluster.running(part), f"{part} runs")
        return job

    def kill():
        cluster.wait((folder / "ran").exists, "something runs")
        for pid in cluster.processes(ready("several.part.2", "killed")):
            os.kill(pid, signal.SIGKILL)
        cluster.run("scancel", str(ready("cancelled", "cancelled")))

    thread = meanwhile(kill)
    found = failed_run(wf, tmp_path)
    thread.join(5)
    assert set(found) == {"several, part 2", "cancelled", "large"}
    killed, cancelled, large = (found[name].message for name in ("several, part 2", "cancelled", "large"))
    assert "several, part 2: SLURM job" in killed and "killed (signal 9)" in killed and "state FAILED" in killed
    assert "it was cancelled" in cancelled and "state CANCELLED" in cancelled
    assert "it needed more memory than the 400M it had" in large and "--mem in the sbatch_args" in large
    assert all("finished nodes are kept" in text and "computer n" in text for text in (killed, cancelled, large))
    # the crash report has the end of the job's log, which the message names
    assert "exceeded memory limit" in found["large"].file.read_text()
    assert Path(large.split("Log: ")[1].split(". The same")[0]).is_file()
    # other branches went on
    assert "fine3!" in ran(folder) and "cancelled!" not in ran(folder)
    before, once = times(tmp_path, ""), ran(folder)
    for path in [*folder.glob("hold_*"), *folder.glob("fill_*")]:
        path.unlink()
    nodes = {n.name: n.result.outputs.out for n in run_slurm(wf).nodes()}
    assert nodes["several"] == ["fine1!", "killed!", "fine2!"] and nodes["after"] == "cancelled!!"
    assert ran(folder) == sorted([*once, "killed", "cancelled", "large", "cancelled!"])
    assert before.items() <= times(tmp_path, "").items()


def test_a_computer_that_disappears(cluster, tmp_path):
    """SLURM starts a job again if it may, and the run waits for it; else the run says so and its rerun does it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("hold_lost", "hold_again"):
        (folder / name).touch()
    lost = act_node("lost", "lost", folder, "--nodelist=n1 --no-requeue")
    again = act_node("again", "again", folder, "--nodelist=n1 --requeue")
    fine, after = act_node("fine", "fine", folder, "--nodelist=n0"), act_node("after", "", folder)
    wf = workflow(tmp_path, lost, fine, connect=[(again, after)])

    def power_cut():
        cluster.wait(lambda: (folder / "ran").exists() and {"lost", "again"} <= set(ran(folder)), "both run")
        cluster.kill_node("n1")
        (folder / "hold_again").unlink()
        time.sleep(2)
        cluster.start_node("n1")

    thread = meanwhile(power_cut)
    found = failed_run(wf, tmp_path)
    thread.join(5)
    assert set(found) == {"lost"}
    assert "the computer it ran on failed (state NODE_FAIL" in found["lost"].message
    assert "computer n1" in found["lost"].message and "--requeue" in found["lost"].message
    assert ran(folder) == ["again", "again", "again!", "fine", "lost"]
    before = times(tmp_path, "")
    (folder / "hold_lost").unlink()
    run_slurm(wf)
    assert ran(folder).count("lost") == 2 and len(ran(folder)) == 6
    assert before.items() <= times(tmp_path, "").items()


SCRIPT = """
import sys
import nipype_interfaces
from pathlib import Path
from tests.nipype_interfaces.slurm.test_slurm import act_node, run_slurm, workflow
base = Path(sys.argv[1])
run_slurm(workflow(base, act_node("one", "one", base), act_node("two", "two", base)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_run_leaves_no_jobs_or_the_next_one_ends_them(cluster, tmp_path, number):
    for name in ("one", "two"):
        (tmp_path / f"hold_{name}").touch()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
    cluster.wait(lambda: (tmp_path / "ran").exists() and len(ran(tmp_path)) == 2, "both jobs run", 60)
    process.send_signal(number)
    process.communicate(timeout=30)
    journal = tmp_path / "wf" / JOURNAL
    assert journal.exists() == (number == signal.SIGKILL)
    if number == signal.SIGINT:
        cluster.wait(lambda: not cluster.running(""), "no job is left")
        return
    old = set(cluster.running(""))
    assert len(old) == 2
    thread = meanwhile(
        lambda: cluster.wait(lambda: not old & set(cluster.running("")), "the old jobs are cancelled"),
        *((tmp_path / f"hold_{name}").unlink for name in ("one", "two")),
    )
    wf = workflow(tmp_path, act_node("one", "one", tmp_path), act_node("two", "two", tmp_path))
    outputs = {node.name: node.result.outputs.out for node in run_slurm(wf).nodes()}
    thread.join(5)
    assert outputs == {"one": "one!", "two": "two!"} and not journal.exists()


def test_a_node_that_slurm_does_not_take_fails_alone(cluster, tmp_path):
    fine = act_node("fine", "fine", tmp_path)
    wrong, large = act_node("wrong", "x", tmp_path, "--partition=none"), act_node("large", "x", tmp_path)
    large.plugin_args = {"sbatch_args": "--mem=900G"}
    found = failed_run(workflow(tmp_path, fine, wrong, large), tmp_path)
    assert set(found) == {"wrong", "large"} and ran(tmp_path) == ["fine"]
    assert "no job could be submitted" in found["wrong"].message and "invalid partition" in found["wrong"].message
    assert "sbatch_args" in found["large"].message


def subject_workflow(job, base):
    from nipype_interfaces.workflows import init_neuraldiffuser_wf

    wf = prepared(init_neuraldiffuser_wf([job], CUT), base, job_finished_timeout="10")
    for node in map(wf.get_node, wf.list_node_names()):
        if "use_gpu" in node.inputs.copyable_trait_names():
            # the GPUs are fake: SLURM hands them out, and torch computes without
            node.inputs.use_gpu = True
    return for_batch(wf)


def test_a_subject_with_a_killed_chunk_equals_linear_bit_for_bit(cluster, job, tmp_path):
    from dataclasses import replace

    linear, slurm = replace(job, out_dir=tmp_path / "linear"), replace(job, out_dir=tmp_path / "slurm")
    run_job(linear, tmp_path / "work_linear")
    base = tmp_path / "work"
    wf = subject_workflow(slurm, base)
    chunk = base / "neuraldiffuser_wf/sub_01_wf/reconstruct_wf/recon/mapflow/_recon1"

    def kill():
        # a batch is one arm's, and its record comes after its images
        cluster.wait(lambda: any(chunk.glob("stages/recon-*guided-0000.json")), "the second chunk has a batch", 300)
        (number,) = cluster.running("recon.part.2")
        for pid in cluster.processes(number):
            os.kill(pid, signal.SIGKILL)

    thread = meanwhile(kill)
    found = failed_run(wf, base)
    thread.join(5)
    assert set(found) == {"sub-01 reconstruct/recon, part 2"}
    assert "sub-01 reconstruct/recon, part 2: SLURM job" in found["sub-01 reconstruct/recon, part 2"].message
    images = {path: path.stat().st_mtime_ns for path in chunk.rglob("*.png")}
    before = {name: stamp for name, stamp in times(base, "").items() if not name.endswith(("index", "check"))}
    assert any(name.endswith("_recon0") for name in before)
    run_slurm(subject_workflow(slurm, base))
    assert before.items() <= times(base, "").items(), "what was complete is not done again"
    assert any(path.stat().st_mtime_ns == stamp for path, stamp in images.items()), "nor are whole batches"
    assert contents(slurm.out_dir) == contents(linear.out_dir) and contents(slurm.out_dir)
