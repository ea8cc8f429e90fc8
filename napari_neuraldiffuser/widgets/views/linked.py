"""Axial, coronal and sagittal views with one crosshair, linked to the viewer's sliders and to clicks on its canvas."""

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy import QtWidgets
from qtpy.compat import isalive
from qtpy.QtCore import QPoint, QRectF, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QHideEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QShowEvent, QWheelEvent

from napari_neuraldiffuser.widgets.files.view import PLANES, AnatomicalView, show_all_soon
from napari_neuraldiffuser.widgets.run.picture import qimage
from napari_neuraldiffuser.widgets.session.controls import side_by_side, stacked
from napari_neuraldiffuser.widgets.session.keys import unwrapped, window_of
from napari_neuraldiffuser.widgets.views import docked
from napari_neuraldiffuser.widgets.views.clicks import Clicks, weakly
from napari_neuraldiffuser.widgets.views.pictures import PictureStrip
from napari_neuraldiffuser.widgets.views.planes import Grid, box_of, drawn, grid_of, volumes

if TYPE_CHECKING:
    import napari

NAME = "Linked views"
CROSS, INK, BEHIND = QColor("#39ff14"), QColor("#ffffff"), QColor("#000000")
GAP = 14
"""Pixels around a slice: the letters stand in it."""
LETTERS = "SAR"
REDRAWN = {
    *("data", "set_data", "visible", "opacity", "colormap", "contrast_limits", "gamma", "blending", "contour"),
    *("affine", "scale", "translate", "rotate", "shear", "paint", "labels_update", "selected_label", "refresh"),
    "show_selected_label",
}
"""Events of a layer after which it looks different."""


class PlaneView(QtWidgets.QWidget):
    """One slice with the crosshair; a click or a drag moves it, the wheel goes through the slices."""

    moved = Signal(object)
    """dict: axis 0 (S), 1 (A) or 2 (R) to its new place in mm."""
    stepped = Signal(int, int)
    """Axis and by how many slices."""

    def __init__(self, plane: str) -> None:
        super().__init__()
        self.plane, self.mirrored = plane, False
        self.grid: Grid | None = None
        self.picture: np.ndarray | None = None
        self.place: tuple[float, ...] = (0.0, 0.0, 0.0)
        self.letters: dict[str, str] = {}
        self.setMinimumSize(90, 90)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setToolTip(f"{plane}: click or drag to move the crosshair, turn the wheel to go through the slices")

    def show_slice(self, grid: Grid, picture: np.ndarray, place: tuple[float, ...], view: AnatomicalView) -> None:
        """Show a slice (rows, columns, 3) as a viewer of this convention does."""
        up, across = LETTERS[grid.up], LETTERS[grid.across]
        self.mirrored, self.letters = view.mirrors(across), view.letters(up + across)
        self.grid, self.place = grid, place
        self.picture = picture[:, ::-1] if self.mirrored else picture
        self.update()

    def clear(self) -> None:
        """Show nothing."""
        self.grid = self.picture = None
        self.update()

    def frame(self) -> QRectF:
        """Where the slice is drawn: as large as fits, every mm alike."""
        height, width = self.picture.shape[:2]
        room = QRectF(self.rect()).adjusted(GAP, GAP, -GAP, -GAP)
        scale = max(min(room.width() / width, room.height() / height), 0.01)
        size = width * scale, height * scale
        return QRectF(room.center().x() - size[0] / 2, room.center().y() - size[1] / 2, *size)

    def pixel(self, place: tuple[float, ...]) -> tuple[float, float]:
        """Widget pixel (x, y) of a place (S, A, R)."""
        frame, grid = self.frame(), self.grid
        x, y = _fraction(place[grid.across], grid.columns, grid.step), _fraction(place[grid.up], grid.rows, -grid.step)
        return frame.left() + (1 - x if self.mirrored else x) * frame.width(), frame.top() + y * frame.height()

    def place_at(self, point: QPoint) -> dict[int, float]:
        """Places along the two axes of the slice at a widget pixel; empty outside it."""
        if self.grid is None or not self.frame().contains(point.x(), point.y()):
            return {}
        frame, grid = self.frame(), self.grid
        x, y = (point.x() - frame.left()) / frame.width(), (point.y() - frame.top()) / frame.height()
        x = 1 - x if self.mirrored else x
        return {grid.across: _at(x, grid.columns, grid.step), grid.up: _at(y, grid.rows, -grid.step)}

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw slice, crosshair and letters."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), BEHIND)
        if self.grid is None:
            return
        frame = self.frame()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(frame, qimage(self.picture))
        x, y = self.pixel(self.place)
        painter.setPen(QPen(CROSS, 1, Qt.PenStyle.DashLine))
        painter.drawLine(round(x), round(frame.top()), round(x), round(frame.bottom()))
        painter.drawLine(round(frame.left()), round(y), round(frame.right()), round(y))
        painter.setPen(INK)
        where = f"{self.plane}, {LETTERS[self.grid.fixed]} {self.place[self.grid.fixed]:.1f} mm"
        painter.drawText(3, self.height() - 3, where)
        for side, at in _LETTER_PLACES.items():
            painter.drawText(self.rect().adjusted(1, 1, -1, -1), at, self.letters.get(side, ""))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Move the crosshair."""
        if event.buttons() & Qt.MouseButton.LeftButton and (place := self.place_at(event.pos())):
            self.moved.emit(place)

    mouseMoveEvent = mousePressEvent

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Go through the slices."""
        if self.grid is not None and event.angleDelta().y():
            self.stepped.emit(self.grid.fixed, 1 if event.angleDelta().y() > 0 else -1)

    def sizeHint(self) -> QSize:
        """Room to see something."""
        return QSize(220, 220)


