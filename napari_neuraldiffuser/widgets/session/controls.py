"""What forms are made of: controls generated from the params dataclasses, which alone have defaults, limits and help; a
group that folds, and a notice."""

import math
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from typing import Any, TypeAlias

from qtpy import QtWidgets
from qtpy.QtCore import Signal
from qtpy.QtGui import QIcon
from superqt import QCollapsible
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.params import GuidanceParams, Params
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.theme import ERROR, set_tone

Part: TypeAlias = QtWidgets.QWidget | QtWidgets.QLayout
Role = QtWidgets.QFormLayout.ItemRole
TIP_WIDTH = 80
"""Letters of a line of a tooltip."""


def side_by_side(*parts: Part, wide: int | None = None) -> QtWidgets.QHBoxLayout:
    """Parts beside each other.

    Parameters
    ----------
    *parts : QWidget or QLayout
    wide : int, optional
        Which part takes the room that is left; where it is the number of parts, that room stays empty.
    """
    layout = QtWidgets.QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    add(layout, *parts)
    if wide == len(parts):
        layout.addStretch(1)
    elif wide is not None:
        layout.setStretch(wide, 1)
    return layout


def stacked(parent: QtWidgets.QWidget | None, *parts: Part) -> QtWidgets.QVBoxLayout:
    """Parts below each other, as the layout of `parent` where there is one."""
    layout = QtWidgets.QVBoxLayout(parent) if parent is not None else QtWidgets.QVBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    add(layout, *parts)
    return layout


def form(parent: QtWidgets.QWidget | None, *rows: tuple[str, Part] | Part) -> QtWidgets.QFormLayout:
    """Rows of a label and a part, or of a part alone, as the layout of `parent` where there is one."""
    layout = QtWidgets.QFormLayout(parent) if parent is not None else QtWidgets.QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for one in rows:
        layout.addRow(*one) if isinstance(one, tuple) else layout.addRow(one)
    return layout


def tip(text: str) -> str:
    """A text for a tooltip: Qt breaks no line of a plain one."""
    return "\n".join(textwrap.fill(line, TIP_WIDTH) for line in text.splitlines())


def explain_labels(parent: QtWidgets.QWidget) -> None:
    """Give every label beside a control, that has no tooltip of its own, the one of its control."""
    for layout in parent.findChildren(QtWidgets.QLayout):
        parts = [item.widget() for item in map(layout.itemAt, range(layout.count())) if item is not None]
        if isinstance(layout, QtWidgets.QFormLayout):
            rows = range(layout.rowCount())
            pairs = [(_part(layout, row, Role.LabelRole), _part(layout, row, Role.FieldRole)) for row in rows]
        else:
            pairs = list(zip(parts, parts[1:], strict=False))
        for label, control in pairs:
            if isinstance(label, QtWidgets.QLabel) and label.text() and not label.toolTip() and control is not None:
                label.setToolTip(_tip_of(control))


def _part(layout: QtWidgets.QFormLayout, row: int, role: Any) -> QtWidgets.QWidget | None:
    """The widget in a row, or the first one of a layout there."""
    item = layout.itemAt(row, role)
    if item is None:
        return None
    if (widget := item.widget()) is not None:  # an empty list is false
        return widget
    inner = item.layout()
    return inner.itemAt(0).widget() if inner is not None and inner.count() else None


def _tip_of(control: QtWidgets.QWidget) -> str:
    """The tooltip of a control, or of the first of what it is made of."""
    inner = (child.toolTip() for child in control.findChildren(QtWidgets.QWidget))
    return control.toolTip() or next(filter(None, inner), "")


def button(text: str, tip: str, clicked: Callable[..., object]) -> QtWidgets.QPushButton:
    """A button that calls `clicked`."""
    made = QtWidgets.QPushButton(text, toolTip=tip)
    made.clicked.connect(clicked)
    return made


def add(layout: QtWidgets.QHBoxLayout | QtWidgets.QVBoxLayout, *parts: Part) -> None:
    """Add parts to a layout, one after the other."""
    for part in parts:
        layout.addWidget(part) if isinstance(part, QtWidgets.QWidget) else layout.addLayout(part)


Value = str | bool | int | float | tuple[str, ...]
"""What a control says."""
UNLIMITED = 10**9
"""What a spin box takes for the limit that a field does not have."""


