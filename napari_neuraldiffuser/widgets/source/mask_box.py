"""A mask that the user paints, as a term of the ROI expression."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QGroupBox, QHBoxLayout, QPushButton, QVBoxLayout

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.widgets.files.about import kind_of
from napari_neuraldiffuser.widgets.files.places import cache_folder
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.source.layers import ThreadTask
from napari_neuraldiffuser.widgets.source.mask import NEW, new_mask_layer, write_mask

if TYPE_CHECKING:
    import napari

JOINS = {
    "instead of the regions": "",
    "only inside it ( & )": " & ",
    "together with it ( + )": " + ",
    "without it ( - )": " - ",
}
EVENTS = ("inserted", "removed", "reordered", "renamed")


class MaskBox(QGroupBox):
    """Chooses a Labels layer; `drawn(expression)` once its voxels are a file."""

    drawn = Signal(str)
    told = Signal(str)
    failed = Signal(object)

    def __init__(self, viewer: "napari.Viewer", session: Session) -> None:
        super().__init__("Drawn mask")
        self.viewer, self.session = viewer, session
        self.described: dict[str, Any] | None = None
        self.task: ThreadTask | None = None
        self.layer = QComboBox(toolTip="Labels layer whose painted voxels are the mask")
        self.join = QComboBox(toolTip="How the mask and the expression above go together")
        self.join.addItems(list(JOINS))
        self.new = QPushButton(NEW, toolTip="Adds an empty layer on the betas' grid, with the brush in hand")
        self.use = QPushButton("Use drawn mask", toolTip="Saves the painted voxels and takes them into the expression")
        for combo in (self.layer, self.join):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(10)
        layout = QVBoxLayout(self)
        for pair in ((self.layer, self.join), (self.new, self.use)):
            row = QHBoxLayout()
            for widget in pair:
                row.addWidget(widget, 1)
            layout.addLayout(row)
        self.new.clicked.connect(self._add)
        self.use.clicked.connect(self._use)
        for name in EVENTS:
            getattr(viewer.layers.events, name).connect(self._list)
        self.destroyed.connect(partial(_let_go, viewer, self._list))
        self._list()

    def show_described(self, found: dict[str, Any] | None) -> None:
        """Masks can be drawn as soon as the grid of the betas is known."""
        self.described = found
        self._enable()

    def _list(self, event: Any = None) -> None:
        from napari.layers import Labels

        chosen = self.layer.currentText()
        layers = [layer for layer in reversed(self.viewer.layers) if isinstance(layer, Labels)]
        # as the layer list shows them, but what may have been painted before NSD's regions
        names = [layer.name for layer in sorted(layers, key=lambda layer: kind_of(layer) == "roi")]
        self.layer.clear()
        self.layer.addItems(names)
        self.layer.setCurrentIndex(max(self.layer.findText(chosen), 0) if names else -1)
        self._enable()

    def _enable(self) -> None:
        known = self.described is not None
        self.new.setEnabled(known)
        self.use.setEnabled(known and self.layer.count() > 0 and self.task is None)

    def _add(self) -> None:
        layer = new_mask_layer(self.viewer, self.described)
        self.layer.setCurrentText(layer.name)
        self.told.emit(f"Paint on {layer.name!r}, then press {self.use.text()!r}.")

    def _use(self) -> None:
        data, meta, kind = self.viewer.layers[self.layer.currentText()].as_layer_data_tuple()
        # a copy, for the user may go on painting while it is written
        layer, folder, described = (np.array(data), meta, kind), cache_folder() / "masks", self.described
        self.task = ThreadTask(lambda progress: write_mask(layer, described, folder))
        self.task.ended.connect(self._written)
        self._enable()
        self.task.start()

    def _written(self, result: Any) -> None:
        self.task = None
        self._enable()
        if isinstance(result, Exception):
            self.failed.emit(result)
            return
        from napari_neuraldiffuser.widgets.source.roi_terms import as_term

        path, n_voxels = result
        try:
            term = as_term(path)
        except UserError as error:
            self.failed.emit(error)
            return
        self.told.emit(f"{n_voxels:,} voxels of the mask are in {path.name}")
        join, roi = JOINS[self.join.currentText()], self.session.recipe.settings.betas.roi
        self.drawn.emit(f"{roi}{join}{term}" if join else term)


def _let_go(viewer: "napari.Viewer", listener: Any, *_: Any) -> None:
    for name in EVENTS:
        getattr(viewer.layers.events, name).disconnect(listener)
