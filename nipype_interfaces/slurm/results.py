"""Reads what a job of SLURM left behind: the result of its node, or a failure that says how it ended."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception_only
from typing import Any

from nipype import logging
from nipype.pipeline import engine as pe
from nipype.pipeline.engine.utils import load_resultfile

from nipype_interfaces.engines.labels import NodeLabel
from nipype_interfaces.slurm import commands
from nipype_interfaces.slurm.commands import SlurmJobError, State

logger = logging.getLogger("nipype.workflow")


@dataclass
class NodeJob:
    """A node that was submitted as a job of SLURM; times are in s on the monotonic clock."""

    label: str  # what the user calls the node
    result: Path  # where its result will be
    crash: Path  # where the job tells of it if it could not even begin
    log: Path  # stdout and stderr of the job
    earlier: tuple[int, ...] | None = None  # version of a result that an earlier run left
    number: int = -1  # SLURM's, negative if there is none
    submitted: float = 0.0
    ended: float | None = None  # when it was first seen to run no more
    lost: Exception | None = None  # why it was not submitted, or given up
    told: str = ""  # the reason for waiting that the user was told last

    @classmethod
    def of(cls, node: pe.Node, script: Path, root: Path) -> "NodeJob":
        """Make the job of a node of the workflow in `root`; it will run `script`."""
        folder, name = Path(node.output_dir()), script.stem.removeprefix("batchscript_pyscript_")
        result = folder / f"result_{node.name}.pklz"
        crash, log = script.with_name(f"crashdump_{name}.pklz"), script.with_name("slurm-%j.out")
        return cls(str(NodeLabel.of(folder, root)), result, crash, log, file_version(result))


def file_version(path: Path) -> tuple[int, ...] | None:
    """Return which file it is and of when; None if it is not there."""
    try:
        # a look into the folder makes NFS forget that a file was not there
        os.listdir(path.parent)
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def read(job: NodeJob, state: State, late: bool) -> dict[str, Any] | None:
    """Read what a job that ended has written; None if that is nothing, or not whole yet.

    Parameters
    ----------
    job : NodeJob
    state : State
        What SLURM says of the job.
    late : bool
        Whether the time is over in which a file may come late on a shared disk.
    """
    if job.crash.is_file():
        return _loaded(job.crash)
    version = file_version(job.result)
    # an unchanged file is of an earlier run, unless the job found that it need not run
    if version is None or (version == job.earlier and not (late and state.name == "COMPLETED")):
        return None
    result = _loaded(job.result)
    if result is None or result["traceback"] or state.name == "COMPLETED":
        return result
    # a job that was killed after the result was written and before its node was done must be run again
    return None if glob.glob(f"{glob.escape(str(job.result.parent))}/_0x*_unfinished.json") else result


def _loaded(path: Path) -> dict[str, Any] | None:
    """Load result and traceback of a result file; None while it cannot be read."""
    try:
        result = load_resultfile(str(path))
    except Exception as error:  # half of a file, on a disk that is slow to show the rest
        logger.debug("%s cannot be read yet: %s", path, error)
        return None
    if not isinstance(result, dict):
        return {"result": result, "traceback": None}
    # as Nipype does: a failure must not be taken for the result of the next run
    path.rename(path.with_name("crashstore.pklz"))
    return {name: result.get(name) for name in ("result", "traceback", "hostname")}


def failure(error: Exception, before: Sequence[str] = ()) -> dict[str, Any]:
    """Make the result of a node that raised `error`, as Nipype's engines do; lines `before` precede its traceback."""
    trace = ["Traceback (most recent call last):\n", *format_exception_only(error)]
    return {"result": None, "traceback": [*before, *trace], "hostname": "unknown"}


def without_result(job: NodeJob, state: State) -> dict[str, Any]:
    """Make the failure of a job that ended without a result."""
    facts = commands.details(job.number)
    name = state.name if state.ended else facts.get("JobState", state.name)
    log = Path(facts.get("StdErr") or job.log)
    lines = commands.tail(log)
    why, what = commands.remedy(name, facts, lines)
    code, where = facts.get("ExitCode", "unknown"), facts.get("NodeList") or "unknown"
    error = SlurmJobError(
        f"{job.label}: SLURM job {job.number} ended without a result: {why} (state {name}, exit code {code}, computer "
        f"{where}, after {facts.get('RunTime', 'an unknown time')}). {what}. Log: {log}. The same command continues: "
        "finished nodes are kept."
    )
    # the log stands before the traceback, as the error is looked for behind that; a log may have a traceback, too
    quoted = [f"  | {line.replace('Traceback (most recent call last)', 'Traceback')}\n" for line in lines]
    return failure(error, [f"Last lines of the log of job {job.number}:\n", *quoted] if quoted else [])
