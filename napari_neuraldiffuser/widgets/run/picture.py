"""One picture: drawn sharp or smooth as its size asks, enlarged by a click, copied and saved by a right click."""

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QContextMenuEvent, QImage, QMouseEvent, QPixmap

from napari_neuraldiffuser.widgets.session.controls import add, button, side_by_side

OUT_OF_DATE = "OUT OF DATE"
STALE_TIP = "Made with other parameters, data or decoder than the controls show now. Run makes new images."
"""Mark of pictures that the controls would no longer give."""
SMOOTH_FROM = 256
"""Pixels from which on an image is a photograph to look at; a smaller one shows its pixels when it is enlarged."""
LARGE = 512
"""Side of an enlarged image, in the screen's logical pixels."""


def qimage(image: np.ndarray) -> QImage:
    """An image (H, W, 3) uint8 for Qt, with memory of its own."""
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image, dtype=np.uint8).tobytes()
    return QImage(pixels, width, height, 3 * width, QImage.Format.Format_RGB888).copy()


def pixmap(image: np.ndarray, side: int, ratio: float = 1.0) -> QPixmap:
    """An image (H, W, 3) about `side` logical pixels wide on a screen with `ratio` device pixels each.

    A small image keeps its pixels square and equal: it is enlarged by a whole number.
    """
    picture, wanted = qimage(image), max(1, round(side * ratio))
    longest = max(picture.width(), picture.height())
    if longest < SMOOTH_FROM and longest <= 1.3 * wanted:
        wanted = longest * max(1, round(wanted / longest))
        how = Qt.TransformationMode.FastTransformation
    else:
        how = Qt.TransformationMode.SmoothTransformation
    scaled = QPixmap.fromImage(picture.scaled(wanted, wanted, Qt.AspectRatioMode.KeepAspectRatio, how))
    scaled.setDevicePixelRatio(ratio)
    return scaled


def copy_image(image: np.ndarray) -> None:
    """Put an image on the clipboard, in its own size."""
    QtWidgets.QApplication.clipboard().setImage(qimage(image))


def save_image(parent: QtWidgets.QWidget, image: np.ndarray, name: str) -> str:
    """Ask where to, and write a PNG in its own size; returns the path, empty where nothing was written."""
    path, _ = QtWidgets.QFileDialog.getSaveFileName(parent, "Save image", f"{name}.png", "PNG (*.png)")
    if not path:
        return ""
    path = path if path.lower().endswith(".png") else f"{path}.png"
    if not qimage(image).save(path):
        from napari.utils.notifications import show_error

        show_error(f"image must be saved to a folder that can be written, got {path}. Choose another place.")
        return ""
    return path


class ImageCell(QtWidgets.QLabel):
    """One image; a click enlarges it, a right click copies or saves it.

    Parameters
    ----------
    title : str
        What it is, such as "guided, repeat 2".
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title, self.text_below, self.name = title, "", title
        self.image: np.ndarray | None = None
        self.side = 0
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip(f"{title}: click to enlarge, right click to copy or save")

    def show_image(self, image: np.ndarray, side: int, text: str = "", name: str = "") -> None:
        """Show an image (H, W, 3) uint8; `text` stands below the enlarged one, `name` is proposed for its file."""
        same = self.image is not None and image.shape == self.image.shape and np.may_share_memory(image, self.image)
        changed = not same or side != self.side
        self.image, self.side, self.text_below, self.name = image, side, text, name or self.title
        if changed:
            self._render()

    def _render(self) -> None:
        if self.image is not None:
            self.setPixmap(pixmap(self.image, self.side, self.devicePixelRatioF()))

    def event(self, event: QEvent) -> bool:
        """Draw the image again for a screen of another resolution."""
        if event.type() == getattr(QEvent.Type, "DevicePixelRatioChange", None):
            self._render()
        return super().event(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Enlarge the image at a click."""
        if event.button() == Qt.MouseButton.LeftButton and self.image is not None:
            self.enlarge()

    def enlarge(self) -> "Enlarged":
        """Open the image in a window of its own."""
        window = Enlarged(self)
        window.show()
        return window

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Open the menu at a right click."""
        if self.image is not None:
            self.menu().exec(event.globalPos())

    def menu(self) -> QtWidgets.QMenu:
        """The menu to copy and to save the image."""
        menu = QtWidgets.QMenu(self)
        menu.addAction("Copy image", lambda: copy_image(self.image))
        menu.addAction("Save image…", lambda: save_image(self, self.image, self.name))
        return menu


class Enlarged(QtWidgets.QDialog):
    """One image, large, with its scores."""

    def __init__(self, cell: ImageCell) -> None:
        super().__init__(cell.window())
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(cell.title)
        self.picture = QtWidgets.QLabel(alignment=Qt.AlignmentFlag.AlignCenter)
        self.picture.setPixmap(pixmap(cell.image, LARGE, self.devicePixelRatioF()))
        self.text = QtWidgets.QLabel("\n".join(line for line in (cell.title, cell.text_below) if line), wordWrap=True)
        image, name = cell.image, cell.name
        copy = button("Copy", "Copies the image in its own size", lambda: copy_image(image))
        tip = "Writes the image in its own size as PNG"
        save = button("Save…", tip, lambda: save_image(self, image, name))
        buttons = side_by_side(QtWidgets.QLabel(), copy, save, wide=0)
        add(QtWidgets.QVBoxLayout(self), self.picture, self.text, buttons)
