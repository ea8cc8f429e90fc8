"""Tells of a node's progress in a file in its folder: every engine that shares a disk with its workers can read it."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_neuraldiffuser.core.base.progress import stage_of

FILE = "progress.json"
EVERY = 1.0
"""Seconds between two writes."""


@dataclass(frozen=True)
class ProgressRecord:
    """What a node said last, and when in seconds since 1970."""

    what: str
    done: int
    total: int
    time: float

    @property
    def share(self) -> float:
        """Share of the stage that is done, 0 to 1."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0


class NodeProgress:
    """Progress callback `(done, total, what)` that keeps `progress.json` in a node's folder up to date.

    The file is written at most once a second, and when everything is done.
    """

    def __init__(self, cwd: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.clock = Path(cwd) / FILE, clock
        self._last = -EVERY
        self._finished = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        # a stage that only says "all done" again and again, batch after batch, is written once
        finished = stage_of(what) if done >= total else ""
        now = self.clock()
        if now - self._last < EVERY and (not finished or finished == self._finished):
            return
        self._last, self._finished = now, finished
        self._write(ProgressRecord(what, int(done), int(total), time.time()))

    def _write(self, record: ProgressRecord) -> None:
        temporary = self.path.with_name(f".{FILE}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError:
            # a count that cannot be shown is no reason to lose the computation; a full disk speaks up elsewhere
            temporary.unlink(missing_ok=True)


def read(folder: str | Path) -> ProgressRecord | None:
    """Read what the node in `folder` said last; None where it said nothing, or nothing that can be read."""
    try:
        state = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
        return ProgressRecord(str(state["what"]), int(state["done"]), int(state["total"]), float(state["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
