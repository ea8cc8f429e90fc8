"""Seen image, start and reconstructions of one stimulus in a dock below the canvas: not in the brain's space."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QPixmap, QResizeEvent

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import SHOWN
from napari_neuraldiffuser.core.base.pictures import read_picture
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.widgets.run.picture import OUT_OF_DATE, STALE_TIP, ImageCell, qimage
from napari_neuraldiffuser.widgets.session.controls import side_by_side, stacked
from napari_neuraldiffuser.widgets.session.theme import WARNING, set_tone
from napari_neuraldiffuser.widgets.views import docked

if TYPE_CHECKING:
    import napari

PICTURES = (*SHOWN, *ARMS)
NAME = "Pictures"
INVITATION = "Pictures of a run appear here: press Run on the Reconstruct page, or open an output folder."
LEAST, FIRST, GAP = 64, 150, 8
"""Sides of the pictures in pixels, and what is between them."""
BLANK = np.full((32, 32, 3), 40, np.uint8)
"""Dark grey, for an image that is not there yet."""
Files = dict[int, dict[tuple[str, int], Path]]
"""Stimulus to {("seen", 1): file, ("guided", 2): file, ...}, as `SubjectOutputs.pictures` has it."""


class EqualCell(ImageCell):
    """An image that is drawn at exactly the wanted size, so that all of them can be compared."""

    def _render(self) -> None:
        if self.image is not None:
            ratio = self.devicePixelRatioF()
            wanted, smooth = round(self.side * ratio), Qt.TransformationMode.SmoothTransformation
            scaled = qimage(self.image).scaled(wanted, wanted, Qt.AspectRatioMode.KeepAspectRatio, smooth)
            scaled.setDevicePixelRatio(ratio)
            self.setPixmap(QPixmap.fromImage(scaled))


class PictureCell(QtWidgets.QWidget):
    """A title above, one picture, its scores below."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title, self.picture = QtWidgets.QLabel(title), EqualCell(title)
        self.text = QtWidgets.QLabel("", wordWrap=True)
        self.title.setStyleSheet("font-weight: bold")
        stacked(self, self.title, self.picture, self.text).addStretch(1)