_LETTER_PLACES = {
    "left": Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter,
    "right": Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter,
    "up": Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop,
}
"""The fourth letter would stand on the line of text."""


def _fraction(place: float, centres: np.ndarray, step: float) -> float:
    """How far a place lies along an axis of pixel centres, 0 ... 1 from edge to edge; `step` from one to the next."""
    return (place - (centres[0] - step / 2)) / (step * len(centres))


def _at(fraction: float, centres: np.ndarray, step: float) -> float:
    return float(centres[0] - step / 2 + fraction * step * len(centres))


class LinkedViews(QtWidgets.QWidget):
    """The three planes through the place where the viewer's sliders stand."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        viewer = unwrapped(viewer)
        self._viewer = weakref.ref(viewer)
        self.views = {plane: PlaneView(plane) for plane in PLANES}
        self.empty = QtWidgets.QLabel("Open a volume: its three planes appear here.")
        stacked(self, self.empty, side_by_side(*self.views.values()))
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)
        self._later = QTimer(self, singleShot=True, interval=0, timeout=self.draw)
        docked.register(viewer, self)
        self.anatomical = AnatomicalView.of(viewer)
        self._follow(viewer)
        for view in self.views.values():
            view.moved.connect(self.go_to)
            view.stepped.connect(self.step)
        self._later.start()

    def _follow(self, viewer: "napari.Viewer") -> None:
        """Listen without being kept alive: napari holds the methods of its listeners weakly."""
        for emitter in (viewer.dims.events.point, viewer.dims.events.ndim, viewer.layers.events.reordered):
            emitter.connect(self._changed)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._changed)
        for layer in viewer.layers:
            layer.events.connect(self._layer_changed)
        self.anatomical.events.changed.connect(self._changed)
        self.clicks = Clicks(viewer, weakly(self._canvas_clicked))
        self.destroyed.connect(partial(_stop_listening, self.clicks))

    def _inserted(self, event: Any) -> None:
        event.value.events.connect(self._layer_changed)
        self._changed()

    def _layer_changed(self, event: Any) -> None:
        if event.type in REDRAWN:
            self._changed()

    def _changed(self, event: Any = None) -> None:
        if isalive(self) and self.isVisible():  # Qt's half may be gone before Python's
            self._later.start()

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what changed while nobody looked."""
        super().showEvent(event)
        self._later.start()

    def hideEvent(self, event: QHideEvent) -> None:
        """Draw no more."""
        super().hideEvent(event)
        self._later.stop()

    def draw(self) -> None:
        """Draw the three slices."""
        viewer = self._viewer()
        shown = volumes(viewer.layers) if viewer is not None else []
        self.empty.setVisible(not shown)
        if not shown:
            for view in self.views.values():
                view.clear()
            return
        box, place, extra = box_of(shown), tuple(viewer.dims.point[-3:]), tuple(viewer.dims.point[:-3])
        step = min(1.0, *(span.step for span in viewer.dims.range[-3:]))
        for plane, view in self.views.items():
            grid = grid_of(PLANES[plane], place, box, step)
            view.show_slice(grid, drawn(viewer.layers, grid, extra), place, self.anatomical)

    def go_to(self, places: dict[int, float]) -> None:
        """Move the crosshair along some axes; the viewer's sliders follow."""
        viewer = self._viewer()
        if viewer is not None and viewer.dims.ndim >= 3:
            extra = viewer.dims.ndim - 3
            viewer.dims.set_point([extra + axis for axis in places], list(places.values()))

    def step(self, axis: int, by: int) -> None:
        """Go to another slice."""
        viewer = self._viewer()
        if viewer is not None and viewer.dims.ndim >= 3:
            axis += viewer.dims.ndim - 3
            span = viewer.dims.range[axis]
            place = viewer.dims.point[axis] + by * span.step
            viewer.dims.set_point(axis, min(max(place, span.start), span.stop))

    def _canvas_clicked(self, place: np.ndarray | None) -> None:
        """A click on napari's own canvas moves the crosshair too."""
        if place is not None and isalive(self) and self.isVisible():
            self.go_to(dict(enumerate(place[::-1])))


def _stop_listening(clicks: Clicks, *_: Any) -> None:
    clicks.close()


def make_room(viewer: "napari.Viewer", views: LinkedViews) -> None:
    """Let three planes be seen: a third of the height, and more of the width than the pictures beside them.

    The canvas is smaller then, and fits the brain anew.
    """
    if not isalive(views):
        return
    window, dock = window_of(viewer), docked.dock_of(views)
    if window is None or dock is None:
        return
    window.resizeDocks([dock], [window.height() // 3], Qt.Orientation.Vertical)
    strip = docked.find(viewer, PictureStrip)
    if strip is not None and (beside := docked.dock_of(strip)) is not None:
        width = window.width()
        window.resizeDocks([beside, dock], [2 * width // 5, 3 * width // 5], Qt.Orientation.Horizontal)
    show_all_soon(viewer)


def toggle(viewer: "napari.Viewer") -> None:
    """Open the linked views, hide them, or show them again."""
    viewer = unwrapped(viewer)
    views = docked.find(viewer, LinkedViews)
    if views is None:
        made = docked.find_or_dock(viewer, LinkedViews, NAME, "bottom")
        QTimer.singleShot(0, partial(make_room, viewer, made))  # once the window has laid the dock out
    else:
        docked.set_shown(views, not views.isVisible())
