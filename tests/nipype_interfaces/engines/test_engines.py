"""Engines by name and from plugin files; interrupts that Nipype would swallow."""

import os
import signal

import pytest

from nipype_interfaces.engines import choice as engines
from nipype_interfaces.engines.choice import EngineError
from nipype_interfaces.running import control
from tests.support.workflows.small_workflows import node, ok


def write(path, text):
    path.write_text(text)
    return path


def test_linear_is_the_default():
    assert engines.choose(None, None) == ("Linear", {})
    assert engines.choose(None, 1) == ("Linear", {})
    assert type(engines.engine()).__name__ == "LinearPlugin"
    assert engines.is_local(engines.engine())


def test_more_processes_are_multiproc():
    assert engines.choose(None, 3) == ("MultiProc", {"n_procs": 3})


def test_multiproc_and_slurm_are_the_mended_ones(monkeypatch):
    multiproc = engines.engine("MultiProc", {"n_procs": 2})
    assert type(multiproc).__name__ == "WatchedMultiProcPlugin"
    assert multiproc.processors == 2 and engines.is_local(multiproc)
    control.stop(multiproc)
    monkeypatch.setattr(engines.shutil, "which", lambda name: f"/usr/bin/{name}")
    slurm = engines.engine("SLURM", {"sbatch_args": "--mem=1G"})
    assert type(slurm).__name__ == "WatchedSLURMPlugin"
    assert slurm._sbatch_args == "--mem=1G" and not engines.is_local(slurm)


@pytest.mark.parametrize("name", ["SGE", "PBS", "LSF", "Condor", "OAR"])
def test_nipypes_own_batch_engines_are_there(name, monkeypatch):
    monkeypatch.setattr(engines.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setenv("LOGNAME", "somebody")
    # SGE's engine asks for the queue at once, and a machine without one again and again
    monkeypatch.setattr("nipype.pipeline.plugins.sge.QstatSubstitute._run_qstat", lambda *args: None)
    assert type(engines.engine(name)).__name__ == f"{name}Plugin"


def test_a_batch_system_that_is_not_here_is_said_so(monkeypatch):
    monkeypatch.setattr(engines.shutil, "which", lambda name: None)
    with pytest.raises(EngineError, match="must find the program sbatch .* login node"):
        engines.engine("SLURM")


@pytest.mark.parametrize("name", ["slurm", "Dask", "", "os"])
def test_an_unknown_engine_is_refused(name):
    with pytest.raises(EngineError, match="plugin must be one of Linear, MultiProc, SLURM"):
        engines.engine(name)


def test_an_engine_that_does_not_wait_is_refused_with_the_reason():
    with pytest.raises(EngineError, match="return before anything is done"):
        engines.engine("SLURMGraph")


def test_a_plugin_file_is_read(tmp_path):
    path = write(tmp_path / "p.yml", "plugin: SLURM\nplugin_args:\n  sbatch_args: ' --mem=4G'\n  max_jobs: 8\n")
    assert engines.choose(path, None) == ("SLURM", {"sbatch_args": " --mem=4G", "max_jobs": 8})
    path = write(tmp_path / "q.yml", "plugin: MultiProc\nplugin_args: {memory_gb: 8, n_procs: 1}\n")
    assert engines.choose(path, 4) == ("MultiProc", {"memory_gb": 8, "n_procs": 4})
    assert engines.choose(write(tmp_path / "r.yml", "plugin: Linear\n"), None) == ("Linear", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must say `plugin: NAME`"),
        ("- 1", "must say `plugin: NAME`"),
        ("plugin: [a]", "must say `plugin: NAME`"),
        ("plugin: {", "must be YAML"),
        ("plugin: SLURM\nargs: {}", "got args too"),
        ("plugin: SLURM\nplugin_args: 4", "must be names and values, got 4"),
        ("plugin: !!python/object/apply:os.system ['true']", "must be YAML"),
    ],
)
def test_a_bad_plugin_file_is_refused(tmp_path, text, message):
    with pytest.raises(EngineError, match=message):
        engines.choose(write(tmp_path / "p.yml", text), None)


def test_a_plugin_file_that_cannot_be_read(tmp_path):
    with pytest.raises(EngineError, match="--use-plugin must be a YAML file that can be read"):
        engines.choose(tmp_path, None)
    with pytest.raises(EngineError, match=r"got /.*plugins/absent.yml, which is not there. Give its whole path"):
        engines.choose("plugins/absent.yml", None)
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00plugin")
    with pytest.raises(EngineError, match="must be a YAML file that can be read"):
        engines.choose(tmp_path / "bytes.yml", None)


@pytest.mark.parametrize("nprocs", [0, -1])
def test_a_number_of_processes_below_one_is_refused(nprocs):
    with pytest.raises(EngineError, match="--nprocs must be at least 1"):
        engines.choose(None, nprocs)


def test_processes_beside_a_batch_system_are_refused(tmp_path):
    path = write(tmp_path / "p.yml", "plugin: SLURM")
    with pytest.raises(EngineError, match="--nprocs must stand without --use-plugin"):
        engines.choose(path, 2)


def interrupted(x):
    raise KeyboardInterrupt


def terminated(x):
    import os
    import signal
    import time

    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


@pytest.mark.parametrize("function", [interrupted, terminated])
def test_an_interrupt_leaves_the_interface_that_nipype_runs(function, tmp_path):
    stopping = node(function, "stopping", x=1)
    stopping.base_dir = str(tmp_path)
    with control.interruptible(), pytest.raises(KeyboardInterrupt):
        stopping.run()
    # the file that marks it as unfinished stays, as after a kill
    assert list((tmp_path / "stopping").glob("_0x*_unfinished.json"))


def test_an_error_is_still_nipypes_and_everything_is_put_back(tmp_path):
    from nipype.interfaces.base.support import RuntimeContext
    from nipype.pipeline.engine.nodes import NodeExecutionError

    before = RuntimeContext.__exit__, signal.getsignal(signal.SIGTERM), os.getcwd()
    stopping = node(ok, "stopping")
    stopping.base_dir = str(tmp_path)
    with control.interruptible(), pytest.raises(NodeExecutionError):
        stopping.run()
    assert (RuntimeContext.__exit__, signal.getsignal(signal.SIGTERM), os.getcwd()) == before
