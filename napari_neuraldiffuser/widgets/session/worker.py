"""Core calls in another thread: progress and the end arrive as signals, a cancel acts at the next progress call."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import WorkerBase

from napari_neuraldiffuser.core.base.progress import Cancelled, Progress


class News(QObject):
    """`told(done, total, what)` while the task runs; `ended` with its result, or the exception that ended it."""

    told = Signal(int, int, str)
    ended = Signal(object)


class CoreWorker(WorkerBase):
    """Runs `task(progress)` in the thread pool.

    napari's own workers say nothing when a RuntimeError ends them, and torch's out-of-memory error is one; here
    every exception arrives through `news.ended`.

    Parameters
    ----------
    task : callable
        Takes a progress function; what it returns is emitted.
    """

    def __init__(self, task: Callable[[Progress], Any]) -> None:
        super().__init__()
        self.task, self.news = task, News()

    def tell(self, done: int, total: int, what: str) -> None:
        """The progress function of the task: raises Cancelled once `quit` was called."""
        if self.abort_requested:
            raise Cancelled
        self.news.told.emit(int(done), int(total), what)

    def work(self) -> None:
        try:
            result = self.task(self.tell)
        except Exception as error:  # whatever it is, the panel has to hear of it
            result = error
        self.news.ended.emit(result)
