"""No environment variable reaches a file of a workflow, whatever engine runs it and however its nodes end."""

import copy
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from nipype.interfaces import utility
from nipype.interfaces.base import SimpleInterface, TraitedSpec, traits
from nipype.interfaces.base.support import Bunch
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.tools import create_pyscript

from nipype_interfaces.no_environment import Function, IdentityInterface, Merge, NoEnvironment
from tests.support import ROOT
from tests.support.session.find_text import files_with

NAME = "HF_TOKEN"


@pytest.fixture
def secret(monkeypatch, caplog):
    # nipype gives a job's number as text to a %d of its own log call; pytest makes such a slip an error
    caplog.set_level("ERROR", "nipype.workflow")
    value = f"hf_{secrets.token_hex(16)}"
    monkeypatch.setenv(NAME, value)
    return value


def double(x):
    import os

    assert os.environ["HF_TOKEN"], "a node needs its environment"
    return 2 * x


def fail_at_two(x):
    if x == 2:
        raise ValueError("two")
    return x


class Spec(TraitedSpec):
    x = traits.Int()


class Own(NoEnvironment, SimpleInterface):
    input_spec = output_spec = Spec

    def _run_interface(self, runtime):
        self._results["x"] = self.inputs.x + len(runtime.environ)
        return runtime


def workflow(folder: Path, mapped=double) -> pe.Workflow:
    """Every kind of node: own, function, identity, merge, map, join."""
    wf = pe.Workflow(name="wf", base_dir=str(folder))
    wf.config["execution"] = {
        "crashdump_dir": str(folder / "crash"),
        "crashfile_format": "txt",
        "poll_sleep_duration": "0.1",
    }
    source = pe.Node(IdentityInterface(fields=["x"]), name="source")
    source.iterables = [("x", [1, 3])]
    own = pe.Node(Own(), name="own")
    merge = pe.Node(Merge(2), name="merge")
    merge.inputs.in2 = 2
    each = pe.MapNode(Function(function=mapped, output_names=["out"]), iterfield=["x"], name="each")
    joined = pe.JoinNode(IdentityInterface(fields=["all"]), joinsource="source", joinfield="all", name="joined")
    wf.connect([(source, own, [("x", "x")]), (own, merge, [("x", "in1")]), (merge, each, [("out", "x")])])
    wf.connect(each, "out", joined, "all")
    return wf


@pytest.mark.parametrize(
    ("plugin", "args"),
    [("Linear", {}), pytest.param("MultiProc", {"n_procs": 2, "mp_context": "forkserver"}, marks=pytest.mark.slow)],
)
def test_a_workflow_leaves_no_secret(tmp_path, secret, new_forkserver, plugin, args):
    graph = workflow(tmp_path).run(plugin=plugin, plugin_args=args)
    (joined,) = [node for node in graph.nodes() if node.name == "joined"]
    assert joined.result.outputs.all == [[2, 4], [6, 4]]
    assert len(list(tmp_path.rglob("result_*.pklz"))) >= 9
    assert list(tmp_path.rglob("report.rst"))
    assert files_with(tmp_path, secret) == []
    assert files_with(tmp_path, NAME) == files_with(tmp_path, "def double")  # the function's own text


@pytest.mark.parametrize(
    ("plugin", "args"),
    [("Linear", {}), pytest.param("MultiProc", {"n_procs": 2, "mp_context": "forkserver"}, marks=pytest.mark.slow)],
)
def test_a_workflow_that_fails_leaves_no_secret(tmp_path, secret, new_forkserver, plugin, args):
    with pytest.raises(RuntimeError):
        workflow(tmp_path, fail_at_two).run(plugin=plugin, plugin_args=args)
    assert list((tmp_path / "crash").glob("crash-*.txt"))
    assert files_with(tmp_path, secret) == []


@pytest.mark.parametrize("mapped", [double, fail_at_two])
def test_a_batch_job_leaves_no_secret(tmp_path, secret, mapped):
    """The script that batch engines submit, in a process of its own."""
    each = pe.MapNode(Function(function=mapped, output_names=["out"]), iterfield=["x"], name="each")
    each.inputs.x = [1, 2]
    each.base_dir = str(tmp_path)
    each.config = {"execution": {"crashdump_dir": str(tmp_path), "crashfile_format": "txt"}}
    each.config = pe.utils.merge_dict(copy.deepcopy(pe.nodes.config._sections), each.config)
    script = create_pyscript(each, store_exception=mapped is fail_at_two)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NIPYPE_NO_ET": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (tmp_path / "each" / "result_each.pklz").is_file(), done.stderr
    assert files_with(tmp_path, secret) == []


def test_collecting_results_again_leaves_no_secret(tmp_path, secret):
    node = pe.Node(Function(function=double, output_names=["out"]), name="node", base_dir=str(tmp_path))
    node.inputs.x = 4
    node.run()
    results = tmp_path / "node" / "result_node.pklz"
    results.write_bytes(b"")  # a worker died while it wrote
    node = pe.Node(Function(function=double, output_names=["out"]), name="node", base_dir=str(tmp_path))
    node.inputs.x = 4
    node.run()
    assert files_with(tmp_path, secret) == []


def test_the_search_finds_what_plain_nipype_writes(tmp_path, secret):
    """That the tests above can fail."""
    node = pe.Node(utility.Function(function=double, output_names=["out"]), name="node", base_dir=str(tmp_path))
    node.inputs.x = 4
    node.run()
    assert "node/_report/report.rst" in files_with(tmp_path, secret)


def test_a_runtime_loses_its_environment_alone():
    runtime = Bunch(environ={"A": "b"}, hostname="here", duration=1.0)
    assert copy.copy(runtime).dictcopy() == {"environ": {}, "hostname": "here", "duration": 1.0}
    assert runtime.environ == {"A": "b"}, "the running process keeps it"
    design = Bunch(conditions=["a"], environ={"A": "b"})
    assert copy.deepcopy(design).dictcopy() == {"conditions": ["a"], "environ": {"A": "b"}}
    assert copy.deepcopy(Bunch()).dictcopy() == {}
