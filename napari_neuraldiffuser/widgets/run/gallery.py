"""Seen image, start and reconstructions of one stimulus, drawn again with every preview."""

from collections.abc import Sequence

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QContextMenuEvent, QImage, QMouseEvent, QPixmap
from superqt import QFlowLayout

from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.widgets.run.record import Run
from napari_neuraldiffuser.widgets.run.score_table import mean_text, score_text
from napari_neuraldiffuser.widgets.session.controls import add, button, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.theme import FAINT, set_tone

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


SIDE = 104
SIDES = (64, 320)
MANY = 20
"""Repeats that are shown of one arm; more are in the run's folder."""


class ImageRow(QtWidgets.QWidget):
    """A heading, and images that go on in the next line where the panel is narrow."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.heading = QtWidgets.QLabel(name, wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.cells: list[ImageCell] = []
        self.flow = QFlowLayout()
        self.flow.setContentsMargins(0, 0, 0, 0)
        self.flow.setHorizontalSpacing(2)
        self.flow.setVerticalSpacing(2)
        stacked(self, self.heading, self.flow).setSpacing(2)

    def show_images(self, images: Sequence[np.ndarray], titles: Sequence[str], texts: Sequence[str], side: int) -> None:
        """As many cells as images, each updated in place."""
        while len(self.cells) < len(images):
            self.cells.append(ImageCell(titles[len(self.cells)]))
            self.flow.addWidget(self.cells[-1])
        for k, cell in enumerate(self.cells):
            cell.setVisible(k < len(images))
            if k < len(images):
                cell.title = titles[k]
                cell.show_image(images[k], side, texts[k])


class Gallery(QtWidgets.QWidget):
    """Rows of images of one stimulus of one run."""

    turned = Signal(int)
    """The user wants to see another stimulus of the run."""
    resized = Signal(int)
    """The user wants other cells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, ImageRow] = {}
        self.run: Run | None = None
        self.stimulus = 0
        self.empty = QtWidgets.QLabel("", wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter)
        set_tone(self.empty, FAINT)
        self.empty.setStyleSheet("padding: 24px;")
        layout = stacked(self, self._build_top(), self.empty)
        for name in ("given", *ARMS, *(f"before, {arm}" for arm in ARMS)):
            self.rows[name] = images = ImageRow(name)
            images.setVisible(False)
            layout.addWidget(images)

    def _build_top(self) -> QtWidgets.QHBoxLayout:
        self.position = QtWidgets.QLabel("")
        self.back, self.on = QtWidgets.QPushButton("◀"), QtWidgets.QPushButton("▶")
        for arrow, by, what in ((self.back, -1, "previous"), (self.on, 1, "next")):
            arrow.setToolTip(f"Shows the {what} stimulus of this run")
            arrow.setFixedWidth(32)
            arrow.clicked.connect(lambda _=False, by=by: self._turn(by))
        self.size = QtWidgets.QSlider(Qt.Orientation.Horizontal, minimum=SIDES[0], maximum=SIDES[1], value=SIDE)
        self.size.setToolTip("Size of the images")
        self.size.setFixedWidth(90)
        self.size.valueChanged.connect(self.resized)
        turning = side_by_side(self.back, self.position, self.on, wide=3)
        return side_by_side(turning, QtWidgets.QLabel("image size"), self.size, wide=0)

    def _turn(self, by: int) -> None:
        ids = self.run.stimulus_ids
        self.turned.emit(ids[(ids.index(self.stimulus) + by) % len(ids)])

    def show_empty(self, text: str) -> None:
        """Show no images, but say what to do."""
        self.run = None
        self._show_before(None)
        for images in self.rows.values():
            images.setVisible(False)
        self._show_position()
        self.empty.setText(text)
        self.empty.setVisible(True)

    def show_run(self, run: Run, stimulus: int, before: Run | None = None) -> None:
        """Show one stimulus of a run, and below it that of an earlier one.

        Parameters
        ----------
        run : Run
        stimulus : int
            One of the run's.
        before : Run, optional
            An earlier run of the same stimulus.
        """
        self.run, self.stimulus, self.before = run, stimulus, before
        k = run.stimulus_ids.index(stimulus)
        self.empty.setVisible(run.seen is None)
        self.empty.setText("Waiting for the first image")
        self._show_position()
        if run.seen is not None:
            given = ("seen image", "start (decoded z)")
            self._show("given", "seen | start", [run.seen[k], run.start[k]], given, ("", ""))
        else:
            self.rows["given"].setVisible(False)
        for arm in ARMS:
            self._show_arm(arm, arm, run)
        self._show_before(before)

    def _show_before(self, before: Run | None) -> None:
        self.before = before
        for arm in ARMS:
            name = f"before, {arm}"
            if before is None:
                self.rows[name].setVisible(False)
            else:
                self._show_arm(name, f"{name} ({before.began:%H:%M:%S})", before)

    def _show_arm(self, name: str, title: str, run: Run) -> None:
        images = run.images.get(name.removeprefix("before, "))
        if images is None:
            self.rows[name].setVisible(False)
            return
        arm, own = name.removeprefix("before, "), images[run.stimulus_ids.index(self.stimulus)]
        scores = run.rows_of(arm, self.stimulus)
        of_repeat = {row["rep"]: score_text(row) for row in scores}
        texts = [of_repeat.get(k + 1, "") for k in range(len(own))][:MANY]
        titles = [f"{title}, repeat {k + 1}" for k in range(len(own))][:MANY]
        shown = f"first {MANY} of {len(own)} repeats" if len(own) > MANY else ""
        heading = "   ".join(part for part in (title, mean_text(scores), run.tag(arm), shown) if part)
        self._show(name, heading, list(own[:MANY]), titles, texts)

    def _show(
        self, name: str, heading: str, images: Sequence[np.ndarray], titles: Sequence[str], texts: Sequence[str]
    ) -> None:
        titles = [f"stimulus {self.stimulus}, {title}" for title in titles]
        self.rows[name].heading.setText(heading)
        self.rows[name].show_images(images, titles, texts, self.size.value())
        self.rows[name].setVisible(True)

    def _show_position(self) -> None:
        ids = self.run.stimulus_ids if self.run else ()
        for widget in (self.back, self.on, self.position):
            widget.setVisible(len(ids) > 1)
        if len(ids) > 1:
            self.position.setText(f"stimulus {self.stimulus} ({ids.index(self.stimulus) + 1} of {len(ids)})")

    def shown_images(self) -> dict[str, np.ndarray]:
        """Name to image (H, W, 3) of everything that the run has of every stimulus, for files."""
        run = self.run
        named: dict[str, np.ndarray] = {}
        if run is None:
            return named
        for k, stimulus in enumerate(run.stimulus_ids):
            for name, images in (("seen", run.seen), ("start", run.start)):
                if images is not None:
                    named[f"stim-{stimulus:05d}_{name}"] = images[k]
            for arm, images in run.images.items():
                for repeat, image in enumerate(images[k], 1):
                    named[f"stim-{stimulus:05d}_rep-{repeat}_{arm}"] = image
        return named
