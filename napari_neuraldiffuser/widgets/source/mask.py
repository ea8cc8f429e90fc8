"""Masks that are painted in the viewer: an empty layer on the betas' grid, and its way into the ROI expression."""

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation, ornt_transform
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QGroupBox, QHBoxLayout, QVBoxLayout

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.widgets.files.layer_info import kind_of
from napari_neuraldiffuser.widgets.files.reader import volume_layer
from napari_neuraldiffuser.widgets.files.writer import Layer, layer_to_nifti
from napari_neuraldiffuser.widgets.session.controls import button
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.state import cache_folder
from napari_neuraldiffuser.widgets.session.worker import ThreadTask

if TYPE_CHECKING:
    import napari

GRID_TOLERANCE_MM = 1e-2
"""As `core.nsd.reading.volumes` compares grids."""
DIGITS = 8
NEW = "New mask layer"


class MaskError(UserError):
    """A layer cannot be used as a mask; the message says what it must be and how to get such a one."""


def new_mask_layer(viewer: "napari.Viewer", described: dict[str, Any], name: str = "mask") -> "napari.layers.Labels":
    """Add an empty Labels layer on the betas' grid, selected, with the brush in hand.

    Parameters
    ----------
    viewer : napari.Viewer
    described : dict
        `shape` (X, Y, Z) and `affine` (4, 4; voxel to mm) of the betas.
    """
    image = nib.Nifti1Image(np.zeros(described["shape"], dtype=np.uint8), np.asarray(described["affine"], dtype=float))
    image.header.set_intent("label")
    data, keywords, _ = volume_layer(image, f"{name}.nii.gz")
    viewer.dims.ndisplay = 2
    layer = viewer.add_labels(data, **{**keywords, "opacity": 0.6})
    viewer.layers.selection = {layer}
    layer.selected_label = 1
    layer.brush_size = 3
    layer.mode = "paint"
    return layer


def mask_on_grid(layer: Layer, described: dict[str, Any]) -> np.ndarray:
    """Voxels (X, Y, Z) bool of the betas' grid that a Labels layer marks.

    The layer may hold its axes in another order or direction; its voxels must be those of the betas.

    Raises
    ------
    MaskError
        If nothing is marked, or the layer has another grid.
    """
    image = layer_to_nifti(layer)
    shape, affine = tuple(described["shape"]), np.asarray(described["affine"], dtype=float)
    if image.ndim != 3:
        raise MaskError(f"{_name(layer)} must have three axes, got {image.ndim}. Press {NEW!r} and draw on that.")
    turn = ornt_transform(io_orientation(image.affine), io_orientation(affine))
    turned = image.as_reoriented(turn)
    same = turned.shape == shape and np.allclose(turned.affine, affine, atol=GRID_TOLERANCE_MM)
    if not same:
        raise MaskError(
            f"{_name(layer)} must lie on the betas' grid ({_grid(shape, affine)}), "
            f"got {_grid(turned.shape, turned.affine)}. Press {NEW!r} and draw on that."
        )
    mask = np.asanyarray(turned.dataobj) > 0
    if not mask.any():
        raise MaskError(f"{_name(layer)} must have painted voxels, got none. Paint with a label above 0.")
    return mask


def write_mask(layer: Layer, described: dict[str, Any], folder: Path) -> tuple[Path, int]:
    """Write the marked voxels as NIfTI; the same voxels of the same name always give the same file.

    Returns
    -------
    path : Path
        FOLDER/NAME-DIGEST.nii.gz
    n_voxels : int
    """
    mask = mask_on_grid(layer, described)
    affine = np.asarray(described["affine"], dtype=float)
    digest = hashlib.sha256(np.packbits(mask).tobytes() + repr((mask.shape, affine.tolist())).encode()).hexdigest()
    stem = re.sub(r"[^0-9A-Za-z]+", "-", _name(layer)).strip("-") or "mask"
    path = Path(folder) / f"{stem}-{digest[:DIGITS]}.nii.gz"
    if not path.is_file():
        image = nib.Nifti1Image(mask.astype(np.uint8), affine)
        image.header.set_xyzt_units("mm")
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
    return path, int(mask.sum())


def _name(layer: Any) -> str:
    return layer[1].get("name", "mask") if isinstance(layer, tuple) else layer.name


def _grid(shape: tuple[int, ...], affine: np.ndarray) -> str:
    sizes = " x ".join(f"{s:.3g}" for s in nib.affines.voxel_sizes(affine))
    return f"{' x '.join(map(str, shape))} voxels of {sizes} mm from {np.round(affine[:3, 3], 1).tolist()}"


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
        self.new = button(NEW, "Adds an empty layer on the betas' grid, with the brush in hand", self._add)
        self.use = button("Use drawn mask", "Saves the painted voxels and takes them into the expression", self._use)
        for combo in (self.layer, self.join):
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(10)
        layout = QVBoxLayout(self)
        for pair in ((self.layer, self.join), (self.new, self.use)):
            row = QHBoxLayout()
            for widget in pair:
                row.addWidget(widget, 1)
            layout.addLayout(row)
        for name in EVENTS:
            getattr(viewer.layers.events, name).connect(self._list)
        self.destroyed.connect(partial(_let_go, viewer, self._list))
        self._list()

    def show_described(self, described: dict[str, Any] | None) -> None:
        """Masks can be drawn as soon as the grid of the betas is known."""
        self.described = described
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
