"""A workflow whose worker is killed ends, says which node it was, and keeps what its siblings did."""

from pathlib import Path

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

import nipype_interfaces  # noqa: F401  before nipype
from nipype_interfaces import gpu_lease
from nipype_interfaces.engines.choice import EngineError
from nipype_interfaces.engines.multiproc import WatchedMultiProcPlugin
from tests.support.workflows.mortal import end_once, sum_of, work
from tests.support.workflows.small import prepared, times


def lab(base, hows):
    """Nodes beside each other, and one after all of them."""
    wf = pe.Workflow("lab")
    total = pe.Node(Function(function=sum_of, output_names=["y"]), name="total")
    for k, how in enumerate(hows):
        node = pe.Node(Function(function=work, output_names=["y"]), name=f"n{k}", mem_gb=0.5)
        node.inputs.trait_set(x=k, how=how, folder=str(base))
        wf.connect(node, "y", total, f"x{k}")
    return prepared(wf, base / "wf", stop_on_first_crash="false")


def ran(base):
    return {p.name: len(p.read_text().split()) for p in base.glob("ran-*")}


def run(wf, **args):
    return wf.run(plugin=WatchedMultiProcPlugin({"n_procs": 2, **args}))


@pytest.mark.slow
@pytest.mark.parametrize("how, told", [("die kill", "signal 9"), ("die exit", "status 3")])
def test_a_killed_worker_is_told_and_its_siblings_finish(tmp_path, how, told):
    with pytest.raises(RuntimeError) as error:
        run(lab(tmp_path, ["wait", how, "run", "run"]))
    assert "lab.n1" in str(error.value) and told in str(error.value) and "mem_gb=0.5" in str(error.value)
    # the sibling that was under way, and those that had not begun, are done all the same
    assert {name: n > 0 for name, n in ran(tmp_path).items()} == {"ran-0": True, "ran-2": True, "ran-3": True}
    crash = "\n".join(p.read_text() for p in (tmp_path / "wf" / "crash").glob("crash*n1*.txt"))
    assert told in crash and "--nprocs" in crash
    before = times(tmp_path / "wf", "n")
    (tmp_path / "mended").touch()
    graph = run(lab(tmp_path, ["wait", how, "run", "run"]))
    (total,) = (node for node in graph.nodes() if node.name == "total")
    assert total.result.outputs.y == 1 + 4 + 9
    after = times(tmp_path / "wf", "n")
    assert {name for name in after if after[name] != before.get(name)} == {"lab/n1"}


@pytest.mark.slow
def test_a_killed_item_of_a_mapnode_leaves_the_others(tmp_path):
    wf = pe.Workflow("lab")
    node = pe.MapNode(Function(function=work, output_names=["y"]), ["x", "how"], name="many")
    node.inputs.trait_set(x=[0, 1, 2, 3], how=["run", "die kill", "run", "run"], folder=str(tmp_path))
    wf.add_nodes([node])
    prepared(wf, tmp_path / "wf", stop_on_first_crash="false")
    with pytest.raises(RuntimeError, match="_many1"):
        run(wf)
    assert set(ran(tmp_path)) == {"ran-0", "ran-2", "ran-3"}
    (tmp_path / "mended").touch()
    counted = ran(tmp_path)
    graph = run(wf)
    (many,) = (node for node in graph.nodes() if node.name == "many")
    assert many.result.outputs.y == [0, 1, 4, 9]
    assert ran(tmp_path) == {**counted, "ran-1": 1}


@pytest.mark.slow
def test_an_ended_pool_is_tried_again(tmp_path):
    """SIGTERM of a worker looks like the pool's own doing: its node is run again, once."""
    wf = pe.Workflow("lab")
    node = pe.Node(Function(function=end_once, output_names=["y"]), name="n")
    node.inputs.folder = str(tmp_path)
    wf.add_nodes([node])
    graph = run(prepared(wf, tmp_path / "wf"))
    assert next(iter(graph.nodes())).result.outputs.y == 2


def needs(node):
    graph = pe.Workflow("gpu")
    graph.add_nodes([node])
    return graph._graph


def test_gpu_slots_are_the_visible_devices(monkeypatch):
    from nipype_interfaces.interfaces import GuidedReconstruct

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(gpu_lease.FAKE, "2")
    node = pe.Node(GuidedReconstruct(use_gpu=True, device="cuda"), name="recon")
    engine = WatchedMultiProcPlugin({"n_procs": 1})
    engine._prerun_check(needs(node))
    assert engine.n_gpu_procs == 2
    monkeypatch.setenv(gpu_lease.FAKE, "0")
    with pytest.raises(EngineError, match="--device cpu"):
        engine._prerun_check(needs(node))
    chosen = WatchedMultiProcPlugin({"n_procs": 1, "n_gpu_procs": 5})
    chosen._prerun_check(needs(node))
    assert chosen.n_gpu_procs == 5
    for one in (engine, chosen):
        one._postrun_check()
        assert not Path(one._marks).exists()
