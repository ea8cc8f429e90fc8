"""Seen image, start and reconstructions of one stimulus, drawn again with every preview."""

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSlider, QWidget
from superqt import QFlowLayout

from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.widgets.run.pictures import ImageCell
from napari_neuraldiffuser.widgets.run.record import Run
from napari_neuraldiffuser.widgets.run.score_table import mean_text, score_text
from napari_neuraldiffuser.widgets.session.layouts import side_by_side, stacked

SIDE = 104
SIDES = (64, 320)
MANY = 20
"""Repeats that are shown of one arm; more are in the run's folder."""


class ImageRow(QWidget):
    """A heading, and images that go on in the next line where the panel is narrow."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.heading = QLabel(name, wordWrap=True, textFormat=Qt.TextFormat.PlainText)
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


class Gallery(QWidget):
    """Rows of images of one stimulus of one run.

    Signals
    -------
    turned(int)
        The user wants to see another stimulus of the run.
    resized(int)
        The user wants other cells.
    """

    turned = Signal(int)
    resized = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, ImageRow] = {}
        self.run: Run | None = None
        self.stimulus = 0
        self.empty = QLabel("", wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter)
        self.empty.setStyleSheet("color: gray; padding: 24px;")
        layout = stacked(self, self._build_top(), self.empty)
        for name in ("given", *ARMS, *(f"before, {arm}" for arm in ARMS)):
            self.rows[name] = images = ImageRow(name)
            images.setVisible(False)
            layout.addWidget(images)

    def _build_top(self) -> QHBoxLayout:
        self.position = QLabel("")
        self.back, self.on = QPushButton("◀"), QPushButton("▶")
        for button, by, what in ((self.back, -1, "previous"), (self.on, 1, "next")):
            button.setToolTip(f"Shows the {what} stimulus of this run")
            button.setFixedWidth(32)
            button.clicked.connect(lambda _=False, by=by: self._turn(by))
        self.size = QSlider(Qt.Orientation.Horizontal, minimum=SIDES[0], maximum=SIDES[1], value=SIDE)
        self.size.setToolTip("Size of the images")
        self.size.setFixedWidth(90)
        self.size.valueChanged.connect(self.resized)
        return side_by_side(
            side_by_side(self.back, self.position, self.on, wide=3), QLabel("image size"), self.size, wide=0
        )

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
