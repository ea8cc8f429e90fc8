"""Chooses an engine by its name or from a plugin file: Nipype's, or ours where Nipype's needs mending."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import yaml
from napari_neuraldiffuser.core.base.errors import UserError
from nipype.pipeline.plugins.base import PluginBase

MENDED = {
    # engine -> module and class that notice what Nipype's own does not
    "MultiProc": ("nipype_interfaces.engines.multiproc", "WatchedMultiProcPlugin"),
    "SLURM": ("nipype_interfaces.slurm.engine", "WatchedSLURMPlugin"),
}
LOCAL = ("Linear", "MultiProc")
SUBMIT = {"SLURM": "sbatch", "SGE": "qsub", "PBS": "qsub", "LSF": "bsub", "Condor": "condor_qsub", "OAR": "oarsub"}
"""The program that each batch engine submits jobs with."""
NIPYPES = (*LOCAL, *SUBMIT)


class EngineError(UserError):
    """A plugin file or the name of an engine is wrong; the message names it and the remedy."""


def engine(name: str = "Linear", plugin_args: dict[str, Any] | None = None) -> PluginBase:
    """Make a Nipype engine, ready for `Workflow.run(plugin=...)`.

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
        graph = " Engines that submit the whole graph return before anything is done."
        why = graph if str(name).endswith(("Graph", "DAGMan")) else ""
        raise EngineError(f"plugin must be one of {', '.join(NIPYPES)}, got {name!r}.{why}")
    needed = SUBMIT.get(name)
    if needed and shutil.which(needed) is None:
        raise EngineError(
            f"plugin {name} must find the program {needed} on this machine, and does not. "
            "Run the command on a login node of the cluster, or choose plugin MultiProc."
        )
    module, cls = MENDED.get(name, (f"nipype.pipeline.plugins.{name.lower()}", f"{name}Plugin"))
    return getattr(importlib.import_module(module), cls)(plugin_args=dict(plugin_args or {}))


def read_plugin_file(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Read name and arguments of an engine from a YAML file `{plugin: ..., plugin_args: {...}}`."""
    path = Path(path)
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EngineError(
            f"--use-plugin must be a YAML file, got {path.absolute()}, which is not there. Give its whole path; "
            "examples are plugins/*.yml of the source code (docs/cluster.md)."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise EngineError(
            f"--use-plugin must be a YAML file that can be read, got {path}: {why}. Choose another file."
        ) from error
    except yaml.YAMLError as error:
        raise EngineError(f"{path} must be YAML, got: {' '.join(str(error).split())}.") from error
    if not isinstance(described, dict) or not isinstance(described.get("plugin"), str):
        raise EngineError(f"{path} must say `plugin: NAME`, and may say `plugin_args:`; plugins/*.yml are examples.")
    unknown = sorted(map(str, set(described) - {"plugin", "plugin_args"}))
    if unknown:
        raise EngineError(f"{path} must have plugin and plugin_args only, got {', '.join(unknown)} too.")
    arguments = described.get("plugin_args") or {}
    if not isinstance(arguments, dict):
        raise EngineError(f"plugin_args of {path} must be names and values, got {arguments!r}.")
    return described["plugin"], arguments


def choose(use_plugin: str | Path | None, nprocs: int | None) -> tuple[str, dict[str, Any]]:
    """Find name and arguments of the engine for `--use-plugin` and `--nprocs`; it is Linear where neither is given."""
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


def is_local(engine: PluginBase) -> bool:
    """Tell whether the nodes of an engine run on this machine as soon as they are started."""
    return type(engine).__name__.removesuffix("Plugin").removeprefix("Watched") in LOCAL
