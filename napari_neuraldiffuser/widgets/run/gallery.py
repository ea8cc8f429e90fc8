"""Seen image, start and reconstructions of one stimulus, of one run or of two beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import Qt, Signal
from superqt import QFlowLayout

from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.widgets.run.picture import OUT_OF_DATE, STALE_TIP, ImageCell
from napari_neuraldiffuser.widgets.run.record import Run
from napari_neuraldiffuser.widgets.run.score_table import mean_text, score_text
from napari_neuraldiffuser.widgets.session.controls import side_by_side, stacked
from napari_neuraldiffuser.widgets.session.theme import FAINT, WARNING, set_tone

SIDE = 104
SIDES = (64, 320)
MANY = 20
"""Repeats that are shown of one arm; more are in the run's folder."""
SECOND = "B, {}"
"""Name of the row of an arm of the run to compare with."""
ABSENT = "not computed"
"""Of an arm that a run has no image of, beside one that has."""


class ImageRow(QtWidgets.QWidget):
    """A heading, and images that go on in the next line where the panel is narrow."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.title, self.changed = name, ""
        self.heading = QtWidgets.QLabel(name, wordWrap=True, textFormat=Qt.TextFormat.PlainText)
        self.cells: list[ImageCell] = []
        self.flow = QFlowLayout()
        self.flow.setContentsMargins(0, 0, 0, 0)
        self.flow.setHorizontalSpacing(2)
        self.flow.setVerticalSpacing(2)
        stacked(self, self.heading, self.flow).setSpacing(2)

    def show_title(self, title: str) -> None:
        """Say what the images are."""
        self.title = title
        self._say()

    def mark(self, changed: str) -> None:
        """Mark the images as out of date since this changed; nothing, and they are up to date."""
        self.changed = changed
        self._say()

    def _say(self) -> None:
        mark = f"   {OUT_OF_DATE}: {self.changed}" if self.changed else ""
        if self.heading.text() != f"{self.title}{mark}":
            self.heading.setText(f"{self.title}{mark}")
            set_tone(self.heading, WARNING if mark else "")
            self.heading.setToolTip(STALE_TIP if mark else "")

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
    """Rows of images of one stimulus of a run, and of a second run beside it."""

    turned = Signal(int)
    """The user wants to see another stimulus of the run."""
    resized = Signal(int)
    """The user wants other cells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, ImageRow] = {}
        self.run: Run | None = None
        self.other: Run | None = None
        self.stimulus = 0
        self.empty = QtWidgets.QLabel("", wordWrap=True, alignment=Qt.AlignmentFlag.AlignCenter)
        set_tone(self.empty, FAINT)
        self.empty.setStyleSheet("padding: 24px;")
        for name in ("given", *(row for arm in ARMS for row in (arm, SECOND.format(arm)))):
            self.rows[name] = ImageRow(name)
            self.rows[name].setVisible(False)
        beside = [side_by_side(self.rows[arm], self.rows[SECOND.format(arm)]) for arm in ARMS]
        for pair in beside:
            for place in range(pair.count()):
                pair.setStretch(place, 1)
        stacked(self, self._build_top(), self.empty, self.rows["given"], *beside)

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
        self.run = self.other = None
        for images in self.rows.values():
            images.setVisible(False)
        self._show_position()
        self.empty.setText(text)
        self.empty.setVisible(True)

    def show_run(self, run: Run, stimulus: int, other: Run | None = None) -> None:
        """Show one stimulus of a run, and beside it that of another.

        Parameters
        ----------
        run : Run
        stimulus : int
            One of the run's.
        other : Run, optional
            Has the same stimulus.
        """
        self.run, self.stimulus, self.other = run, stimulus, other
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
            self._show_arm(arm, arm, f"A {arm}" if other else arm, run)
            self._show_arm(SECOND.format(arm), arm, f"B {arm}", other)
            if other is not None and (arm in run.images) != (arm in other.images):
                self._keep_place(arm)

    def mark(self, changed: Mapping[str, str]) -> None:
        """Mark the rows of that name as out of date since something changed; all others are up to date."""
        for name, images in self.rows.items():
            images.mark(changed.get(name, ""))

    def _show_arm(self, name: str, arm: str, title: str, run: Run | None) -> None:
        images = None if run is None else run.images.get(arm)
        if run is None or images is None:
            self.rows[name].setVisible(False)
            return
        own = images[run.stimulus_ids.index(self.stimulus)]
        scores = run.rows_of(arm, self.stimulus)
        of_repeat = {row["rep"]: score_text(row) for row in scores}
        texts = [of_repeat.get(k + 1, "") for k in range(len(own))][:MANY]
        titles = [f"{title}, repeat {k + 1}" for k in range(len(own))][:MANY]
        shown = f"first {MANY} of {len(own)} repeats" if len(own) > MANY else ""
        heading = "   ".join(part for part in (title, mean_text(scores), run.tag(arm), shown) if part)
        self._show(name, heading, list(own[:MANY]), titles, texts)

    def _keep_place(self, arm: str) -> None:
        """Of an arm that one run has, say that the other has none: its column is not the other's."""
        pairs = ((arm, f"A {arm}", self.run), (SECOND.format(arm), f"B {arm}", self.other))
        for name, title, run in pairs:
            if run is not None and arm not in run.images:
                self._show(name, f"{title}   {run.tag(arm) or ABSENT}", [], [], [])

    def _show(
        self, name: str, heading: str, images: Sequence[np.ndarray], titles: Sequence[str], texts: Sequence[str]
    ) -> None:
        titles = [f"stimulus {self.stimulus}, {title}" for title in titles]
        self.rows[name].show_title(heading)
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
