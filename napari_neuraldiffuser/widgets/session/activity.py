"""napari's activity dock: one bar per stage."""

from typing import Any


class ActivityBar:
    """A bar that follows `(done, total, stage)`; a new stage or total begins a new one."""

    def __init__(self) -> None:
        self.bar: Any = None
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
            self._update(done, total, stage)
        finally:
            self._making = False

    def _update(self, done: int, total: int, stage: str) -> None:
        from napari.utils import progress

        if self.bar is None or (self.bar.desc, self.bar.total) != (stage, total):
            self.close()
            self.bar = progress(total=total, desc=stage, gui=True)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
