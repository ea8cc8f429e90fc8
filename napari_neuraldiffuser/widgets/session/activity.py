"""What is said of a task under way: a bar in napari's activity dock, and a line of text that never stands still."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

from napari_neuraldiffuser.core.base.progress import Countdown, duration

if TYPE_CHECKING:
    from napari.utils import progress


class ActivityBar:
    """A bar that follows `(done, total, stage)`; a new stage or total begins a new one.

    Parameters
    ----------
    cancel : callable, optional
        Called at once by the cross at the bar: a loop over it, where napari would look for it, there is none.
    """

    def __init__(self, cancel: Callable[[], None] | None = None) -> None:
        self.bar: progress | None = None
        self.cancel = cancel
        self._making = False

    def tell(self, done: int, total: int, stage: str) -> None:
        """Show `done` of `total`.

        napari processes waiting events while it makes a bar, more news among them: those are passed over, or it would
        never end.
        """
        if self._making:
            return
        self._making = True
        try:
            if self.bar is None or (self.bar.desc, self.bar.total) != (stage, total):
                self.close()
                self.bar = _new_bar(total, stage, self.cancel)
            self.bar.update(done - self.bar.n)
        finally:
            self._making = False

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _new_bar(total: int, stage: str, cancel: Callable[[], None] | None) -> "progress":
    from napari.utils import cancelable_progress, progress

    if cancel is None:
        return progress(total=total, desc=stage, gui=True)

    class Bar(cancelable_progress):
        def cancel(self) -> None:
            super().cancel()
            cancel()

    return Bar(total=total, desc=stage)


class StageText(QObject):
    """Says how far a task is and how long it will take; of a stage of unknown length, how long it has taken.

    Parameters
    ----------
    parent : QObject
        Whose end is the end of this.
    """

    said = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.countdown = Countdown()
        self._waits, self._since = "", 0.0
        self._clock = QTimer(self, interval=1000, timeout=self._tick)

    def start(self, what: str) -> None:
        """Another task begins with a stage of unknown length."""
        self.countdown = Countdown()
        self._waits = ""
        self.tell(0, 0, what)

    def tell(self, done: int, total: int, what: str) -> None:
        """Take news of the task, as `base.progress.Progress` has them; a total of 0 is unknown."""
        if total:
            self.stop()
            self.said.emit(f"{what} ({done} of {total}{self.countdown.left(done, total, what)})")
        elif what != self._waits:
            self._waits, self._since = what, time.monotonic()
            self._clock.start()
            self.said.emit(what)

    def _tick(self) -> None:
        self.said.emit(f"{self._waits}, {duration(time.monotonic() - self._since)}")

    def stop(self) -> None:
        """Say no more until there is news."""
        self._clock.stop()
        self._waits = ""
