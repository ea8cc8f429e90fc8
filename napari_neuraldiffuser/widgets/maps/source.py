"""Where contribution maps come from: an output folder, read in a thread; and whether they still fit the recipe."""

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QComboBox, QFileDialog, QLineEdit, QWidget
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Recipe, decoding_part, differences
from napari_neuraldiffuser.widgets.files.layer_info import LayerData
from napari_neuraldiffuser.widgets.files.outputs import find_subjects
from napari_neuraldiffuser.widgets.files.reader import ReadError, read_volume
from napari_neuraldiffuser.widgets.maps.subject_maps import SubjectMaps, read_subject
from napari_neuraldiffuser.widgets.session.controls import Notice, button, form, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.path_field import dropped
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.worker import ThreadTask

if TYPE_CHECKING:
    import napari

ReadFolder = tuple[list[str], SubjectMaps, LayerData | None]
"""Labels of all subjects, what one of them has, and its anatomy."""


class MapSource(QWidget):
    """Folder and subject; `arrived` with `ReadFolder`, the exception that reading ended with, or None if abandoned.

    Attributes
    ----------
    opened : str
        The folder that is shown or being read.
    """

    chosen = Signal(str)
    told = Signal(int, int, str)
    arrived = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.opened = ""
        self.reading: ThreadTask | None = None
        self._waiting: tuple[str, str] | None = None
        self._abandoned = False
        self.setAcceptDrops(True)
        self.folder = QLineEdit(placeholderText="output folder of a run; drop one here", acceptDrops=False)
        self.folder.setToolTip("Folder with sub-XX/sub-XX_space-*_target-*_contribution.nii.gz")
        self.folder.returnPressed.connect(lambda: self.choose(self.folder.text().strip()))
        self.folder.editingFinished.connect(self._left)
        self.subject = QComboBox(toolTip="Subjects with contribution maps in this folder")
        self.subject.currentTextChanged.connect(self._subject_chosen)
        browse = button("Browse…", "Choose the output folder of a run", self._browse)
        form(self, ("Folder", side_by_side(self.folder, browse, wide=0)), ("Subject", self.subject))

    def _browse(self) -> None:
        self.choose(QFileDialog.getExistingDirectory(self, "Output folder", self.folder.text()))

    def choose(self, folder: str) -> None:
        """Emit `chosen` for a folder that the user named; one that is open is read anew."""
        if folder:
            self.chosen.emit(folder)

    def _left(self) -> None:
        """Take what was typed when the line is left, unless it is open."""
        if self.folder.text().strip() != self.opened:
            self.choose(self.folder.text().strip())

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Let Qt know that a folder may be dropped here."""
        if dropped_folder(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open the folder that was dropped."""
        self.choose(dropped_folder(event))

    def open(self, folder: str, label: str = "") -> None:
        """Read a folder; the subject stays where the folder has it."""
        self.opened = folder
        self.folder.setText(folder)
        self.folder.setToolTip(folder)
        self._waiting = folder, label or self.subject.currentText()
        self._abandoned = False
        if self.reading is None:
            self._read()
        else:
            self.reading.cancel()

    def abandon(self) -> None:
        """Show nothing of what is being read."""
        if self.reading is not None:
            self._waiting, self._abandoned = None, True
            self.reading.cancel()

    def _read(self) -> None:
        """Read what waits; one worker at a time, so that none outlives the objects that it tells."""
        (folder, label), self._waiting = self._waiting, None
        self.reading = ThreadTask(partial(read_folder, folder, label))
        self.reading.told.connect(self.told)
        self.reading.ended.connect(self._ended)
        self.reading.start()

    def _ended(self, result: Any) -> None:
        self.reading = None
        if self._waiting is not None:
            self._read()  # another folder was chosen meanwhile
            return
        if self._abandoned:
            self._abandoned, result = False, None
        if result is None or isinstance(result, Exception):
            self.opened = ""
            self._show_subjects([], "")
        else:
            self._show_subjects(result[0], result[1].label)
        self.arrived.emit(result)

    def _show_subjects(self, labels: list[str], label: str) -> None:
        with signals_blocked(self.subject):
            self.subject.clear()
            self.subject.addItems(labels)
            self.subject.setCurrentText(label)

    def _subject_chosen(self, label: str) -> None:
        if label and self.opened:
            self.open(self.opened, label)


def dropped_folder(event: QDropEvent) -> str:
    """The first folder among what is dropped, or nothing."""
    return next((path for path in dropped(event) if Path(path).is_dir()), "")


