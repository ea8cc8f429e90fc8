"""A button that opens the simulated subject through napari."""

from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.widgets.session.engine import EngineError

PLUGIN, SAMPLE = "napari-neuraldiffuser", "simulated_subject"
OPENING = "opening the simulated subject; the first time it is written, see the activity dock"


class SampleButton(QPushButton):
    """Opens the sample; `said` with what happens, `failed` with why it could not be.

    Parameters
    ----------
    viewer : callable
        Gives the napari viewer.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(self, viewer: Callable[[], Any]) -> None:
        super().__init__("Simulated subject")
        self.setToolTip("Opens a subject simulated in NSD's formats; it is written to the cache the first time")
        self._viewer = viewer
        self.clicked.connect(self._open)

    def _open(self) -> None:
        self.setEnabled(False)
        self.said.emit(OPENING)
        failure: Exception | None = None
        try:
            self._viewer().open_sample(PLUGIN, SAMPLE)
        except (KeyError, UserError, EngineError, OSError) as error:
            failure = error
        finally:
            # the sample has an event loop of its own while it is written, in which the panel can be closed
            alive = isalive(self)
            if alive:
                self.setEnabled(True)
        if not alive:
            return
        if failure is None:
            self.said.emit("")
        else:
            self.failed.emit(failure)
