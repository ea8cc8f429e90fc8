"""Work in another thread: progress and the end arrive as signals, a cancel acts at the next progress call."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import WorkerBase

from napari_neuraldiffuser.core.base.progress import Cancelled, Progress


class ThreadTask(QObject):
    """A function in the thread pool that a panel can wait for as for a call of the engine (`engine.Task`).

    `told(done, total, what)` while it runs, and `ended` with its result, or the exception that ended it.  napari's own
    workers say nothing when a RuntimeError ends them, and torch's out-of-memory error is one.

    Parameters
    ----------
    work : callable
        Takes a progress function, which raises Cancelled once `cancel` was called; what it returns is emitted.
    """

    told = Signal(int, int, str)
    ended = Signal(object)

    def __init__(self, work: Callable[[Progress], Any]) -> None:
        super().__init__()
        self._work, self._stop = work, threading.Event()

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin; the task lives at least until its end was emitted."""
        number = _mail().register(self)
        _Worker(number, self._work, self._stop).start()

    def cancel(self) -> None:
        """Stop at the next progress call."""
        self._stop.set()


class _Mail(QObject):
    """Brings what threads say into the window's thread: tasks are emitted from, and die, in that one alone."""

    told = Signal(int, int, int, str)
    ended = Signal(int, object)

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[int, ThreadTask] = {}
        self.last = 0
        self.told.connect(lambda number, *news: self.tasks[number].told.emit(*news))
        self.ended.connect(self._ended)

    def _ended(self, number: int, result: Any) -> None:
        task = self.tasks.pop(number)  # by name, as a bound signal alone keeps no object alive
        task.ended.emit(result)

    def register(self, task: ThreadTask) -> int:
        """The number under which a thread speaks of a task."""
        self.last += 1
        self.tasks[self.last] = task
        return self.last


@cache
def _mail() -> _Mail:
    return _Mail()


class _Worker(WorkerBase):
    def __init__(self, number: int, function: Callable[[Progress], Any], stop: threading.Event) -> None:
        super().__init__()
        self.number, self.function, self.stop = number, function, stop

    def tell(self, done: int, total: int, what: str) -> None:
        if self.stop.is_set():
            raise Cancelled
        _mail().told.emit(self.number, int(done), int(total), what)

    def work(self) -> None:
        result: Any
        try:
            result = self.function(self.tell)
        except Exception as error:  # whatever it is, the panel has to hear of it
            result = error
        _mail().ended.emit(self.number, result)
