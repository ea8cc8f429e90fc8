"""How many voxels the ROI expression of the session selects, counted by the engine."""

from functools import partial
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.session.engine import EngineError, Task
from napari_neuraldiffuser.widgets.session.panel import ERROR_STYLE
from napari_neuraldiffuser.widgets.session.session import Session

COUNT_AFTER = 300
"""Milliseconds of quiet after which voxels are counted."""


class VoxelCount(QLabel):
    """Counts again some time after `ask`; of several answers only the last counts."""

    def __init__(self, session: Session) -> None:
        super().__init__("", wordWrap=True, visible=False)
        self.setToolTip("Voxels that the expression selects; betas have fewer where a voxel has no signal")
        self.session = session
        self._task: Task | None = None
        self._asked: Any = None
        self._timer = QTimer(self, singleShot=True, interval=COUNT_AFTER)
        self._timer.timeout.connect(self._count)

    def ask(self) -> None:
        """The expression or the data may have changed."""
        self._timer.start()

    def _count(self) -> None:
        session = self.session
        betas = session.recipe.settings.betas
        asked = (session.recipe.source, betas.roi, betas.space) if session.described else None
        if asked == self._asked:
            return
        self._asked = asked
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._say("")
        if asked is not None:
            self._say("counted after the present run" if session.busy else "counting …")
            self._task = task = session.call("voxels", quiet=True)
            task.ended.connect(partial(self._counted, task))

    def _counted(self, task: Task, result: Any) -> None:
        if task is not self._task:
            return
        self._task = None
        if isinstance(result, dict):
            n_voxels = result["n_voxels"]
            self._say(f"{n_voxels:,} voxel{'' if n_voxels == 1 else 's'} selected")
        else:
            self._asked = None  # asked again with the next change
            self._say(reason(result), error=True)

    def _say(self, text: str, error: bool = False) -> None:
        self.setStyleSheet(ERROR_STYLE if error else "")
        self.setText(text)
        self.setVisible(bool(text))


def reason(error: Exception) -> str:
    """What to tell of the end of a call."""
    if isinstance(error, Cancelled):
        return ""
    return str(error) if isinstance(error, (UserError, EngineError)) else f"{type(error).__name__}: {error}"
