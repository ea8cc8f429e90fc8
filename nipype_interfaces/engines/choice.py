"""Nipype's engines by name, or from a plugin file; ours where Nipype's need mending."""

import importlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError

MENDED = {
    # engine -> module and class that notice what Nipype's own do not
    "MultiProc": ("nipype_interfaces.engines.multiproc", "WatchedMultiProcPlugin"),
    "SLURM": ("nipype_interfaces.slurm.engine", "WatchedSLURMPlugin"),
}
NIPYPES = ("Linear", "MultiProc", "SLURM", "SGE", "PBS", "LSF", "Condor", "OAR")
LOCAL = ("Linear", "MultiProc")
SUBMIT = {"SLURM": "sbatch", "SGE": "qsub", "PBS": "qsub", "LSF": "bsub", "Condor": "condor_qsub", "OAR": "oarsub"}
"""The program that each batch engine submits jobs with."""


class EngineError(UserError):
    """A plugin file or the name of an engine is wrong; the message names it and the remedy."""


def engine(name: str = "Linear", plugin_args: dict[str, Any] | None = None) -> Any:
    """An instance of a Nipype engine, ready for `Workflow.run(plugin=...)`.

    Parameters
    ----------
    name : str
        Linear, MultiProc, SLURM, SGE, PBS, LSF, Condor or OAR.
    plugin_args : dict
        As Nipype documents them for the engine.

    Raises
    ------
    EngineError
        If there is no such engine, or its programs are not installed here.
    """
    if name not in NIPYPES:
        raise EngineError(f"plugin must be one of {', '.join(NIPYPES)}, got {name!r}.{_why_not(name)}")
    needed = SUBMIT.get(name)
    if needed and shutil.which(needed) is None:
        raise EngineError(
            f"plugin {name} must find the program {needed} on this machine, and does not. "
            "Run the command on a login node of the cluster, or choose plugin MultiProc."
        )
    module, cls = MENDED.get(name, (f"nipype.pipeline.plugins.{name.lower()}", f"{name}Plugin"))
    return getattr(importlib.import_module(module), cls)(plugin_args=dict(plugin_args or {}))


def _why_not(name: str) -> str:
    if str(name).endswith(("Graph", "DAGMan")):
        return " Engines that submit the whole graph return before anything is done."
    return ""


def read_plugin_file(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the engine that a YAML file `{plugin: ..., plugin_args: {...}}` describes."""
    import yaml

    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"--use-plugin must be a YAML file that can be read, got {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise EngineError(f"{path} must be YAML, got: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict) or not isinstance(found.get("plugin"), str):
        raise EngineError(f"{path} must say `plugin: NAME`, and may say `plugin_args:`; plugins/*.yml are examples.")
    unknown = sorted(map(str, set(found) - {"plugin", "plugin_args"}))
    if unknown:
        raise EngineError(f"{path} must have plugin and plugin_args only, got {', '.join(unknown)} too.")
    arguments = found.get("plugin_args") or {}
    if not isinstance(arguments, dict):
        raise EngineError(f"plugin_args of {path} must be names and values, got {arguments!r}.")
    return found["plugin"], arguments


def choose(use_plugin: str | Path | None, nprocs: int | None) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the engine that `--use-plugin` and `--nprocs` ask for; Linear where neither is given."""
    if nprocs is not None and nprocs < 1:
        raise EngineError(f"--nprocs must be at least 1, got {nprocs}.")
    if use_plugin is None:
        return ("MultiProc", {"n_procs": nprocs}) if nprocs and nprocs > 1 else ("Linear", {})
    name, arguments = read_plugin_file(use_plugin)
    if nprocs is None:
        return name, arguments
    if name != "MultiProc":
        raise EngineError(f"--nprocs must stand without --use-plugin, or with MultiProc, got {name} in {use_plugin}.")
    return name, {**arguments, "n_procs": nprocs}


def is_local(engine: Any) -> bool:
    """Whether a node runs on this machine as soon as it is started."""
    return type(engine).__name__.removesuffix("Plugin").removeprefix("Watched") in LOCAL


def watch(engine: Any, monitor: Callable[[Any, str], None], begin: Callable[[Any], None]) -> None:
    """Let `engine` tell `monitor` of every node, after `begin` was given the graph that it runs.

    The callback does not travel in plugin_args, because Nipype pickles those into every MapNode.
    """
    run = engine.run

    def watched(graph, config, updatehash=False):
        if hasattr(engine, "end_left_over"):  # before folders that its jobs write to may be removed
            engine.end_left_over(graph)
        begin(graph)
        return run(graph, config, updatehash=updatehash)

    engine.run, engine._status_callback = watched, monitor


def stop(engine: Any) -> None:
    """End what an interrupted engine has under way, as far as it runs in processes of this machine."""
    pool = getattr(engine, "pool", None)
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()
    if pool is not None:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a node that runs in this process.

    Nipype takes a KeyboardInterrupt inside an interface for a failure of that node and goes on with the next; here it
    keeps what it swallows to errors, so that an interrupt ends the run as a kill would, for the next to continue.
    """
    from nipype.interfaces.base.support import RuntimeContext

    swallow = RuntimeContext.__exit__

    def errors_only(self, kind, error, traceback):
        swallowed = swallow(self, kind, error, traceback)
        return swallowed and (kind is None or issubclass(kind, Exception))

    RuntimeContext.__exit__ = errors_only
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _interrupt) if main else None
    try:
        yield
    finally:
        RuntimeContext.__exit__ = swallow
        if main:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
