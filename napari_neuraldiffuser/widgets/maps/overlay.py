"""The thresholded overlay of contribution maps: one Image layer, transparent where a share is below the threshold."""

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QSizePolicy, QSlider, QSpinBox, QWidget
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.outputs.report.slices import NEGATIVE, POSITIVE
from napari_neuraldiffuser.widgets.files.layer_info import OWN, kind_of, own_layer
from napari_neuraldiffuser.widgets.files.layers import rgba, transparent_below
from napari_neuraldiffuser.widgets.files.view import AnatomicalView
from napari_neuraldiffuser.widgets.maps.subject_maps import SIGNS, Volume
from napari_neuraldiffuser.widgets.session.controls import form, side_by_side, stacked

if TYPE_CHECKING:
    import napari

LAYER_NAME = "contribution"
TITLE = "share_title"
RENDERING = {"positive": "mip", "negative": "minip", "both": "translucent"}
"""In 3D: the largest and the lowest share of a line of sight; the nearest that is not transparent."""
USE = {OWN: "overlay"}
LEAST = 0.005
"""Lowest threshold, as a fraction of the largest share: below it voxels without any share would be coloured."""


@dataclass(frozen=True)
class Look:
    """How the overlay is shown."""

    sign: str = "positive"
    """One of "positive", "negative" and "both"."""
    fraction: float = 0.1
    """Threshold as a fraction of the largest share of that sign."""
    opacity: float = 0.8