def read_folder(folder: str, label: str, progress: Progress) -> ReadFolder:
    """Read one subject of a folder: `label` where the folder has it, else the first.

    Raises
    ------
    OutputFolderError, ReadError
        If no maps are there, or one of them is damaged.
    """
    subjects = find_subjects(folder)
    outputs = subjects.get(label) or next(iter(subjects.values()))
    maps = read_subject(outputs, progress)
    anatomy = None
    if outputs.anatomy is not None:
        try:
            anatomy = read_volume(outputs.anatomy)
        except ReadError as error:
            maps.notes.append(str(error))
    return list(subjects), maps, anatomy


LATE = "The data changed meanwhile; compute again."


class MapAge(Notice):
    """Says what changed since the maps that are shown were computed; nothing of folders that were only opened."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.made: tuple[Recipe, str] | None = None
        session.recipe_changed.connect(self._judge)
        session.output_changed.connect(self._judge)

    def fits(self, started: Recipe) -> bool:
        """Whether what was computed for a recipe is what the session's recipe would give."""
        now = self.session.recipe
        return (
            decoding_part(started) == decoding_part(now) and started.settings.contribution == now.settings.contribution
        )

    def take(self, started: Recipe, folder: str) -> None:
        """Maps of this recipe were written to a folder."""
        self.made = started, str(folder)
        self._judge()

    def _judge(self, *_: Any) -> None:
        stale = self.made is not None and self.made[1] == self.session.output and not self.fits(self.made[0])
        what = differences(self.made[0], self.session.recipe) if stale else ""
        self.show_text(f"Compute again: {what or 'the decoder or attribution'} changed since." if stale else "")


NIFTI = ".nii.gz"


class SaveRow(QWidget):
    """Three buttons; `said` what was written, `failed` why it was not.

    Attributes
    ----------
    path : Path or None
        File of the map that is shown.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(self, viewer: "napari.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.path: Path | None = None
        tip = "Write the canvas with overlay, outlines and colour bar as PNG"
        picture = button("Save overlay picture…", tip, self.choose_picture)
        tip = "Copy this target's map (.nii.gz, with all shares) to another place"
        copy = button("Save map as NIfTI…", tip, self.choose_copy)
        tip = "Slices or surfaces with title, threshold and legend, beside the pictures, as PNG or PDF"
        figure = button("Export figure…", tip, self.export_figure)
        stacked(self, side_by_side(picture, copy, figure))

    def export_figure(self) -> None:
        """Open the dialog of the figure."""
        if self._shown():
            from napari_neuraldiffuser.widgets.views.figure import export_figure

            export_figure(self.viewer)

    def _shown(self) -> bool:
        if self.path is None:
            self.said.emit("A map must be shown before it can be saved. Compute maps or open an output folder.")
        return self.path is not None

    def choose_picture(self) -> None:
        """Ask for a name and write the canvas."""
        if not self._shown():
            return
        name = self.path.name.replace(NIFTI, ".png")
        chosen, _ = QFileDialog.getSaveFileName(self, "Save overlay picture", name, "PNG (*.png)")
        if chosen:
            self.write_picture(Path(chosen if chosen.endswith(".png") else f"{chosen}.png"))

    def write_picture(self, path: Path) -> None:
        """Write the canvas as PNG."""
        try:
            with atomic_path(path) as temporary:
                self.viewer.screenshot(str(temporary), canvas_only=True, flash=False)
        except UserError as error:
            self.failed.emit(error)
        else:
            self.said.emit(f"Written: {path}")

    def choose_copy(self) -> None:
        """Ask for a name and copy the map there."""
        if not self._shown():
            return
        chosen, _ = QFileDialog.getSaveFileName(self, "Save map as NIfTI", self.path.name, f"NIfTI (*{NIFTI})")
        if chosen:
            self.copy_map(Path(chosen if chosen.endswith(NIFTI) else chosen.removesuffix(".nii") + NIFTI))

    def copy_map(self, target: Path) -> None:
        """Copy the map in a thread."""
        self._copying = ThreadTask(partial(copy_file, self.path, target))
        self._copying.ended.connect(self._copied)
        self._copying.start()

    def _copied(self, result: Any) -> None:
        if isinstance(result, Exception):
            self.failed.emit(result)
        else:
            self.said.emit(f"Written: {result}")


def copy_file(source: Path, target: Path, progress: Progress | None = None) -> Path:
    """Copy a file atomically; returns where it lies now."""
    if not (target.exists() and target.samefile(source)):
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return target
