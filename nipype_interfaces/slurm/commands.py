"""Asks SLURM's commands about jobs: their states, how one ended, and what to do about it."""

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_neuraldiffuser.core.base.errors import UserError
from nipype import logging

logger = logging.getLogger("nipype.workflow")
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
)  # fmt: skip
"""States in which a job runs no more; in others it runs, waits, or was put back to the queue."""
NEVER = ("BadConstraints", "DependencyNeverSatisfied", "JobHoldMaxRequeue", "launch failed requeued held",
         "launch_failed_requeued_held")  # fmt: skip
"""Reasons for which a waiting job will never run."""
HELD = ("JobHeldUser", "JobHeldAdmin", "ReqNodeNotAvail", "PartitionDown", "PartitionInactive", "PartitionTimeLimit",
        "PartitionNodeLimit", "AccountNotAllowed", "InvalidAccount", "InvalidQOS")  # fmt: skip
"""Reasons that go away only if somebody does something."""
TRANSIENT = re.compile(
    r"timed out|unable to contact|not available at the moment|temporar|connection|try again|slurmctld|zero bytes",
    re.IGNORECASE,
)
MEMORY = re.compile(r"exceeded (?:job |step )?memory limit|oom[-_ ]kill|out[ -]of[ -]memory", re.IGNORECASE)
WAIT_S = 60
"""Seconds that a command of SLURM may take."""
TAIL = 20
"""Number of last lines of a job's log that a crash report shows."""


class SlurmError(UserError):
    """A command of SLURM failed."""


class SlurmJobError(UserError):
    """A job ended without a result; the message says how, and what to do."""


@dataclass(frozen=True)
class State:
    """What squeue says of a job: one of SLURM's states, and why it waits."""

    name: str = "PENDING"
    reason: str = "None"

    @property
    def ended(self) -> bool:
        return self.name in ENDED

    @property
    def runs(self) -> bool:
        """Whether it runs, or will; a job that is completing runs no more, but its computer has not said so yet."""
        return not self.ended and self.name not in ("UNKNOWN", "COMPLETING")


GONE = State("UNKNOWN")
"""State of a job that SLURM does not know any more."""


def command(*words: str) -> str:
    """Return the output of a command of SLURM; SlurmError if it fails or does not answer."""
    try:
        # in a session of its own: Ctrl-C must not end sbatch when the job may be accepted already
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=WAIT_S, start_new_session=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{words[0]} must answer within {WAIT_S} s, and timed out.") from error
    except OSError as error:
        raise SlurmError(f"{words[0]} must be a program on this machine, got: {error}.") from error
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise SlurmError(f"{words[0]} must end with status 0, got {done.returncode}: {said}")
    return done.stdout


def is_transient(error: Exception) -> bool:
    """Tell whether the same command may work in a moment."""
    return bool(TRANSIENT.search(str(error)))


def states(jobs: Iterable[int]) -> dict[int, State]:
    """Ask for the state of every job that the controller remembers, in one call as administrators want it.

    Raises
    ------
    SlurmError
        If squeue does not answer.
    """
    wanted = ",".join(map(str, jobs))
    if not wanted:
        return {}
    try:
        said = command("squeue", "-h", "-t", "all", "-o", "%i|%T|%r", "-j", wanted)
    except SlurmError as error:
        # with one job it is an error that the controller has forgotten it, with several it is not
        if "Invalid job id" in str(error):
            return {}
        raise
    # arrays and components of a job have more than a number; they are not ours
    rows = re.findall(r"(?m)^ *(\d+)\|([A-Z_]+)\|(.*)$", said)
    return {int(job): State(name, reason.strip().strip("()")) for job, name, reason in rows}


def named(names: Collection[str]) -> list[int]:
    """List the numbers of the jobs of these names that wait or run."""
    said = command("squeue", "-h", "-o", "%i|%j", "-u", str(os.geteuid()))
    return sorted(int(job) for job, name in re.findall(r"(?m)^ *(\d+)\|(.*?) *$", said) if name in names)


def newest(name: str) -> int:
    """Return the number of the newest job of that name, 0 if there is none or SLURM does not say."""
    with suppress(SlurmError):
        return max(named([name]), default=0)
    return 0


