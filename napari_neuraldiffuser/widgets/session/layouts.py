"""How widgets stand beside and below each other: all panels use these few shapes, without a margin of their own."""

from collections.abc import Callable
from typing import TypeAlias

from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLayout, QPushButton, QVBoxLayout, QWidget

Part: TypeAlias = QWidget | QLayout


def side_by_side(*parts: Part, wide: int | None = None) -> QHBoxLayout:
    """Parts beside each other.

    Parameters
    ----------
    *parts : QWidget or QLayout
    wide : int, optional
        Which part takes the room that is left; where it is the number of parts, that room stays empty.
    """
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    _add(layout, parts)
    if wide == len(parts):
        layout.addStretch(1)
    elif wide is not None:
        layout.setStretch(wide, 1)
    return layout


def stacked(parent: QWidget | None, *parts: Part) -> QVBoxLayout:
    """Parts below each other, as the layout of `parent` where there is one."""
    layout = QVBoxLayout(parent) if parent is not None else QVBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    _add(layout, parts)
    return layout


def form(parent: QWidget | None, *rows: tuple[str, Part] | Part) -> QFormLayout:
    """Rows of a label and a part, or of a part alone, as the layout of `parent` where there is one."""
    layout = QFormLayout(parent) if parent is not None else QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for one in rows:
        layout.addRow(*one) if isinstance(one, tuple) else layout.addRow(one)
    return layout


def button(text: str, tip: str, clicked: Callable[..., object]) -> QPushButton:
    """A button that calls `clicked`."""
    made = QPushButton(text, toolTip=tip)
    made.clicked.connect(clicked)
    return made


def _add(layout: QHBoxLayout | QVBoxLayout, parts: tuple[Part, ...]) -> None:
    for part in parts:
        layout.addWidget(part) if isinstance(part, QWidget) else layout.addLayout(part)
