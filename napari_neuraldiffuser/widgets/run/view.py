"""What runs gave: images, scores, feature loss, earlier runs, and what can be taken from them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import QUrl, Signal
from qtpy.QtGui import QDesktopServices

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.widgets.run.compare import Comparison
from napari_neuraldiffuser.widgets.run.gallery import Gallery
from napari_neuraldiffuser.widgets.run.picture import qimage
from napari_neuraldiffuser.widgets.run.record import History, Run, outdated
from napari_neuraldiffuser.widgets.run.score_table import LossCurve, ScoreTable
from napari_neuraldiffuser.widgets.session.controls import Notice, button, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.theme import WARNING
from napari_neuraldiffuser.widgets.session.worker import ThreadTask


class RunView(QtWidgets.QWidget):
    """One stimulus of one run, the way to earlier runs, and a second run beside it."""

    shown = Signal()
    """`run` or `stimulus`, or what the run has, is new."""
    said = Signal(str)
    """What a button did."""
    failed = Signal(Exception)
    """Why it could not."""
    changed = Signal()
    """A choice that is remembered."""
    taken = Signal(object)
    """Run: its parameters are to be those of the form."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.run: Run | None = None
        self.stimulus: int | None = None
        self.present: tuple[Recipe, str] | None = None
        self.outdated: dict[str, str] = {}
        self.gallery, self.table, self.curve = Gallery(), ScoreTable(), LossCurve()
        self.compare, self.ruined = Comparison(self.history), Notice(WARNING)
        self.results = ResultRow(self.gallery)
        self.results.said.connect(self.said)
        self.results.failed.connect(self.failed)
        self.gallery.turned.connect(lambda stimulus: self.show_run(self.run, stimulus))
        self.gallery.resized.connect(lambda _: self.refresh())
        self.gallery.resized.connect(lambda _: self.changed.emit())
        self.compare.chosen.connect(self.refresh)
        self.compare.chosen.connect(self.changed)
        self.compare.taken.connect(self.taken)
        parts = (self.compare, self.gallery, self.ruined, self.compare.table, self.table, self.curve, self.results)
        stacked(self, self._build_history(), *parts)
        self._fill()

    def _build_history(self) -> QtWidgets.QHBoxLayout:
        self.box = QtWidgets.QComboBox()
        self.box.setToolTip("The last runs: when, of which stimulus, and what changed since the run before of it")
        self.box.setSizePolicy(QtWidgets.QSizePolicy.Policy.Ignored, QtWidgets.QSizePolicy.Policy.Fixed)
        self.box.activated.connect(self._pick)
        tip = "Puts the parameters of run A back into the form above"
        self.use = button("Use", tip, lambda: self.taken.emit(self.run))
        return side_by_side(QtWidgets.QLabel("Run A"), self.box, self.use, wide=1)

    # runs

    def add(self, run: Run) -> None:
        """Keep and show a run that has begun."""
        self.history.add(run)
        self.show_run(run, run.stimulus_ids[0])

    def drop(self, run: Run) -> None:
        """Forget a run, but leave its images until others come."""
        self.history.drop(run)
        self._fill()

    def update_run(self, run: Run) -> None:
        """Draw a run again that has something new, if it is shown."""
        if run is self.run:
            self.refresh()

    def show_run(self, run: Run | None, stimulus: int | None) -> None:
        """Show one stimulus of a run, or what to do where there is no run."""
        self.run, self.stimulus = run, stimulus
        self._fill()
        self.refresh()

    def show_stimulus(self, source: Source, stimulus: int) -> None:
        """The newest run of a stimulus of these data, or what to do where there is none."""
        if self.run is not None and self.run.is_of(source, stimulus):
            if stimulus != self.stimulus:
                self.show_run(self.run, stimulus)
            return
        self.show_run(self.history.latest(source, stimulus), stimulus)

    def refresh(self, *_: Any) -> None:
        """Draw the run that is shown once more."""
        run = self.run
        if run is None:
            self.compare.show_run(None, None)
            what = "" if self.stimulus is None else f" of stimulus {self.stimulus}"
            self.gallery.show_empty(f"No run{what} yet.\nChoose stimuli and parameters above, then press Run.")
        else:
            self.gallery.show_run(run, self.stimulus, self.compare.show_run(run, self.stimulus))
        self.table.show_run(None if self.compare.table.isVisibleTo(self) else run, self.stimulus)
        self.use.setEnabled(run is not None)
        self._mark()
        self.curve.show_values(run.curve(self.stimulus) if run else [])
        self.results.show_run(run)
        self.shown.emit()

    def follow(self, recipe: Recipe, decoder: str) -> None:
        """Mark the images that this recipe and decoder would not give."""
        self.present = (recipe, decoder)
        self._mark()

    def _mark(self) -> None:
        run = self.run
        if run is None:
            self.ruined.show_text("")
            return
        self.outdated = outdated(run, *self.present) if self.present else {}
        self.gallery.mark(self.outdated)
        why = "" if self.stimulus is None else run.ruined(self.stimulus)
        kappa = run.recipe.settings.guidance.guidance_scale
        said = f"κ {kappa:g} ruins this image: {why}. Lower κ or η." if why else ""
        self.ruined.show_text(" ".join(filter(None, (said, run.warnings))))

    def _fill(self) -> None:
        """The list of runs, newest first."""
        runs = self.history.runs[::-1]
        self.box.clear()
        for run in runs:
            self.box.addItem(self.history.title(run))
            self.box.setItemData(self.box.count() - 1, self.box.itemText(self.box.count() - 1), 3)  # its tooltip
        self.box.setCurrentIndex(next((k for k, run in enumerate(runs) if run is self.run), -1))
        self.box.setEnabled(bool(runs))
        self.box.setPlaceholderText("none yet" if not runs else "")
        self.compare.fill(self.run)

    def ended(self, run: Run) -> None:
        """A run has ended, in whatever way."""
        self._fill()
        self.update_run(run)

    def _pick(self, index: int) -> None:
        run = self.history.runs[::-1][index]
        keep = self.stimulus in run.stimulus_ids
        self.show_run(run, self.stimulus if keep else run.stimulus_ids[0])


