"""A bar in napari's activity dock."""

from collections.abc import Callable
from typing import TYPE_CHECKING

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