class ParamControls(QtWidgets.QWidget):
    """One row for each of the chosen fields of a params class.

    Parameters
    ----------
    cls : type of Params
    names : tuple of str
        Fields in the order of the rows.  "layers" of GuidanceParams becomes a tick and a weight per layer, which give
        `layers` and `layer_weights`; of other tuples those with choices have a control.  A field with one choice alone
        has no row.
    labels : dict, optional
        Field name to the text of its row, where the name alone says too little.
    """

    changed = Signal()

    def __init__(self, cls: type[Params], names: tuple[str, ...], labels: dict[str, str] | None = None) -> None:
        super().__init__()
        self.cls = cls
        known = {f.name: f for f in fields(cls)}
        offered = [name for name in names if len(known[name].metadata["choices"] or ()) != 1]
        self.controls = {name: LayerControls() if name == "layers" else control(known[name]) for name in offered}
        texts = {name: _text_of(known[name]) for name in offered} | (labels or {})
        form(self, *((texts[name], widget) for name, widget in self.controls.items()))
        explain_labels(self)
        self._matter = {name: only for name in offered if (only := known[name].metadata["only"])}
        self._others = {other: known[other].default for other, _ in self._matter.values()}
        for widget in self.controls.values():
            on_change(widget, self.changed.emit)
        for other in {other for other, _ in self._matter.values()} & set(self.controls):
            on_change(self.controls[other], self._show_what_matters)
        self._show_what_matters()

    def _show_what_matters(self) -> None:
        """Rows of fields that another field's value makes meaningless are hidden; they keep their values."""
        rows: Any = self.layout()
        for name, (other, wanted) in self._matter.items():
            value = value_of(self.controls[other]) if other in self.controls else self._others[other]
            rows.setRowVisible(self.controls[name], value in wanted)

    def show_values(self, params: Params) -> None:
        """Show what `params` says; emits `changed` at most once, at the end."""
        before = self.values()
        self._others = {other: getattr(params, other) for other in self._others}
        self._show_what_matters()
        with signals_blocked(self):
            for name, widget in self.controls.items():
                if isinstance(widget, LayerControls) and isinstance(params, GuidanceParams):
                    widget.show_layers(params.layers, params.layer_weights)
                else:
                    set_value(widget, getattr(params, name))
        if self.values() != before:
            self.changed.emit()

    def values(self) -> dict[str, Any]:
        """Field name to what its control says."""
        values: dict[str, Any] = {}
        for name, widget in self.controls.items():
            values |= widget.values() if isinstance(widget, LayerControls) else {name: value_of(widget)}
        return values

    def params(self, base: Params) -> Params:
        """`base` with what the controls say; ParamError where that cannot be."""
        return base.but(**self.values())

    def problem(self, base: Params) -> str:
        """Why `params` would fail, or nothing."""
        return problem_of(self.params, base)


class StageControls(ParamControls):
    """Controls of one stage of the session's recipe, such as "contribution": they follow it and change it."""

    def __init__(self, session: Session, stage: str, names: tuple[str, ...], labels: dict[str, str]) -> None:
        super().__init__(type(getattr(session.recipe.settings, stage)), names, labels)
        self.session, self.stage = session, stage
        self._show_recipe(session.recipe)
        self.changed.connect(self._change)
        session.recipe_changed.connect(self._show_recipe)
        if not self.controls:
            self.hide()

    def _show_recipe(self, recipe: Recipe) -> None:
        self.show_values(getattr(recipe.settings, self.stage))

    def _change(self) -> None:
        base = getattr(self.session.recipe.settings, self.stage)
        if not self.problem(base):
            self.session.change_stage(self.stage, self.params(base))


