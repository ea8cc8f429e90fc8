"""Colours of texts, of the focus and of curves: napari's theme's own, made light or dark enough to be read on it."""

import colorsys
from functools import cache
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_neuraldiffuser.core.base.colours import Rgb, contrast, luminance

if TYPE_CHECKING:
    import napari

ERROR, WARNING, FAINT, ACCENT = "error", "warning", "faint", "accent"
LEAST_CONTRAST = 4.5
"""Of text on its background, as the Web Content Accessibility Guidelines (level AA) have it."""
PROPERTY = "neuraldiffuser_theme"
STEPS = 100
FOCUSED = (
    *("QPushButton", "QToolButton", "QComboBox", "QLineEdit", "QAbstractSpinBox", "QCheckBox", "QRadioButton"),
    *("QAbstractItemView", "QSlider", "QTabBar::tab:selected"),
)


@cache
def colours(theme: str) -> dict[str, str]:
    """Tone to colour such as "#ff8a80", for one of napari's themes."""
    from napari.utils.theme import get_theme

    own = get_theme(theme)
    behind = [_rgb(colour) for colour in (own.background, own.foreground, own.primary)]
    # a faint text is the theme's own, half way to its background
    red, green, blue = ((a + b) / 2 for a, b in zip(_rgb(own.text), behind[0], strict=True))
    wanted = {ERROR: _rgb(own.error), WARNING: _rgb(own.warning), FAINT: (red, green, blue), ACCENT: _rgb(own.current)}
    return {tone: QColor.fromRgbF(*readable(colour, behind)).name() for tone, colour in wanted.items()}


def _rgb(colour: Any) -> Rgb:
    red, green, blue = (channel / 255 for channel in colour.as_rgb_tuple()[:3])
    return red, green, blue


def readable(colour: Rgb, behind: list[Rgb]) -> Rgb:
    """The colour of the same hue whose lightness is next to `colour`'s and can be read on every background."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*colour)
    end = 1.0 if max(map(luminance, behind)) < 0.5 else 0.0
    tries = (colorsys.hls_to_rgb(hue, lightness + (end - lightness) * k / STEPS, saturation) for k in range(STEPS + 1))
    return next((one for one in tries if min(contrast(one, other) for other in behind) >= LEAST_CONTRAST), (end,) * 3)


@cache
def style(theme: str) -> str:
    """Style sheet of a panel: texts by their tone, and a frame around what has the focus."""
    told = colours(theme)
    rules = [f'QLabel[tone="{tone}"] {{ color: {colour}; }}' for tone, colour in told.items()]
    focused = ", ".join(f"{kind}:focus" for kind in FOCUSED)
    # in the dark theme an empty box is otherwise hardly seen
    boxes = f"QTreeView::indicator:unchecked {{ border: 1px solid {told[FAINT]}; }}"
    return "\n".join([*rules, f"{focused} {{ border: 1px solid {told[ACCENT]}; }}", boxes])


class Follower(QObject):
    """Styles a widget and what is in it for the viewer's theme, now and whenever that changes.

    Parameters
    ----------
    widget : QWidget
        Whose end is the end of this; napari's event holds its listeners weakly.
    viewer : napari.Viewer
    """

    def __init__(self, widget: QWidget, viewer: "napari.viewer.Viewer") -> None:
        super().__init__(widget)
        viewer.events.theme.connect(self._changed)
        self._show(viewer.theme)

    def _changed(self, event: Any) -> None:
        if isalive(self):
            self._show(event.value)

    def _show(self, theme: str) -> None:
        widget = self.parent()
        widget.setProperty(PROPERTY, theme)
        widget.setStyleSheet(style(theme))


def set_tone(widget: QWidget, tone: str) -> None:
    """Say what a text is: one of the tones, or nothing for plain text."""
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def colour_of(widget: QWidget, tone: str) -> QColor:
    """A tone in the theme of the panel that a widget is in, for what is painted."""
    parent: QWidget | None = widget
    while parent is not None and not parent.property(PROPERTY):
        parent = parent.parentWidget()
    return QColor(colours(parent.property(PROPERTY) if parent is not None else "dark")[tone])
