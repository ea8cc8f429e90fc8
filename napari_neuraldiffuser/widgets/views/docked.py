"""Widgets of which a viewer has one at most, in a dock of their own that the Plugins menu finds again."""

import weakref
from typing import TYPE_CHECKING, TypeVar

from qtpy.compat import isalive
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_neuraldiffuser.widgets.session.keys import unwrapped
from napari_neuraldiffuser.widgets.session.state import PLUGIN

if TYPE_CHECKING:
    import napari

Made = TypeVar("Made", bound=QWidget)
_MADE: "weakref.WeakValueDictionary[tuple[int, type[QWidget]], QWidget]" = weakref.WeakValueDictionary()


def register(viewer: "napari.Viewer", widget: QWidget) -> None:
    """Make `widget` the one that `find` gives for its class, however it was opened."""
    viewer = unwrapped(viewer)
    key = id(viewer), type(widget)
    _MADE[key] = widget
    weakref.finalize(viewer, _MADE.pop, key, None)


def find(viewer: "napari.Viewer", cls: type[Made]) -> Made | None:
    """A viewer's widget of a class; None where there is none, or the user closed it."""
    viewer = unwrapped(viewer)
    widget = _MADE.get((id(viewer), cls))
    return widget if isinstance(widget, cls) and is_open(viewer, widget) else None


def is_open(viewer: "napari.Viewer", widget: QWidget) -> bool:
    """Whether a widget still stands in the viewer's window; without a window it stands on its own."""
    return isalive(widget) and (not hasattr(viewer, "window") or widget.parent() is not None)


def find_or_dock(viewer: "napari.Viewer", cls: type[Made], name: str, area: str) -> Made:
    """A viewer's widget of a class, made and docked where there is none; who asks keeps it where there is no window.

    Parameters
    ----------
    viewer : napari.Viewer
    cls : type of QWidget
        Takes the viewer, and registers itself.
    name : str
        Its display name in the manifest, so that napari's menu finds the same dock.
    area : {"bottom", "right"}
    """
    widget = find(viewer, cls)
    if widget is None:
        widget = cls(viewer)
        if hasattr(viewer, "window"):
            from napari.plugins import menu_item_template

            title = menu_item_template.format(PLUGIN, name)
            viewer.window.add_dock_widget(widget, name=title, area=area, add_vertical_stretch=False)
    return widget


def set_shown(widget: QWidget, shown: bool) -> None:
    """Show or hide a widget with the dock around it."""
    (dock_of(widget) or widget).setVisible(shown)


def dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock around a widget."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
