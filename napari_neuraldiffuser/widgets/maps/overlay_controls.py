"""Controls of the overlay: sign, live threshold in either unit, opacity; and of the outlines."""

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QSlider, QSpinBox, QWidget
from superqt.utils import signals_blocked

from napari_neuraldiffuser.widgets.maps.overlay import Look, clipped
from napari_neuraldiffuser.widgets.maps.subject_maps import SIGNS
from napari_neuraldiffuser.widgets.session.layouts import form, side_by_side, stacked

SIGN_TEXT = {"positive": "positive shares", "negative": "negative shares", "both": "both signs"}
PERCENT, THOUSANDTHS = "% of the largest", "‰ share"
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
        self.unit.addItems([PERCENT, THOUSANDTHS])
        self.unit.setToolTip(
            "What stays when another target is chosen: the percentage of its largest share, or the share itself (‰)"
        )
        self.opacity = QSlider(Qt.Orientation.Horizontal, minimum=5, maximum=100)
        self.opacity.setValue(round(100 * Look().opacity))
        self.opacity.setToolTip("Opacity of the voxels above the threshold")
        self._lay_out()
        self._show_threshold()
        self.slider.valueChanged.connect(lambda value: self._set_fraction(value / STEPS))
        self.value.valueChanged.connect(self._value_typed)
        self.unit.currentTextChanged.connect(lambda _: self._show_threshold())
        for signal in (self.sign.currentIndexChanged, self.opacity.valueChanged):
            signal.connect(lambda _: self.changed.emit())

    def _lay_out(self) -> None:
        number = side_by_side(self.value, self.unit, wide=0)
        form(self, ("Show", self.sign), ("Threshold", self.slider), ("", number), ("Opacity", self.opacity))

    def look(self) -> Look:
        """What the controls say."""
        return Look(self.sign.currentData(), clipped(self.fraction), self.opacity.value() / 100)

    def set_largest(self, largest: float) -> None:
        """Take the largest share of another map: the threshold stays in the unit that is chosen, without a signal."""
        self.largest = largest
        if self.unit.currentText() == THOUSANDTHS and largest > 0:
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
            self._set_fraction(min(value / 1000 / self.largest, 1.0))

    def _show_threshold(self) -> None:
        percent = self.unit.currentText() == PERCENT
        with signals_blocked(self.slider), signals_blocked(self.value):
            self.slider.setValue(round(self.fraction * STEPS))
            self.value.setDecimals(1 if percent else 4)
            self.value.setRange(0, 100 if percent else max(1000 * self.largest, 0.0001))
            self.value.setSingleStep(1 if percent else max(10 * self.largest, 0.0001))
            self.value.setValue(100 * self.fraction if percent else 1000 * self.fraction * self.largest)

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
        self.family.setToolTip("Family of regions in the table and as outlines")
        self.outlined = QCheckBox("Outlines", checked=True)
        self.outlined.setToolTip("Draw the outlines of this family's regions over the map")
        self.width = QSpinBox(minimum=1, maximum=10)
        self.width.setMaximumWidth(80)
        self.width.setToolTip("Width of the outlines in voxels")
        stacked(self, side_by_side(self.family, self.outlined, self.width, wide=0))
        self.family.currentTextChanged.connect(lambda _: self.changed.emit())
        self.outlined.toggled.connect(lambda _: self.changed.emit())
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
        return {"outlined": self.outlined.isChecked(), "width": self.width.value()}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave; takes anything."""
        self.outlined.setChecked(bool(values.get("outlined", True)))
        self.width.setValue(int(number(values.get("width"), 1)))


def number(value: object, otherwise: float) -> float:
    """A finite number, whatever was stored."""
    if isinstance(value, (int, float)) and abs(value) < 1e6:  # false for NaN as well
        return float(value)
    return otherwise
