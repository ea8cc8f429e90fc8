"""Texts can be read in every theme of napari's."""

import pytest
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel, QLineEdit, QWidget

from napari_neuraldiffuser.widgets.pages.dock import NeuralDiffuser
from napari_neuraldiffuser.widgets.session.theme import LEAST_CONTRAST, colour_of, colours, contrast, readable

THEMES = ("dark", "light")


def rgb(colour):
    return tuple(int(colour.lstrip("#")[k : k + 2], 16) / 255 for k in (0, 2, 4))


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#767676", "#ffffff", 4.54),
        ("#ff0000", "#ffffff", 4.0),
        ("#123456", "#123456", 1),
    ],
)
def test_contrast_is_that_of_the_guidelines(one, other, ratio):
    """Against ratios that the guidelines' authors publish."""
    assert contrast(rgb(one), rgb(other)) == pytest.approx(ratio, abs=0.005)
    assert contrast(rgb(other), rgb(one)) == contrast(rgb(one), rgb(other))


@pytest.mark.parametrize("theme", THEMES)
def test_tones_can_be_read(theme):
    from napari.utils.theme import get_theme

    own = get_theme(theme)
    behind = [tuple(c / 255 for c in colour.as_rgb_tuple()[:3]) for colour in (own.background, own.foreground)]
    for tone, colour in colours(theme).items():
        assert min(contrast(rgb(colour), other) for other in behind) >= 4.5, tone
    assert len(set(colours(theme).values())) == 4


def test_a_colour_that_can_be_read_stays():
    assert readable(rgb("#ffffff"), [rgb("#202020")]) == pytest.approx(rgb("#ffffff"), abs=1e-6)
    assert contrast(readable(rgb("#900010"), [rgb("#202020")]), rgb("#202020")) >= LEAST_CONTRAST


@pytest.mark.window
def test_every_text_of_the_panels_can_be_read(viewer, session):
    dock = NeuralDiffuser(viewer)
    viewer.window.add_dock_widget(dock)
    for panel in dock.panels.values():
        panel.hint.show_text("It cannot run.")
        panel.fail(ValueError("wrong"))
    for theme in THEMES:
        viewer.theme = theme
        read = {describe(widget): ratio(widget) for widget in texts(dock)}
        assert len(read) > 40, read
        assert {what: one for what, one in read.items() if one < 4.5} == {}, theme
        error = dock.panels["Data"].message
        assert error.palette().color(QPalette.ColorRole.WindowText) == colour_of(error, "error")


def texts(dock):
    """Whatever shows a text, but what is greyed because it cannot be used."""
    return [
        w for kind in (QLabel, QAbstractButton, QComboBox, QLineEdit) for w in dock.findChildren(kind) if w.isEnabled()
    ]


def describe(widget):
    return f"{type(widget).__name__} {getattr(widget, 'text', widget.objectName)()!r} {id(widget)}"


def ratio(widget: QWidget) -> float:
    widget.ensurePolished()
    text = widget.palette().color(widget.foregroundRole())
    behind = widget
    while behind.palette().color(behind.backgroundRole()).alpha() < 255:
        behind = behind.parentWidget()
        behind.ensurePolished()
    return contrast(text.getRgbF()[:3], behind.palette().color(behind.backgroundRole()).getRgbF()[:3])
