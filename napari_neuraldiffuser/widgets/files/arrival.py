"""What was asked for arrives piece by piece: read in a thread, and added by the window's thread, one layer a turn."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.compat import isalive
from qtpy.QtCore import QEventLoop, QObject, QThread, QTimer

from napari_neuraldiffuser.widgets.files.layer_info import LayerData
from napari_neuraldiffuser.widgets.files.layers import add_layer
from napari_neuraldiffuser.widgets.files.view import all_ours, finish_arriving, prepare, steps_to_view
from napari_neuraldiffuser.widgets.session.keys import window_of
from napari_neuraldiffuser.widgets.session.worker import ThreadTask
from napari_neuraldiffuser.widgets.views.pictures import show_files

if TYPE_CHECKING:
    import napari

T = TypeVar("T")
EVERY = 10
"""Milliseconds between two pieces, in which the window draws itself and answers."""


@dataclass(frozen=True)
class Found:
    """What a folder has to show: layers, bottom first; remarks; and pictures, as `SubjectOutputs` has them."""

    layers: list[LayerData]
    notes: list[str]
    pictures: dict[int, dict[tuple[str, int], Path]] = field(default_factory=dict)


def arrive(find: Callable[[], Found]) -> list[Any]:
    """Show what is found in the viewer that asked for it; what napari itself is to add is returned.

    From a script everything is there when this returns.  From a window that answers its user, napari gets the first
    layer, and the rest follows.
    """
    from napari import current_viewer

    viewer = current_viewer()
    in_window = answers(viewer)
    found = in_background(partial(found_and_warm, find)) if in_window else find()
    if in_window and window_of(viewer) is None:
        return [(None,)]  # the user closed it meanwhile
    tell(found.notes)
    if not in_window:
        show_files(found.pictures)
        prepare(viewer)
        return found.layers or [(None,)]  # napari: read, but nothing to add
    finish_arriving(viewer)
    first, rest = found.layers[:1], found.layers[1:]
    steps: list[Callable[[], object]] = []
    if all_ours(viewer):
        steps += steps_to_view(viewer)
    steps += [partial(add_layer, viewer, layer) for layer in rest]
    steps.append(partial(show_files, found.pictures))
    if not viewer.layers:
        steps.append(viewer.reset_view)
    Arrival(window_of(viewer), steps, viewer)
    return first or [(None,)]


def found_and_warm(find: Callable[[], Found]) -> Found:
    """What is found; and what napari imports for its first layer, in the window's thread, is imported here already."""
    import pint
    import scipy.ndimage  # noqa: F401  of thumbnails

    pint.get_application_registry().Quantity(1.0, "mm")
    return find()


def tell(notes: Iterable[str]) -> None:
    """Show remarks as napari's notifications."""
    from napari.utils.notifications import show_info

    for note in notes:
        show_info(note)


def answers(viewer: "napari.Viewer | None") -> bool:
    """Whether there is a window whose events are handled now, or a script that goes on when everything is there."""
    return viewer is not None and window_of(viewer) is not None and QThread.currentThread().loopLevel() > 0


def in_background(work: Callable[[], T]) -> T:
    """Do work in a thread while the window answers; what it raises is raised here."""
    ends: list[Any] = []
    loop, task = QEventLoop(), ThreadTask(lambda progress: work())
    task.ended.connect(ends.append)
    task.ended.connect(loop.quit)
    task.start()
    loop.exec()
    if not ends:
        raise RuntimeError("The application ended while files were read.")
    if isinstance(ends[0], Exception):
        raise ends[0]
    return ends[0]


def arriving_in(viewer: "napari.Viewer") -> bool:
    """Whether layers of a folder that was opened are still to come."""
    window = window_of(viewer)
    return window is not None and any(one.under_way for one in window.findChildren(Arrival))


class Arrival(QObject):
    """Takes one step in every turn of the event loop, for as long as `parent` is there.

    It ends when the user removes all layers of `viewer`: nothing comes after that.
    """

    def __init__(
        self, parent: QObject, steps: Iterable[Callable[[], object]], viewer: "napari.Viewer | None" = None
    ) -> None:
        super().__init__(parent)
        self._steps = deque(steps)
        self._taking = False
        self._layers = viewer.layers if viewer is not None else None
        if self._layers is not None:
            self._layers.events.removed.connect(self._layer_removed)
        self._timer = QTimer(self, interval=EVERY, timeout=self._take)
        self._timer.start()

    def _take(self) -> None:
        if not self._steps:
            self.end()
            return
        self._taking = True
        try:
            self._steps.popleft()()
        finally:
            self._taking = False

    def _layer_removed(self, event: Any) -> None:
        if not self._layers and not self._taking and isalive(self):  # a step may replace the only layer
            self.end()

    @property
    def under_way(self) -> bool:
        """Whether there are steps to take yet."""
        return bool(self._steps)

    def end(self) -> None:
        """Take no further step, and leave the parent."""
        self._steps.clear()
        if isalive(self):
            self._timer.stop()
            self.deleteLater()