class LayerControls(QtWidgets.QWidget):
    """A tick and a weight for each guidance layer: what is not ticked is not compared."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        known = {f.name: f for f in fields(GuidanceParams)}
        defaults = GuidanceParams()
        self.rows: dict[str, tuple[QtWidgets.QCheckBox, QtWidgets.QDoubleSpinBox]] = {}
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for i, layer in enumerate(known["layers"].metadata["choices"]):
            tick = QtWidgets.QCheckBox(layer, toolTip=tip(f"Compare layer {layer}. {known['layers'].metadata['help']}"))
            weight = QtWidgets.QDoubleSpinBox(decimals=2, singleStep=0.1, maximum=100.0)
            weight.setToolTip(tip(known["layer_weights"].metadata["help"]))
            self.rows[layer] = (tick, weight)
            grid.addWidget(tick, i // 2, 2 * (i % 2))
            grid.addWidget(weight, i // 2, 2 * (i % 2) + 1)
            tick.toggled.connect(weight.setEnabled)
            tick.toggled.connect(self.changed)
            weight.valueChanged.connect(self.changed)
        self.show_layers(defaults.layers, defaults.layer_weights)

    def show_layers(self, layers: tuple[str, ...], weights: tuple[float, ...]) -> None:
        """Tick `layers` with their weights; the others keep theirs."""
        for tick, _ in self.rows.values():
            tick.setChecked(False)
        for layer, value in zip(layers, weights, strict=True):
            tick, weight = self.rows[layer]
            tick.setChecked(True)
            weight.setValue(value)

    def values(self) -> dict[str, tuple]:
        """`layers` and `layer_weights` of the ticked ones."""
        ticked = {layer: weight.value() for layer, (tick, weight) in self.rows.items() if tick.isChecked()}
        return {"layers": tuple(ticked), "layer_weights": tuple(ticked.values())}


class Ticks(QtWidgets.QWidget):
    """A tick for each choice of which several may be taken."""

    changed = Signal()

    def __init__(self, choices: Iterable[str], told: str) -> None:
        super().__init__()
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        self.ticks = {choice: QtWidgets.QCheckBox(choice, toolTip=told) for choice in choices}
        for i, tick in enumerate(self.ticks.values()):
            grid.addWidget(tick, i // 2, i % 2)
            tick.toggled.connect(self.changed.emit)

    def show_taken(self, taken: tuple[str, ...]) -> None:
        """Tick what was taken."""
        for choice, tick in self.ticks.items():
            tick.setChecked(choice in taken)

    def taken(self) -> tuple[str, ...]:
        """The ticked choices, in their order."""
        return tuple(choice for choice, tick in self.ticks.items() if tick.isChecked())


def control(f: Field) -> QtWidgets.QWidget:
    """The control of one field."""
    meta = f.metadata
    if meta["choices"] and isinstance(f.default, tuple):
        widget: QtWidgets.QWidget = Ticks(meta["choices"], tip(meta["help"]))
    elif meta["choices"]:
        widget = QtWidgets.QComboBox()
        widget.addItems(list(meta["choices"]))
    elif isinstance(f.default, bool):
        widget = QtWidgets.QCheckBox()
    elif isinstance(f.default, (int, float)):
        widget = _number(f)
    else:
        widget = QtWidgets.QLineEdit()
    default: Any = f.default
    set_value(widget, default)
    widget.setToolTip(tip(meta["help"]))
    return widget


def _text_of(f: Field) -> str:
    """A field's name as the text of its row, without the kind that the rows beside it are of, too."""
    name = f.name
    for kind in (f.metadata["only"] or ("", ()))[1]:
        name = name.removeprefix(f"{kind}_")
    return name.replace("_", " ").capitalize()


def _decimals(default: float) -> int:
    """Three, or as many as a smaller default has, and one more: a learning rate must not be rounded to 0."""
    return max(3, 1 - math.floor(math.log10(abs(default)))) if default else 3


def _number(f: Field) -> QtWidgets.QSpinBox | QtWidgets.QDoubleSpinBox:
    default: Any = f.default
    whole = isinstance(default, int)
    widget = QtWidgets.QSpinBox() if whole else QtWidgets.QDoubleSpinBox(decimals=_decimals(default))
    low, high = f.metadata["low"], f.metadata["high"]
    widget.setRange(-UNLIMITED if low is None else low, UNLIMITED if high is None else high)
    if f.metadata["high"] == 1.0:
        widget.setSingleStep(0.05)
    elif high is None and isinstance(f.default, float):
        widget.setStepType(QtWidgets.QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
    widget.setKeyboardTracking(False)
    if f.metadata["unit"]:
        widget.setSuffix(f" {f.metadata['unit']}")
    return widget


def set_value(widget: QtWidgets.QWidget, value: Value) -> None:
    """Show `value` in a control: as its text, its choice, its tick or its number, whichever Qt says is the user's."""
    if isinstance(widget, Ticks) and isinstance(value, tuple):
        widget.show_taken(value)
    else:
        widget.metaObject().userProperty().write(widget, value)


def value_of(widget: QtWidgets.QWidget) -> Value:
    """What a control says."""
    return widget.taken() if isinstance(widget, Ticks) else widget.metaObject().userProperty().read(widget)


def problem_of(attempt: Callable[..., object], *args: Any) -> str:
    """The sentence of the UserError that a call ends with, or nothing."""
    try:
        attempt(*args)
    except UserError as error:
        return str(error)
    return ""


def on_change(widget: QtWidgets.QWidget, call: Callable[[], object]) -> None:
    """Have `call` called when the user or the program changes a control."""
    known = ("changed", "currentTextChanged", "toggled", "textChanged", "valueChanged")
    signal = next(getattr(widget, name) for name in known if hasattr(widget, name))
    signal.connect(lambda *_: call())


class Notice(QtWidgets.QLabel):
    """A text that takes no room while it is empty; an error unless its tone is another."""

    def __init__(self, tone: str = ERROR) -> None:
        super().__init__("", wordWrap=True, visible=False)
        set_tone(self, tone)

    def show_text(self, text: str) -> None:
        """Show another text, or none."""
        self.setText(text)
        self.setVisible(bool(text))


class Fold(QCollapsible):
    """A QCollapsible whose arrow has the colour of its text, and which opens at once."""

    def __init__(self, title: str, tip: str) -> None:
        super().__init__(title, expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.title = title
        self.setDuration(0)
        self.toggleButton().setToolTip(tip)
        self.toggled.connect(self._show_arrow)
        self._show_arrow(False)

    def _show_arrow(self, expanded: bool) -> None:
        self.setText(f"{'▾' if expanded else '▸'} {self.title}")
