"""Writes what nodes need as the options with which a batch system is asked for it."""

import math
from collections.abc import Callable

from napari_neuraldiffuser.core.base.errors import UserError
from nipype.pipeline import engine as pe

from nipype_interfaces.engines import memory


class ResourceError(UserError):
    """There is no such batch system."""


def for_batch(wf: pe.Workflow, scheduler: str = "slurm", extra: str = "") -> pe.Workflow:
    """Let every node of a workflow ask a batch system for its memory, processors and GPU.

    Nipype does not pass `mem_gb` and `n_procs` on.  Items of a MapNode ask for the same as it does.  Memory of nodes
    that read betas and decoders is that of a whole NSD subject; our SLURM engine asks for less when the node is
    submitted and the shapes of its files are known.

    Parameters
    ----------
    wf : Workflow
    scheduler : str
        slurm, sge or pbs.
    extra : str
        More options for every node, such as "--partition=short"; they count where they say something else.

    Returns
    -------
    Workflow
        The same one.  Options that a node has already are kept, and count most.

    Raises
    ------
    ResourceError
        For another batch system.
    """
    option, _ = _known(scheduler)
    nodes = [node for node in map(wf.get_node, wf.list_node_names()) if not node.run_without_submitting]
    for node in nodes:
        own = dict(node.plugin_args)
        asked = f"{batch_args(node, scheduler)} {extra}".rstrip()
        if not own.get("overwrite"):
            # Nipype joins the texts without a blank
            own[option] = f" {asked} {own.get(option, '')}".rstrip()
        node.plugin_args = {**own, "generated": asked, "extra": extra}
    memory.estimate_nodes(nodes)
    return wf


def batch_args(node: pe.Node, scheduler: str = "slurm", mem_gb: float | None = None) -> str:
    """Write what a node needs as options: `--mem=24576M --cpus-per-task=4 --gres=gpu:1`.

    Parameters
    ----------
    node : Node
    scheduler : str
        slurm, sge or pbs.
    mem_gb : float
        Memory; that of the node where None.
    """
    _, words = _known(scheduler)
    gb = memory.default_gb(node) if mem_gb is None else mem_gb
    return words(max(1, math.ceil(gb * 1024)), max(1, node.n_procs), int(node.is_gpu_node()))


def _slurm(megabytes: int, cpus: int, gpus: int) -> str:
    return f"--mem={megabytes}M --cpus-per-task={cpus}" + (f" --gres=gpu:{gpus}" if gpus else "")


def _sge(megabytes: int, cpus: int, gpus: int) -> str:
    # h_vmem is counted for each slot; "smp" is what most sites call the environment of one computer
    share = math.ceil(megabytes / cpus)
    return (f"-pe smp {cpus} " if cpus > 1 else "") + f"-l h_vmem={share}M" + (f" -l gpu={gpus}" if gpus else "")


def _pbs(megabytes: int, cpus: int, gpus: int) -> str:
    return f"-l select=1:ncpus={cpus}:mem={megabytes}mb" + (f":ngpus={gpus}" if gpus else "")


SCHEDULERS: dict[str, tuple[str, Callable[[int, int, int], str]]] = {
    # batch system -> name of its options in `plugin_args` of Nipype's engine, and how they are written
    "slurm": ("sbatch_args", _slurm),
    "sge": ("qsub_args", _sge),
    "pbs": ("qsub_args", _pbs),
}


def _known(scheduler: str) -> tuple[str, Callable[[int, int, int], str]]:
    if scheduler not in SCHEDULERS:
        raise ResourceError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {scheduler!r}.")
    return SCHEDULERS[scheduler]
