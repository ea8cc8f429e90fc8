"""The pictures of a run beside the brain, in millimetres, changed in place with every preview."""

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_neuraldiffuser.widgets.files.layer_info import keeping_active, kind_of
from napari_neuraldiffuser.widgets.files.layers import PICTURES, TITLES, frames, picture_layer, titles_layer
from napari_neuraldiffuser.widgets.run.record import Run

if TYPE_CHECKING:
    import napari

NAMES = (*PICTURES, TITLES)
"""The titles last, as a picture above them would hide them."""
BLANK = np.full((32, 32, 3), 40, np.uint8)
"""Dark grey, for an image that is not there yet."""


class BesideBrain(QObject):
    """Layers seen, start, unguided and guided to the right of the anatomy.

    Parameters
    ----------
    viewer : napari.Viewer
    parent : QObject
        Whose end is the end of this.
    """

    def __init__(self, viewer: "napari.viewer.Viewer", parent: QObject) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.layers: dict[str, Any] = {}
        self.frames_of: dict[str, tuple[float, float, float]] = {}
        self.images: dict[str, np.ndarray] = {}
        self.moved = False
        # napari takes a moment to make a layer: one at a time, so that the window stays responsive
        self._next = QTimer(self, singleShot=True, interval=0, timeout=self._add_one)

    def anatomy(self) -> "napari.layers.Layer | None":
        """The anatomy layer, or None."""
        return next((layer for layer in self.viewer.layers if kind_of(layer) == "anatomy"), None)

    def show(self, run: Run, stimulus: int, repeat: int = 0) -> None:
        """Show one stimulus of a run; nothing where there is no anatomy, or nothing to show yet."""
        anatomy = self.anatomy()
        if anatomy is None or run.seen is None:
            return
        self.images = pictures(run, stimulus, repeat)
        frames_of = frames(anatomy.data, np.asarray(anatomy.affine.affine_matrix))
        moved, self.frames_of = frames_of != self.frames_of, frames_of
        self.moved |= moved
        for name in NAMES:
            layer = self._there(name)
            if layer is None:
                self._next.start()
            else:
                self._change(layer, name, moved)

    def _there(self, name: str) -> "napari.layers.Layer | None":
        """The layer of that name, also one that a closed panel or an opened folder left, unless the user removed it."""
        layer = self.layers.get(name)
        if layer is None or layer not in self.viewer.layers:
            layer = next((one for one in self.viewer.layers if one.name == name and kind_of(one) == "picture"), None)
            if layer is not None:
                self.layers[name] = layer
        return layer

    def _change(self, layer: "napari.layers.Layer", name: str, moved: bool) -> None:
        if name == TITLES:
            if moved:
                layer.data = titles_layer(self.frames_of)[0]
            return
        # a missing image has the size of the one before: another affine makes napari look at all layers again
        image = self.images.get(name, np.broadcast_to(BLANK[:1, :1], layer.data.shape))
        if moved or image.shape != layer.data.shape:
            layer.affine = picture_layer(name, image, self.frames_of[name])[1]["affine"]
        if image.shape != layer.data.shape:
            layer.data = image.copy()
        elif not np.array_equal(image, layer.data):
            layer.data[...] = image  # in place, for new data would do so too
            layer.refresh(extent=False)

    def _add_one(self) -> None:
        missing = [name for name in NAMES if self._there(name) is None]
        if missing and self.frames_of:
            self._add(missing[0])
        if missing[1:]:
            self._next.start()
        elif self.moved:  # only now are they known to be somewhere out of sight
            self.moved = False
            self.viewer.reset_view(reset_camera_angle=False)

    def _add(self, name: str) -> None:
        with keeping_active(self.viewer):
            if name == TITLES:
                points, keywords, _ = titles_layer(self.frames_of)
                self.layers[name] = self.viewer.add_points(points, **keywords)
            else:
                image, keywords, _ = picture_layer(name, self.images.get(name, BLANK), self.frames_of[name])
                self.layers[name] = self.viewer.add_image(image.copy(), **keywords)  # of its own, as it is written to

    def hide(self) -> None:
        """Remove the layers."""
        self._next.stop()
        for name in list(self.layers):
            layer = self._there(name)
            if layer is not None:
                self.viewer.layers.remove(layer)
        self.layers.clear()
        self.frames_of = {}


def pictures(run: Run, stimulus: int, repeat: int) -> dict[str, np.ndarray]:
    """Seen, start and each arm's image of one repeat, as far as they are there."""
    k = run.stimulus_ids.index(stimulus)
    given = {"seen": run.seen[k], "start": run.start[k]}
    return given | {arm: images[k, min(repeat, images.shape[1] - 1)] for arm, images in run.images.items()}
