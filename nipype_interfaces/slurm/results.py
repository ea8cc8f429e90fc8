"""What a job of SLURM left behind: the result of its node, or a failure that says how it ended."""

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any

from nipype import logging
from nipype.pipeline.engine.utils import load_resultfile

from nipype_interfaces.running.labels import Place
from nipype_interfaces.slurm import commands as slurm_jobs
from nipype_interfaces.slurm.commands import SlurmJobError, State

logger = logging.getLogger("nipype.workflow")


@dataclass
class Task:
    """A node that was submitted.

    Attributes
    ----------
    label : str
        What the user calls the node.
    result : Path
        Where its result will be.
    crash : Path
        Where the job tells of it if it could not even begin.
    log : Path
        stdout and stderr of the job.
    before : tuple or None
        Stamp of a result that an earlier run left.
    job : int
        Number of SLURM's job, negative if there is none.
    submitted : float
        On the monotonic clock.
    ended : float or None
        When the job was first seen to run no more.
    lost : Exception or None
        Why it was not submitted, or given up.
    told : str
        The reason for waiting that the user was told last.
    """

    label: str
    result: Path
    crash: Path
    log: Path
    before: tuple | None = None
    job: int = -1
    submitted: float = 0.0
    ended: float | None = None
    lost: Exception | None = None
    told: str = ""

    @classmethod
    def of(cls, node: Any, script: Path, root: Path) -> "Task":
        """The task of a node of the workflow in `root`, whose job will run `script`."""
        folder, place = Path(node.output_dir()), Place.of(node.output_dir(), root)
        label = place.node_label + ("" if place.item is None else f", part {place.item + 1}")
        result, suffix = folder / f"result_{node.name}.pklz", script.stem.removeprefix("batchscript_pyscript_")
        crash, log = script.with_name(f"crashdump_{suffix}.pklz"), script.with_name("slurm-%j.out")
        return cls(label, result, crash, log, stamp(result))


def stamp(path: Path) -> tuple | None:
    """Which file it is, and of when; None if it is not there."""
    try:
        # a look into the folder makes NFS forget that a file was not there
        os.listdir(path.parent)
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read(task: Task, state: State, late: bool) -> dict[str, Any] | None:
    """What a job that ended has written; None if that is nothing, or not whole yet.

    Parameters
    ----------
    task : Task
    state : State
        What SLURM says of the job.
    late : bool
        Whether the time is over in which a file may come late on a shared disk.
    """
    if task.crash.is_file():
        return _loaded(task.crash)
    found = stamp(task.result)
    if found is None:
        return None
    # an unchanged file is of an earlier run, unless the job found that it need not run
    if found == task.before and not (late and state.name == "COMPLETED"):
        return None
    result = _loaded(task.result)
    if result is None or result["traceback"] or state.name == "COMPLETED":
        return result
    # a job that was killed after the result was written and before its node was done is to be run again
    return None if glob.glob(f"{glob.escape(str(task.result.parent))}/_0x*_unfinished.json") else result


def _loaded(path: Path) -> dict[str, Any] | None:
    """Result and traceback of a result file; None while it cannot be read."""
    try:
        found = load_resultfile(str(path))
    except Exception as error:  # half of a file, on a disk that is slow to show the rest
        logger.debug("%s cannot be read yet: %s", path, error)
        return None
    if not isinstance(found, dict):
        return {"result": found, "traceback": None}
    # as Nipype does: a failure must not be taken for the result of the next run
    path.rename(path.with_name("crashstore.pklz"))
    return {"result": found.get("result"), "traceback": found.get("traceback"), "hostname": found.get("hostname")}


def failure(error: Exception, before: list[str] | None = None) -> dict[str, Any]:
    """A result as Nipype's engines give it for a node that raised `error`; lines `before` precede its traceback."""
    try:
        raise error
    except Exception as raised:
        trace = format_exception(type(raised), raised, raised.__traceback__)
    return {"result": None, "traceback": [*(before or []), *trace], "hostname": "unknown"}


def without_result(task: Task, state: State) -> dict[str, Any]:
    """The failure of a job that ended without a result."""
    facts = slurm_jobs.details(task.job)
    name = state.name if state.ended else facts.get("JobState", state.name)
    log = Path(facts.get("StdErr") or task.log)
    lines = slurm_jobs.tail(log)
    why, what = slurm_jobs.remedy(name, facts, lines)
    code, where = facts.get("ExitCode", "unknown"), facts.get("NodeList") or "unknown"
    error = SlurmJobError(
        f"{task.label}: SLURM job {task.job} ended without a result: {why} (state {name}, exit code {code}, computer "
        f"{where}, after {facts.get('RunTime', 'an unknown time')}). {what}. Log: {log}. The same command continues: "
        "finished nodes are kept."
    )
    # before the traceback, where the last line of a crash report is not looked for; a log may have one itself
    quoted = [f"  | {line.replace('Traceback (most recent call last)', 'Traceback')}\n" for line in lines]
    return failure(error, [f"Last lines of the log of job {task.job}:\n", *quoted] if quoted else [])
