"""What a long call says while it runs, and how it learns that the user wants it to stop.  Standard library only."""

import threading
from collections.abc import Callable
from typing import Any


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
