"""Live: run again, by itself, a moment after a parameter changed."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QCheckBox

if TYPE_CHECKING:
    from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel

REST = 600
"""Milliseconds without a change after which the run begins."""


class LiveRerun(QObject):
    """Starts a panel's run once the recipe has been at rest, and ends the one in progress first.

    Parameters
    ----------
    panel : ReconstructPanel
    """

    def __init__(self, panel: "ReconstructPanel") -> None:
        super().__init__(panel)
        self.panel = panel
        self.waiting = False
        self.tick = QCheckBox("live")
        self.tick.setToolTip(
            "Runs again 0.6 s after a parameter or the stimulus changed, and drops the run in progress; "
            "not while the data still has to be decoded"
        )
        self.tick.toggled.connect(self.forget)
        self.timer = QTimer(self, singleShot=True, interval=REST)
        self.timer.timeout.connect(self._rested)
        panel.session.recipe_changed.connect(self._changed)
        panel.session.busy_changed.connect(self._free)

    def _changed(self, recipe: Any) -> None:
        if self.tick.isChecked():
            self.timer.start()

    def forget(self, *_: Any) -> None:
        """Do not run by itself what was asked for until now."""
        self.timer.stop()
        self.waiting = False

    def _rested(self) -> None:
        panel = self.panel
        if panel.session.decoded is None or panel.problems() or panel.is_current():
            return
        if not panel.session.busy:
            self.waiting = False
            panel.start()
            return
        self.waiting = True
        panel.drop_run()

    def _free(self, busy: bool) -> None:
        """The engine is free again: go on, after everybody else has heard of it."""
        if not busy and self.waiting:
            QTimer.singleShot(0, self._rested)