class Overlay:
    """The layer "contribution" of a viewer, made when first needed and reused from then on."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        self.viewer = viewer
        self.extremes = (0.0, 0.0)
        self.replacing = False
        """Whether the layer is being replaced by one of another shape: it is not gone then."""

    @property
    def layer(self) -> "napari.layers.Layer | None":
        """The layer, whoever made it; None where it is not there: the user may have removed it."""
        return own_layer(self.viewer, USE[OWN])

    @property
    def shown(self) -> bool:
        """Whether the layer is there."""
        return self.layer is not None

    @staticmethod
    def made(layer: "napari.layers.Layer") -> bool:
        """Whether this is, or was, such a layer."""
        return layer.metadata.get(OWN) == USE[OWN]

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
            self.layer.data = data
            if not np.array_equal(self.layer.affine.affine_matrix, volume.placing["affine"]):
                self.layer.affine = volume.placing["affine"]
        else:
            self._make_layer(data, volume.placing, look)
        self.layer.metadata = {**metadata, **USE}
        of = [target] if (target := metadata.get("target")) else []
        title_bar(self.viewer, "\n".join([*of, str(metadata.get("unit", SHARE))]))
        self.apply(look)

    def _make_layer(self, data: np.ndarray, placing: dict[str, Any], look: Look) -> None:
        first = not self.shown
        point = self.viewer.dims.point
        if self.shown:
            self.replacing = True
            self.viewer.layers.remove(self.layer)
        place = {key: placing[key] for key in ("affine", "units", "axis_labels")}
        style = {"colormap": colormap_of(look), "contrast_limits": self.limits(look), "opacity": look.opacity}
        self.viewer.add_image(data, name=LAYER_NAME, metadata=dict(USE), **place, **style)
        self.replacing = False
        self.layer.colorbar.visible = True
        self.layer.events.visible.connect(partial(_follow_title, self.viewer))
        if first:
            AnatomicalView.of(self.viewer)
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
        self.layer.metadata["look"] = look
        if self.layer.rendering != RENDERING[look.sign]:
            self.layer.rendering = RENDERING[look.sign]
        limits = self.limits(look)
        if tuple(self.layer.contrast_limits) != limits:
            self.layer.contrast_limits = limits
        if self.layer.opacity != look.opacity:
            self.layer.opacity = look.opacity


def open_title(viewer: "napari.Viewer") -> None:
    """Have napari make what draws the title, which it does when that is first seen; there is nothing in it yet."""
    from napari.components.overlays import TextOverlay

    if TITLE not in viewer.canvas.overlays:
        viewer.canvas.overlays[TITLE] = TextOverlay(position="top_right", font_size=8)
        viewer.canvas.overlays[TITLE].visible = True
        viewer.layers.events.removed.connect(partial(_follow_title, viewer))


def title_bar(viewer: "napari.Viewer", text: str) -> None:
    """Write at the colour bar what it measures."""
    open_title(viewer)
    viewer.canvas.overlays[TITLE].text = text
    _follow_title(viewer)


def _follow_title(viewer: "napari.Viewer", event: Any = None) -> None:
    """Show the title with its map alone."""
    layer = own_layer(viewer, USE[OWN])
    viewer.canvas.overlays[TITLE].visible = layer is not None and layer.visible


def clipped(fraction: float) -> float:
    """A threshold that neither colours voxels without a share nor hides the largest one."""
    return float(np.clip(fraction, LEAST, 0.999))


def colormap_of(look: Look) -> "napari.utils.Colormap":
    """The colormap of a look; always one of three objects, as napari keeps every colormap that a layer ever had."""
    if look.sign == "both":
        return both_signs(clipped(look.fraction))
    return _positive() if look.sign == "positive" else transparent_above()


_positive = cache(transparent_below)


@cache
def transparent_above() -> "napari.utils.Colormap":
    """A cold colormap for negative shares: those above the upper contrast limit are transparent."""
    from napari.utils.colormaps import Colormap

    return Colormap(rgba(NEGATIVE), name="blue below threshold", high_color=(0, 0, 0, 0))


def both_controls(fraction: float) -> list[float]:
    """Where the colours of both signs stand, 0 ... 1: a clear band of this half width in the middle."""
    low, high = 0.5 - fraction / 2, 0.5 + fraction / 2
    return [*np.linspace(0, low, len(NEGATIVE)), low, high, *np.linspace(high, 1, len(POSITIVE))]


@cache
def _both_signs() -> "napari.utils.Colormap":
    from napari.utils.colormaps import Colormap

    clear = (0, 0, 0, 0)
    colors = [*rgba(NEGATIVE), clear, clear, *rgba(POSITIVE)]
    controls = np.array(both_controls(0.1), dtype=np.float32)
    return Colormap(colors, name="blue and red beyond threshold", controls=controls)


def both_signs(fraction: float) -> "napari.utils.Colormap":
    """Blue for negative and red to yellow for positive shares, transparent between -fraction and +fraction.

    One object whose control points move: setting a new colormap for every threshold would fill napari's menus and
    memory.  Whoever shows it has to set it again, for the layer to draw.
    """
    colormap = _both_signs()
    controls = np.array(colormap.controls, dtype=np.float32)
    controls[:] = both_controls(fraction)
    if not np.array_equal(controls, colormap.controls):
        colormap.controls = controls
    return colormap


SIGN_TEXT = {"positive": "positive shares", "negative": "negative shares", "both": "both signs"}
PERCENT, SHARE = "% of the largest", "share"
STEPS = 1000
ALL = "all families"


class LookControls(QWidget):
    """What `Look` holds; `changed` with every movement of a slider."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0.0
        self.fraction, self.share = Look().fraction, 0.0
        self.sign = QComboBox()
        for key in SIGNS:
            self.sign.addItem(SIGN_TEXT[key], key)
        self.sign.setToolTip(
            "Negative shares are real: such a voxel cancels what others add to the prediction.\n"
            "Both signs: blue takes away, red to yellow adds."
        )
        self.slider = QSlider(Qt.Orientation.Horizontal, maximum=STEPS)
        self.slider.setToolTip("Voxels whose share is closer to 0 than this are transparent")
        self.value = QDoubleSpinBox(keyboardTracking=False, toolTip="The same threshold as a number")
        self.unit = QComboBox()
        self.unit.addItems([PERCENT, SHARE])
        tip = "What stays when another target is chosen: the percentage of its largest share, or the share itself"
        self.unit.setToolTip(tip)
        self.opacity = QSlider(Qt.Orientation.Horizontal, minimum=5, maximum=100)
        self.opacity.setValue(round(100 * Look().opacity))
        self.opacity.setToolTip("Opacity of the voxels above the threshold")
        number = side_by_side(self.value, self.unit, wide=0)
        form(self, ("Show", self.sign), ("Threshold", self.slider), ("", number), ("Opacity", self.opacity))
        self._show_threshold()
        self.slider.valueChanged.connect(lambda value: self._set_fraction(value / STEPS))
        self.value.valueChanged.connect(self._value_typed)
        self.unit.currentTextChanged.connect(lambda _: self._show_threshold())
        for signal in (self.sign.currentIndexChanged, self.opacity.valueChanged):
            signal.connect(lambda _: self.changed.emit())

    def look(self) -> Look:
        """What the controls say."""
        return Look(self.sign.currentData(), clipped(self.fraction), self.opacity.value() / 100)

    def set_largest(self, largest: float) -> None:
        """Take the largest share of another map: the threshold stays in the unit that is chosen, without a signal."""
        self.largest = largest
        if self.unit.currentText() == SHARE and largest > 0:
            self.fraction = min(self.share / largest, 1.0)
        else:
            self.share = self.fraction * largest
        self._show_threshold()

    def _set_fraction(self, fraction: float) -> None:
        self.fraction, self.share = fraction, fraction * self.largest
        self._show_threshold()
        self.changed.emit()

    def _value_typed(self, value: float) -> None:
        if self.unit.currentText() == PERCENT:
            self._set_fraction(value / 100)
        elif self.largest > 0:
            self._set_fraction(min(value / self.largest, 1.0))

    def _show_threshold(self) -> None:
        percent = self.unit.currentText() == PERCENT
        with signals_blocked(self.slider), signals_blocked(self.value):
            self.slider.setValue(round(self.fraction * STEPS))
            self.value.setDecimals(1 if percent else 6)
            self.value.setRange(0, 100 if percent else max(self.largest, 1e-6))
            self.value.setSingleStep(1 if percent else max(self.largest / 100, 1e-6))
            self.value.setValue(100 * self.fraction if percent else self.fraction * self.largest)

    def state(self) -> dict[str, Any]:
        """Give JSON values that `restore` takes."""
        look = self.look()
        return {"sign": look.sign, "fraction": look.fraction, "opacity": look.opacity, "unit": self.unit.currentText()}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave; takes anything."""
        look = Look()
        self.sign.setCurrentIndex(max(self.sign.findData(values.get("sign", look.sign)), 0))
        self.unit.setCurrentText(str(values.get("unit", PERCENT)))
        self.opacity.setValue(round(100 * number(values.get("opacity"), look.opacity)))
        self._set_fraction(clipped(number(values.get("fraction"), look.fraction)))


class RegionControls(QWidget):
    """Which family of regions the table and the outlines show."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.family = QComboBox()
        self.family.addItem(ALL)
        self.family.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.family.setToolTip("Family of regions in the table and as outlines")
        self.outlined = QCheckBox("Outlines", checked=True)
        self.named = QCheckBox("Names", checked=True, toolTip="Write the regions' names on the map")
        self.outlined.setToolTip("Draw the outlines of this family's regions over the map")
        self.width = QSpinBox(minimum=1, maximum=10, maximumWidth=80, toolTip="Width of the outlines in voxels")
        stacked(self, side_by_side(self.family, self.outlined, self.width, self.named, wide=0))
        self.family.currentTextChanged.connect(lambda _: self.changed.emit())
        for tick in (self.outlined, self.named):
            tick.toggled.connect(lambda _: self.changed.emit())
        self.width.valueChanged.connect(lambda _: self.changed.emit())

    @property
    def chosen(self) -> str:
        """Name of the family, or nothing for all of them."""
        return "" if self.family.currentText() == ALL else self.family.currentText()

    def set_families(self, names: list[str]) -> None:
        """Offer other families; the chosen one stays where it can be, else the first, without a signal."""
        former, known = self.family.currentText(), self.family.count() > 1
        with signals_blocked(self.family):
            self.family.clear()
            self.family.addItems([*names, ALL])
            self.family.setCurrentIndex(max(self.family.findText(former), 0) if known else 0)

    def state(self) -> dict[str, Any]:
        """Give JSON values that `restore` takes."""
        ticks = {"outlined": self.outlined.isChecked(), "named": self.named.isChecked()}
        return {**ticks, "width": self.width.value()}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave; takes anything."""
        self.outlined.setChecked(bool(values.get("outlined", True)))
        self.named.setChecked(bool(values.get("named", True)))
        self.width.setValue(int(number(values.get("width"), 1)))


def number(value: object, otherwise: float) -> float:
    """A finite number, whatever was stored."""
    if isinstance(value, (int, float)) and abs(value) < 1e6:  # false for NaN as well
        return float(value)
    return otherwise
