"""Clicks on napari's canvas, whichever layer is active, as places in mm."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np

if TYPE_CHECKING:
    import napari


class Clicks:
    """Listens to clicks on the canvas.

    Parameters
    ----------
    viewer : napari.Viewer
    clicked : callable
        Gets the place (R, A, S) in mm, or None where the view cannot say one.
    """

    def __init__(self, viewer: "napari.Viewer", clicked: Callable[[np.ndarray | None], None]) -> None:
        self.viewer, self.clicked = viewer, clicked
        self.enabled = True
        viewer.mouse_drag_callbacks.append(self._on_press)

    def close(self) -> None:
        """Stop listening."""
        if self._on_press in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._on_press)

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """A press that is released where it was is a click; with a move between it is the camera's."""
        if not self.enabled or event.button != 1 or len(event.modifiers):
            return
        position, ndisplay = tuple(event.position), len(event.dims_displayed)
        yield
        while event.type == "mouse_move":
            if not np.allclose(event.position, position):
                return
            yield
        self.clicked(place_of(position) if ndisplay == 2 else None)


def weakly(method: Callable[..., Any]) -> Callable[..., None]:
    """Calls a method if its object lives: the viewer must not keep a panel alive."""
    held = WeakMethod(method)

    def call(*args: Any) -> None:
        if (alive := held()) is not None:
            alive(*args)

    return call


def place_of(position: Sequence[float]) -> np.ndarray | None:
    """(R, A, S) in mm of a world position ([volume,] S, A, R); None where only pictures are shown."""
    return np.array(position[-3:], dtype=float)[::-1] if len(position) >= 3 else None