class PictureStrip(QtWidgets.QWidget):
    """The pictures of one stimulus, as large as their dock lets them be; never mirrored, whatever the brain's view.

    Attributes
    ----------
    images : dict
        Picture name to the image (H, W, 3) that is shown.
    stimulus : int or None
    """

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        super().__init__()
        self.images: dict[str, np.ndarray] = {}
        self.stimulus: int | None = None
        self.stimuli: tuple[int, ...] = ()
        self.turn: Callable[[int], None] | None = None
        self.cells = {name: PictureCell(name) for name in PICTURES}
        self.empty = QtWidgets.QLabel(INVITATION, wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter)
        self._resized = QTimer(self, singleShot=True, interval=0, timeout=self._draw)
        row = QtWidgets.QHBoxLayout()
        row.setSpacing(GAP)
        for cell in self.cells.values():
            row.addWidget(cell)
        row.addStretch(1)
        layout = stacked(self, self._build_top(), self.empty, row)
        layout.setContentsMargins(GAP, 0, GAP, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)
        docked.register(viewer, self)
        self.clear()

    def _build_top(self) -> QtWidgets.QHBoxLayout:
        self.position = QtWidgets.QLabel("")
        self.back, self.on = QtWidgets.QPushButton("◀"), QtWidgets.QPushButton("▶")
        for arrow, by, what in ((self.back, -1, "previous"), (self.on, 1, "next")):
            arrow.setToolTip(f"Shows the pictures of the {what} stimulus")
            arrow.setFixedWidth(32)
            arrow.clicked.connect(lambda _=False, by=by: self._turn(by))
        return side_by_side(self.back, self.position, self.on, wide=3)

    def _turn(self, by: int) -> None:
        if self.turn is not None and self.stimulus in self.stimuli:
            self.turn(self.stimuli[(self.stimuli.index(self.stimulus) + by) % len(self.stimuli)])

    @classmethod
    def of(cls, viewer: "napari.Viewer") -> "PictureStrip":
        """The strip of a viewer, docked below the canvas when it is first needed."""
        return docked.find_or_dock(viewer, cls, NAME, "bottom")

    def show_pictures(
        self,
        images: dict[str, np.ndarray | None],
        stimulus: int,
        stimuli: Sequence[int] = (),
        turn: Callable[[int], None] | None = None,
        texts: dict[str, str] | None = None,
    ) -> None:
        """Show the pictures of one stimulus.

        Parameters
        ----------
        images : dict
            Picture name to image (H, W, 3) uint8; None for one that is still to come.
        stimulus : int
        stimuli : sequence of int
            Those that the arrows go through.
        turn : callable, optional
            Shows another of them.
        texts : dict, optional
            Picture name to what stands below it, such as its scores.
        """
        self.images = {name: BLANK if image is None else image for name, image in images.items()}
        self.stimulus, self.stimuli, self.turn, self.texts = stimulus, tuple(stimuli), turn, texts or {}
        several = len(self.stimuli) > 1
        for arrow in (self.back, self.on):
            arrow.setVisible(several)
        where = f" ({self.stimuli.index(stimulus) + 1} of {len(self.stimuli)})" if several else ""
        self.position.setText(f"stimulus {stimulus}{where}")
        self._draw()

    def mark(self, changed: Mapping[str, str]) -> None:
        """Mark the pictures of that name as out of date since something changed; all others are up to date."""
        for name, cell in self.cells.items():
            what = changed.get(name, "")
            cell.title.setText(f"{name}  {OUT_OF_DATE}" if what else name)
            cell.title.setToolTip(f"{what}. {STALE_TIP}" if what else "")
            set_tone(cell.title, WARNING if what else "")

    def clear(self) -> None:
        """Show no pictures, but what would show some."""
        self.images, self.stimulus, self.stimuli, self.turn, self.texts = {}, None, (), None, {}
        self.mark({})
        self.position.setText("")
        self.back.setVisible(False)
        self.on.setVisible(False)
        self._draw()

    def _draw(self) -> None:
        self.empty.setVisible(not self.images)
        side = self._side()
        for name, cell in self.cells.items():
            image = self.images.get(name)
            cell.setVisible(image is not None)
            if image is not None:
                text = self.texts.get(name, "")
                cell.text.setText(text)
                cell.text.setMaximumWidth(side)
                cell.picture.show_image(image, side, text, f"stim-{self.stimulus:05d}_{name}")

    def _side(self) -> int:
        """Of the pictures: what the dock has room for, below the arrows and above the scores."""
        lines = 4 if any(self.texts.values()) else 2
        high = self.height() - lines * self.fontMetrics().lineSpacing() - 3 * GAP
        wide = self.width() // max(len(self.images), 1) - 2 * GAP
        return max(LEAST, min(high, wide))

    def sizeHint(self) -> QSize:
        """As high as pictures to be compared need."""
        return QSize(4 * (FIRST + GAP), FIRST + 5 * self.fontMetrics().lineSpacing())

    def minimumSizeHint(self) -> QSize:
        """Small: a dock must not hold its window open."""
        return QSize(4 * (LEAST + GAP), LEAST + 5 * self.fontMetrics().lineSpacing())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Draw the pictures as large as fits, once the window is done with its layout."""
        super().resizeEvent(event)
        self._resized.start()


class FolderPictures:
    """Shows what an output folder has of one stimulus after the other."""

    def __init__(self, strip: PictureStrip, files: Files) -> None:
        self.strip, self.files = strip, files

    def show(self, stimulus: int) -> None:
        """Show one stimulus; an image that cannot be read is told in a message."""
        from napari.utils.notifications import show_error

        try:
            self.strip.show_pictures(read_pictures(self.files, stimulus), stimulus, tuple(self.files), self.show)
        except UserError as error:
            show_error(str(error))


def read_pictures(files: Files, stimulus: int) -> dict[str, np.ndarray | None]:
    """The pictures of a stimulus, of the first repeat, as many as there are; ReadError where one cannot be read."""
    of_one = files[stimulus]
    return {name: read_picture(of_one[name, 1]) for name in PICTURES if (name, 1) in of_one}


def show_files(files: Files) -> None:
    """Show an output folder's pictures in the viewer that asked for it; in a script without one they are only read."""
    from napari import current_viewer

    if not files:
        return
    first = min(files)
    read_pictures(files, first)
    viewer = current_viewer()
    if viewer is not None:
        FolderPictures(PictureStrip.of(viewer), files).show(first)
