"""A run that is killed with SIGKILL again and again ends with the bytes of an undisturbed one, and repeats nothing."""

import importlib
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow
OPTIONS = "--guidance demo --n-stimuli 4 --repeats 1 --n-steps 6 --batch-size 1 --chunk-size 1".split()
PATIENCE = 300


@pytest.fixture(scope="module")
def runs():
    """The benchmarks' module of runs in processes of their own."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("common.runs")
    sys.path.remove(folder)
    for name in ("common", "common.runs"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def case(runs, nsd_dir, model_dir, tmp_path_factory):
    return runs.Case(str(nsd_dir), str(model_dir), tuple(OPTIONS)), tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def undisturbed(runs, case):
    case, folder = case
    case.finish(folder / "undisturbed", "Linear")
    return runs.outputs(folder / "undisturbed")


def kill_when(runs, case, folder, engine, ready):
    """Start, and kill as soon as `ready()`; what was finished."""
    process = case.start(folder, engine)
    came = runs.wait_for(lambda: ready() or process.poll() is not None, PATIENCE)
    killed = runs.kill(process)
    assert came and killed, (folder / "log.txt").read_text()
    return runs.finished(folder)


@pytest.mark.parametrize("engine", ["Linear", "MultiProc"])
def test_killed_three_times_the_files_are_those_of_a_quiet_run(runs, case, undisturbed, engine):
    case, parent = case
    folder = parent / engine
    moments = [
        lambda: any(name.endswith("targets") for name in runs.under_way(folder)),
        lambda: len(runs.chunks(runs.finished(folder))) >= 2,
        lambda: any(name.endswith("report") for name in runs.under_way(folder)),
    ]
    kept = {}
    for ready in moments:
        found = kill_when(runs, case, folder, engine, ready)
        assert runs.redone(kept, found) == []
        kept = found
    assert len(runs.chunks(kept)) == 4
    case.finish(folder, engine)
    assert runs.redone(kept, runs.finished(folder)) == []
    assert len(undisturbed) > 20
    assert runs.outputs(folder) == undisturbed
