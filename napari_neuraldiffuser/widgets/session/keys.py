"""The plugin's keys: one table, from which tooltips name them, and their way into a window.

They are shortcuts of the whole window, so that they act while a number is typed too.  None of them writes a character
on any keyboard layout, moves the cursor of a line, or is one of napari's own (a test compares them).
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QLineEdit, QShortcut, QWidget

if TYPE_CHECKING:
    import napari
    from app_model.types import KeyBinding


@dataclass(frozen=True)
class Key:
    """One key and what it is for."""

    sequence: str
    """As `QKeySequence` reads it on every system."""
    action: str


KEYS = {
    "axial": Key("Ctrl+1", "axial slices"),
    "coronal": Key("Ctrl+2", "coronal slices"),
    "sagittal": Key("Ctrl+3", "sagittal slices"),
    "convention": Key("Ctrl+4", "neurological or radiological view"),
    "place": Key("Ctrl+J", "go to a place in mm"),
    "linked": Key("Ctrl+5", "linked axial, coronal and sagittal views"),
    "run": Key("Ctrl+Return", "run the page that is seen"),
    "cancel": Key("Shift+Esc", "cancel what runs"),
    "previous": Key("Ctrl+PgUp", "previous stimulus"),
    "next": Key("Ctrl+PgDown", "next stimulus"),
}


def with_key(tip: str, name: str) -> str:
    """A tooltip, and the key as it is written on this system."""
    text = QKeySequence(KEYS[name].sequence).toString(QKeySequence.SequenceFormat.NativeText)
    return f"{tip} ({text})"


Act = Callable[["napari.Viewer"], object]
"""What a key does in a viewer."""


class Shortcut(QShortcut):
    """One key of the table in one window; `act` may be replaced."""

    def __init__(self, name: str, window: QWidget, viewer: "napari.Viewer", act: Act) -> None:
        super().__init__(QKeySequence(KEYS[name].sequence), window)
        self.name, self.act, self._viewer = name, act, weakref.ref(viewer)
        self.setContext(Qt.ShortcutContext.WindowShortcut)
        self.setAutoRepeat(name in ("previous", "next"))
        self.activated.connect(self._press)

    def _press(self) -> None:
        finish_typing()
        if (viewer := self._viewer()) is not None:
            self.act(viewer)


def bind(viewer: "napari.Viewer", acts: Mapping[str, Act]) -> None:
    """Give keys of the table to these calls in a viewer's window; the newest call of a name is the one that acts.

    A key that the user gave to something else, in napari's preferences or by `viewer.bind_key`, stays the user's.  A
    viewer without a window has no keys.
    """
    window, viewer = window_of(viewer), unwrapped(viewer)
    if window is None:
        return
    there = {shortcut.name: shortcut for shortcut in window.findChildren(Shortcut)}
    users = _users_keys(viewer)
    for name, act in acts.items():
        if name in there:
            there[name].act = act
        elif binding(KEYS[name].sequence) not in users:
            Shortcut(name, window, viewer, act)


def window_of(viewer: "napari.Viewer") -> QWidget | None:
    """The main window of a viewer; None where it has none."""
    return getattr(getattr(unwrapped(viewer), "window", None), "_qt_window", None)


def unwrapped(viewer: "napari.Viewer") -> "napari.Viewer":
    """The viewer itself: plugins are handed a proxy."""
    return getattr(viewer, "__wrapped__", viewer)


def binding(sequence: str) -> "KeyBinding":
    """A key of the table as napari writes keys."""
    from app_model.backends.qt import qkeysequence2modelkeybinding

    return qkeysequence2modelkeybinding(QKeySequence(sequence))


def _users_keys(viewer: "napari.Viewer") -> list["KeyBinding"]:
    """What napari's preferences and the viewer's own key map hold."""
    from app_model.types import KeyBinding
    from napari.settings import get_settings

    stored = [key for keys in get_settings().shortcuts.shortcuts.values() for key in keys]
    own = [key for key in viewer.keymap if key is not ...]  # ... stands for every other key
    return [KeyBinding.from_str(str(key)) for key in (*stored, *own)]


def finish_typing() -> None:
    """Have what is being typed taken, as leaving its line would: a key that acts leaves the line as it is."""
    widget: QObject | None = QApplication.focusWidget()
    if isinstance(widget, QComboBox):
        widget = widget.lineEdit()
    if isinstance(widget, QAbstractSpinBox):
        widget.interpretText()
    elif isinstance(widget, QLineEdit):
        widget.editingFinished.emit()
