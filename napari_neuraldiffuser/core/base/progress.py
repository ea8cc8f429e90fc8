"""What a long call says while it runs, and how it learns that the user wants it to stop.  Standard library only."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, what): `what` names the stage up to its first comma; a total of 0 is unknown."""


def silent(done: int, total: int, what: str) -> None:
    """The progress function of who does not listen."""


def stage_of(what: str) -> str:
    """What a progress message counts, without the detail behind the first comma."""
    return what.split(",")[0]


def duration(seconds: float) -> str:
    """ "45 s", "3 min" or "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def tell(stream: TextIO, text: str) -> None:
    """Write progress at once; where nobody reads it any more (`2>&1 | head`) the work goes on all the same."""
    with suppress(BrokenPipeError):
        stream.write(text)
        stream.flush()


class Countdown:
    """Time left of the stage under way, from its own pace since it was first told of."""

    def __init__(self) -> None:
        self.stage, self.began, self.first = "", 0.0, 0.0

    def left(self, done: float, total: float, what: str, now: float | None = None) -> str:
        """ ", about 12 s left", or nothing while the pace is unknown; `now` in s, of any clock."""
        stage, now = stage_of(what), time.monotonic() if now is None else now
        if stage != self.stage or done < self.first:
            self.stage, self.began, self.first = stage, now, done
        made, spent = done - self.first, now - self.began
        if made <= 0 or spent < 1 or done >= total:
            return ""
        return f", about {duration(spent / made * (total - done))} left"


class Cancelled(Exception):
    """The user asked to stop; `result` is what the call had until then (empty where there is nothing)."""

    def __init__(self, result: dict[str, Any] | None = None) -> None:
        super().__init__("cancelled")
        self.result = result or {}


class Events:
    """Messages of one call.

    Parameters
    ----------
    emit : callable
        Called as emit(name, payload); `told` has the payload {"done", "total", "what"}.
    cancel : threading.Event, optional
        Set by another thread to stop the call at its next message.
    """

    def __init__(
        self,
        emit: Callable[[str, dict[str, Any]], Any] = lambda name, payload: None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._emit, self._cancel = emit, cancel or threading.Event()

    def told(self, done: int, total: int, what: str) -> None:
        """Progress in words of a few letters; Cancelled where the user asked to stop."""
        self.event("told", {"done": int(done), "total": int(total), "what": what})

    def event(self, name: str, payload: dict[str, Any]) -> None:
        """Something to show: JSON values, and NumPy arrays at the top level; Cancelled as above."""
        self.check()
        self._emit(name, payload)
        self.check()

    def check(self) -> None:
        """Raise Cancelled where the user asked to stop."""
        if self._cancel.is_set():
            raise Cancelled

    def closing(self) -> "Events":
        """The same listener without the way to stop: for keeping what a cancelled call has."""
        return Events(self._emit)
