"""How much memory is left, and whether something fits into it.  Standard library only."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from napari_neuraldiffuser.core.base.errors import UserError

GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 2**60
"""What version 1 of control groups says where there is no limit is above this."""
REMEDY = "Take fewer stimuli at once, fewer layers, or a machine with more memory."


NO_MEMORY = ("out of memory", "can't allocate memory", "unable to allocate")
"""How errors say that there is no memory, whatever their class."""
T = TypeVar("T")


class FewerAtOnce(UserWarning):
    """Memory did not suffice, and work goes on with less at once; the message says with how much."""


class MemoryNeeded(UserError):
    """Something is larger than the memory that is left; the message has both sizes and the remedy."""


def available() -> int | None:
    """Bytes that can be taken without swapping: of the machine, and of the job's own limit; None where unknown."""
    found = [*_machine(), *_limits()]
    return max(0, min(found)) if found else None


def check_fits(needed: float, what: str, remedy: str = REMEDY) -> None:
    """Raise MemoryNeeded where `needed` bytes of `what` are more than is left.

    Where nobody says what is left, nothing is refused.
    """
    left = available()
    if left is not None and needed > left:
        raise MemoryNeeded(f"{what} must fit into memory, got {size(needed)} for {size(left)} free. {remedy}")


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception means that memory did not suffice (torch's own is a RuntimeError)."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY)


def halving(compute: Callable[[int], T], most: int, what: str, free: Callable[[], None]) -> T:
    """`compute(most)`, and with half as many while memory does not suffice, down to one.

    Parameters
    ----------
    compute : callable
        Computes with so many things at once; begins anew at every call.
    most : int
        How many things at once to begin with.
    what : str
        What the things are, for the FewerAtOnce warning that tells of every halving.
    free : callable
        Called before every further try.
    """
    while True:
        try:
            return compute(most)
        except Exception as error:
            if most <= 1 or not lacks_memory(error):
                raise
            reason = str(error).strip().split("\n")[0] or "no memory was left"
        # outside of the handler, where nothing holds the frames of what failed any more
        fewer = -(-most // 2)
        warnings.warn(f"Memory did not suffice for {most} {what} at once, now {fewer}: {reason}", FewerAtOnce, 2)
        most = fewer
        free()


def size(n_bytes: float) -> str:
    """ "1.2 GB", "37 MB" or "5 kB"."""
    power, unit = next(((p, u) for p, u in ((9, "GB"), (6, "MB")) if n_bytes >= 10**p), (3, "kB"))
    return f"{n_bytes / 10**power:.{int(power == 9)}f} {unit}"


def _machine() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])
                return
    # no Linux: all of it, which is more than is left
    with suppress(OSError, ValueError, AttributeError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits() -> Iterator[int]:
    """What control groups (a container, a job of a batch system) leave, of version 2 and 1."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if not kinds:
                yield from _left(GROUPS, path, "memory.max", "memory.current")
            elif "memory" in kinds.split(","):
                yield from _left(GROUPS / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _left(root: Path, path: str, limit: str, used: str) -> Iterator[int]:
    """Limit minus use, of a group and those that it lies in."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="ascii"))  # "max" is no number
            if most < UNLIMITED:
                # pages of files count as used, and are given back when memory is wanted
                yield most - int((folder / used).read_text(encoding="ascii")) + _cache(folder)
        if folder == root:
            return


def _cache(folder: Path) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.split()[0] in ("inactive_file", "total_inactive_file"):
                return int(line.split()[1])
    return 0