class ResultRow(QtWidgets.QWidget):
    """Buttons for what a run left behind."""

    said = Signal(str)
    failed = Signal(Exception)

    def __init__(self, gallery: Gallery) -> None:
        super().__init__()
        self.gallery = gallery
        self.result: dict[str, Any] = {}
        tip = "Copies a Python script that computes this run again"
        self.python = button("Copy as Python", tip, lambda: self._copy("Python"))
        tip = "Copies a Nipype workflow that computes this run again"
        self.nipype = button("Copy as Nipype script", tip, lambda: self._copy("Nipype"))
        tip = "Opens the run's folder: its images, and provenance.json with all they came from"
        self.provenance = button("Provenance…", tip, self._open)
        self.save = button("Save images…", "Writes all images of this run as PNG to a folder", self._save)
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for k, widget in enumerate((self.python, self.nipype, self.provenance, self.save)):
            grid.addWidget(widget, k // 2, k % 2)
        self.show_run(None)

    def show_run(self, run: Run | None) -> None:
        """Enable what the run has."""
        self.result = run.result if run else {}
        for widget in (self.python, self.nipype, self.provenance):
            widget.setEnabled(bool(self.result))
        self.save.setEnabled(run is not None and run.seen is not None)

    def _copy(self, kind: str) -> None:
        QtWidgets.QApplication.clipboard().setText(self.result[kind.lower()])
        self.said.emit(f"Copied the {kind} script of this run")

    def _open(self) -> None:
        folder = self.result["folder"]
        opened = QDesktopServices.openUrl(QUrl.fromLocalFile(folder))
        self.said.emit(f"{'Opened' if opened else 'The run is in'} {folder}")

    def _save(self) -> None:
        folder = QtWidgets.QFileDialog.getExistingDirectory(self, "Folder for the images of this run")
        if folder:
            self.save_to(folder)

    def save_to(self, folder: str | Path) -> None:
        """Write the images in a thread."""
        self.saving = ThreadTask(partial(write_images, Path(folder), self.gallery.shown_images()))
        self.saving.ended.connect(self._saved)
        self.saving.start()

    def _saved(self, result: Any) -> None:
        if isinstance(result, Exception):
            self.failed.emit(result)
        else:
            self.said.emit(result)


def write_images(folder: Path, images: dict[str, np.ndarray], progress: Progress) -> str:
    """Write PNGs; returns what was done, in words."""
    for k, (name, image) in enumerate(images.items()):
        progress(k, len(images), "writing images")
        path = folder / f"{name}.png"
        if not qimage(image).save(str(path)):
            raise UserError(f"Images must be saved to a folder that can be written, got {folder}. Choose another one.")
    return f"{len(images)} images written to {folder}"
