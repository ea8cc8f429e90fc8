"""Qt controls generated from the params dataclasses: default, limits, choices and help stand there only."""

from dataclasses import Field, fields
from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLineEdit, QSpinBox, QWidget

from napari_neuraldiffuser.core.params import Params

UNLIMITED = 10**9
"""What a spin box takes for the limit that a field does not have."""


class ParamControls(QWidget):
    """One row for each of the chosen fields of a params class.

    Parameters
    ----------
    cls : type of Params
    names : tuple of str
        Fields of plain type (no tuples), in the order of the rows.
    """

    def __init__(self, cls: type[Params], names: tuple[str, ...]) -> None:
        super().__init__()
        known = {f.name: f for f in fields(cls)}
        self.controls = {name: control(known[name]) for name in names}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, widget in self.controls.items():
            layout.addRow(name.replace("_", " ").capitalize(), widget)

    def show_values(self, params: Params) -> None:
        """Show what `params` says."""
        for name, widget in self.controls.items():
            set_value(widget, getattr(params, name))

    def values(self) -> dict[str, Any]:
        """Field name to what its control says."""
        return {name: value_of(widget) for name, widget in self.controls.items()}


def control(f: Field) -> QWidget:
    """The control of one field."""
    meta = f.metadata
    if meta["choices"]:
        widget: QWidget = QComboBox()
        widget.addItems(meta["choices"])
    elif isinstance(f.default, bool):
        widget = QCheckBox()
    elif isinstance(f.default, (int, float)):
        widget = _number(f)
    else:
        widget = QLineEdit()
    set_value(widget, f.default)
    widget.setToolTip(meta["help"])
    return widget


def _number(f: Field) -> QSpinBox | QDoubleSpinBox:
    widget = QSpinBox() if isinstance(f.default, int) else QDoubleSpinBox(decimals=3)
    low, high = f.metadata["low"], f.metadata["high"]
    widget.setRange(-UNLIMITED if low is None else low, UNLIMITED if high is None else high)
    if f.metadata["high"] == 1.0:
        widget.setSingleStep(0.05)
    if f.metadata["unit"]:
        widget.setSuffix(f" {f.metadata['unit']}")
    return widget


def set_value(widget: QWidget, value: Any) -> None:
    """Show `value` in a control."""
    if isinstance(widget, QComboBox):
        widget.setCurrentText(value)
    elif isinstance(widget, QCheckBox):
        widget.setChecked(value)
    elif isinstance(widget, QLineEdit):
        widget.setText(value)
    else:
        widget.setValue(value)


def value_of(widget: QWidget) -> Any:
    """What a control says."""
    if isinstance(widget, QComboBox):
        return widget.currentText()
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    return widget.text() if isinstance(widget, QLineEdit) else widget.value()
