"""The pictures of a run in the strip below the brain, changed with every preview."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.widgets.run.record import Run
from napari_neuraldiffuser.widgets.run.score_table import mean_text
from napari_neuraldiffuser.widgets.views import docked
from napari_neuraldiffuser.widgets.views.pictures import PICTURES, PictureStrip

if TYPE_CHECKING:
    import napari


class BesideBrain(QObject):
    """Shows the run of the Reconstruct page in the viewer's strip.

    Parameters
    ----------
    viewer : napari.Viewer
    parent : QObject
        Whose end is the end of this.
    """

    turned = Signal(int)
    """The user wants to see another stimulus of the run."""
    closed = Signal()
    """The user closed the strip: it must not come back by itself."""

    def __init__(self, viewer: "napari.viewer.Viewer", parent: QObject) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.strip: PictureStrip | None = None

    def show(self, run: Run, stimulus: int) -> None:
        """Show one stimulus of a run, once there is something to show."""
        if run.seen is None:
            return
        if self.strip is not None and not docked.is_open(self.viewer, self.strip):
            self.strip = None
            self.closed.emit()
            return
        if self.strip is None:
            self.strip = PictureStrip.of(self.viewer)
            docked.set_shown(self.strip, True)
        texts = {arm: mean_text(run.rows_of(arm, stimulus)) or run.tag(arm) for arm in run.steps}
        self.strip.show_pictures(pictures(run, stimulus), stimulus, run.stimulus_ids, self._turn, texts)

    def _turn(self, stimulus: int) -> None:
        if isalive(self):  # the strip outlives the page
            self.turned.emit(stimulus)

    def mark(self, changed: Mapping[str, str]) -> None:
        """Mark the pictures of the run that are out of date, by row of the page: "given" or an arm."""
        if self.strip is not None and self._is_ours():
            self.strip.mark({name: changed.get(name, "") for name in ARMS} | {"start": changed.get("given", "")})

    def clear(self) -> None:
        """Take the run's pictures away; those of an opened folder stay."""
        if self._is_ours():
            self.strip.clear()

    def hide(self) -> None:
        """Hide the strip, unless it shows something else meanwhile."""
        if self._is_ours():
            docked.set_shown(self.strip, False)
        self.strip = None

    def _is_ours(self) -> bool:
        return self.strip is not None and docked.is_open(self.viewer, self.strip) and self.strip.turn == self._turn


def pictures(run: Run, stimulus: int) -> dict[str, np.ndarray | None]:
    """Seen, start and the first repeat of each arm; None for what is still to come."""
    k = run.stimulus_ids.index(stimulus)
    there = {"seen": run.seen[k], "start": run.start[k], **{arm: images[k, 0] for arm, images in run.images.items()}}
    return {name: there.get(name) for name in PICTURES if name in there or name in run.steps}
