"""The thresholded overlay of contribution maps: one Image layer, transparent where a share is below the threshold."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.widgets.files.layer_info import OWN, kind_of, own_layer
from napari_neuraldiffuser.widgets.files.layers import transparent_below
from napari_neuraldiffuser.widgets.files.view import place_camera
from napari_neuraldiffuser.widgets.maps.subject_maps import Volume

if TYPE_CHECKING:
    import napari

LAYER_NAME = "contribution"
USE = {OWN: "overlay"}
LEAST = 0.005
"""Lowest threshold, as a fraction of the largest share: below it voxels without any share would be coloured."""
BAND = (1, 2, 3, 4)
"""Control points of the colormap of both signs that follow the threshold."""


@dataclass(frozen=True)
class Look:
    """How the overlay is shown.

    Attributes
    ----------
    sign : str
        "positive", "negative" or "both".
    fraction : float
        Threshold as a fraction of the largest share of that sign.
    opacity : float
    """

    sign: str = "positive"
    fraction: float = 0.1
    opacity: float = 0.8


class Overlay:
    """The layer "contribution" of a viewer, made when first needed and reused from then on.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: "napari.Viewer") -> None:
        self.viewer = viewer
        self.extremes = (0.0, 0.0)

    @property
    def layer(self) -> "napari.layers.Layer | None":
        """The layer, whoever made it; None where it is not there: the user may have removed it."""
        return own_layer(self.viewer, USE[OWN])

    @property
    def shown(self) -> bool:
        """Whether the layer is there."""
        return self.layer is not None

    def measure(self, volume: Volume) -> None:
        """Take the lowest and the highest share of a map; `largest` needs them before a look can be made."""
        self.extremes = (float(volume.shown.min(initial=0.0)), float(volume.shown.max(initial=0.0)))

    def remove(self) -> None:
        """Take the layer away."""
        if self.shown:
            self.viewer.layers.remove(self.layer)

    def show(self, volume: Volume, look: Look, metadata: dict[str, Any]) -> None:
        """Show a map that was measured; the slice that is looked at stays."""
        data = volume.shown
        if self.shown and self.layer.data.shape == data.shape:
            self._replace_data(data, volume.placing["affine"])
        else:
            self._make_layer(data, volume.placing, look)
        self.layer.metadata = {**metadata, **USE}
        self.apply(look)

    def _replace_data(self, data: np.ndarray, affine: np.ndarray) -> None:
        self.layer.data = data
        if not np.array_equal(self.layer.affine.affine_matrix, affine):
            self.layer.affine = affine

    def _make_layer(self, data: np.ndarray, placing: dict[str, Any], look: Look) -> None:
        first = not self.shown
        point = self.viewer.dims.point
        if self.shown:
            self.viewer.layers.remove(self.layer)
        place = {key: placing[key] for key in ("affine", "units", "axis_labels")}
        style = {"colormap": colormap_of(look), "contrast_limits": self.limits(look), "opacity": look.opacity}
        self.viewer.add_image(data, name=LAYER_NAME, metadata=dict(USE), **place, **style)
        self.layer.colorbar.visible = True
        if first:
            place_camera(self.viewer)
        elif len(point) == self.viewer.dims.ndim:
            self.viewer.dims.point = point

    def hide_others(self) -> None:
        """Hide maps of other layers: two over each other would show what the threshold leaves out."""
        for layer in self.viewer.layers:
            if kind_of(layer) == "contribution" and layer is not self.layer:
                layer.visible = False

    def largest(self, sign: str) -> float:
        """Largest share of a sign, without its sign; 0 where there is none."""
        low, high = self.extremes
        return {"positive": max(high, 0.0), "negative": max(-low, 0.0), "both": max(high, -low, 0.0)}[sign]

    def limits(self, look: Look) -> tuple[float, float]:
        """Contrast limits: the threshold and the largest share, or both signs' largest."""
        largest = self.largest(look.sign) or 1.0  # without such shares any limits show nothing
        low = largest * clipped(look.fraction)
        return {"positive": (low, largest), "negative": (-largest, -low), "both": (-largest, largest)}[look.sign]

    def apply(self, look: Look) -> None:
        """Follow the controls; costs a new colormap at most."""
        if not self.shown:
            return
        wanted = colormap_of(look)
        if look.sign == "both" or self.layer.colormap.name != wanted.name:
            self.layer.colormap = wanted  # for both signs the same object with another band
        limits = self.limits(look)
        if tuple(self.layer.contrast_limits) != limits:
            self.layer.contrast_limits = limits
        if self.layer.opacity != look.opacity:
            self.layer.opacity = look.opacity


def clipped(fraction: float) -> float:
    """A threshold that neither colours voxels without a share nor hides the largest one."""
    return float(np.clip(fraction, LEAST, 0.999))


def colormap_of(look: Look) -> "napari.utils.Colormap":
    """The colormap of a look; always one of three objects, as napari keeps every colormap that a layer ever had."""
    if look.sign == "both":
        return both_signs(clipped(look.fraction))
    return _positive() if look.sign == "positive" else transparent_above()


@cache
def _positive() -> "napari.utils.Colormap":
    return transparent_below()


@cache
def transparent_above() -> "napari.utils.Colormap":
    """A cold colormap for negative shares: those above the upper contrast limit are transparent."""
    from napari.utils.colormaps import Colormap

    colors = [(0.75, 1, 1, 1), (0.2, 0.7, 1, 1), (0.1, 0.3, 0.9, 1), (0.1, 0.1, 0.4, 1)]
    return Colormap(colors, name="blue below threshold", high_color=(0, 0, 0, 0))


@cache
def _both_signs() -> "napari.utils.Colormap":
    from napari.utils.colormaps import Colormap

    clear = (0, 0, 0, 0)
    colors = [(0.75, 1, 1, 1), (0.1, 0.2, 0.7, 1), clear, clear, (0.7, 0.1, 0.05, 1), (1, 0.95, 0.5, 1)]
    controls = np.array([0, 0.45, 0.45, 0.55, 0.55, 1], dtype=np.float32)
    return Colormap(colors, name="blue and red beyond threshold", controls=controls)


def both_signs(fraction: float) -> "napari.utils.Colormap":
    """Blue for negative and red to yellow for positive shares, transparent between -fraction and +fraction.

    One object whose control points move: setting a new colormap for every threshold would fill napari's menus and
    memory.  Whoever shows it has to set it again, for the layer to draw.
    """
    colormap = _both_signs()
    controls = np.array(colormap.controls, dtype=np.float32)
    controls[list(BAND)] = (0.5 - fraction / 2,) * 2 + (0.5 + fraction / 2,) * 2
    if not np.array_equal(controls, colormap.controls):
        colormap.controls = controls
    return colormap