def cancel(*jobs: int) -> bool:
    """Cancel jobs; where that fails, return False and write a warning to the log."""
    try:
        return not jobs or not command("scancel", *map(str, jobs))
    except SlurmError as error:
        logger.warning("could not cancel SLURM jobs %s: %s", ", ".join(map(str, jobs)), error)
        return False


def details(job: int) -> dict[str, str]:
    """Read the fields of `scontrol show job`, or of the accounting data base once the controller has forgotten the job.

    They are {} where neither knows the job: not every cluster has that data base.
    """
    if said := _answer("scontrol", "show", "job", "-o", str(job)):
        return parse_details(said)
    names = ("JobState", "ExitCode", "NodeList", "RunTime", "MinMemoryNode")
    columns = "State,ExitCode,NodeList,Elapsed,ReqMem"
    lines = _answer("sacct", "-n", "-P", "-X", "-j", str(job), "-o", columns).splitlines()
    facts = dict(zip(names, lines[-1].split("|"), strict=False)) if lines else {}
    if "JobState" in facts:  # "CANCELLED by 1000"
        facts["JobState"] = facts["JobState"].partition(" ")[0] or "UNKNOWN"
    return facts


def _answer(*words: str) -> str:
    """Return the output of a command of SLURM, "" where it fails."""
    with suppress(SlurmError):
        return command(*words)
    return ""


def parse_details(text: str) -> dict[str, str]:
    """Read the `Name=value` pairs of one line; a value may have blanks in it.

    >>> parse_details("JobId=3 JobState=FAILED Reason=Bad luck StdErr=/a b/c.out Power=")["Reason"]
    'Bad luck'
    """
    first = text.strip().splitlines()[0] if text.strip() else ""
    parts = re.split(r"(?:^| +)([A-Z][\w/:]*)=", first)
    return dict(zip(parts[1::2], (value.strip() for value in parts[2::2]), strict=True))


def tail(path: Path) -> list[str]:
    """Return the last lines of a job's log; [] where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line.rstrip() for line in lines if line.strip()][-TAIL:]


def remedy(state: str, facts: dict[str, str], log: Sequence[str]) -> tuple[str, str]:
    """Say why a job ended without a result, and what to do.

    Parameters
    ----------
    state : str
        SLURM's, "UNKNOWN" where it knows the job no more.
    facts : dict
        Of `details`.
    log : sequence of str
        Last lines of the job's log.
    """
    if state == "OUT_OF_MEMORY" or any(map(MEMORY.search, log)):
        had = facts.get("MinMemoryNode") or facts.get("MinMemoryCPU") or ""
        had = f" than the {had} it had" if had not in ("", "0") else " than it had"
        return f"it needed more memory{had}", MORE_MEMORY
    if state in WHY:
        return WHY[state]
    code, _, signal = facts.get("ExitCode", "0:0").partition(":")
    if signal in ("9", "137") or code in ("9", "137"):
        return "it was killed (signal 9), most often because memory ran out", MORE_MEMORY
    last = f"; it said last: {log[-1].strip()}" if log else ""
    return f"its program ended before it could write one{last}", "Read its log"


MORE_MEMORY = "Ask for more with --mem in the sbatch_args of the node or of the plugin file, or lower --batch-size"
WHY = {
    # state of a job that left no result -> why, and what to do
    "COMPLETED": (
        "its files are not to be seen here",
        "See that --work-dir is on a disk that every node of the cluster shares, and raise job_finished_timeout if it "
        "is only slow",
    ),
    "TIMEOUT": (
        "its time limit was over",
        "Ask for more with --time in the sbatch_args of the plugin file, or give a smaller --chunk-size",
    ),
    "DEADLINE": ("its deadline was over", "Ask for a later --deadline"),
    "NODE_FAIL": ("the computer it ran on failed", "With --requeue in sbatch_args SLURM starts such a job again"),
    "BOOT_FAIL": ("the computer it was given did not start", "With --requeue in sbatch_args SLURM tries again"),
    "PREEMPTED": ("a job of higher priority took its place", "With --requeue in sbatch_args SLURM starts it again"),
    "CANCELLED": ("it was cancelled, by scancel or an administrator", "If that was not you, ask who did"),
    "REVOKED": ("another cluster of the federation took it", "Run on one cluster, with --clusters in sbatch_args"),
    "UNKNOWN": (
        "SLURM does not know it any more",
        "See in its log how far it came; a job ends so, too, when the controller loses its memory",
    ),
}
