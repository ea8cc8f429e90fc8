"""Where the data are: an NSD folder and its subject, the files of own scans, or the simulated subject."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QLineEdit, QPushButton, QRadioButton, QWidget
from superqt.utils import signals_blocked

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.core.base.recipe import BETAS_SUFFIXES, Source, design_beside
from napari_neuraldiffuser.widgets.samples import SampleCancelled
from napari_neuraldiffuser.widgets.session.controls import Notice, button, form, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.engine import EngineError
from napari_neuraldiffuser.widgets.session.path_field import FILE, FILES, FOLDER, NIFTI, PathField, RecentBox
from napari_neuraldiffuser.widgets.session.state import PLUGIN

DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
"""What makes a folder an NSD folder (`core.nsd.layout`)."""
BETAS = f"Betas ({' '.join(f'*{ending}' for ending in BETAS_SUFFIXES)})"
OWN = {
    # field of Source -> name, what it is, kind, filter, whether it is needed
    "betas": ("Betas", "4-D NIfTI, one volume per trial, or GLMsingle's TYPED_*.npy, .hdf5 or .mat", FILE, BETAS, True),
    "mask": ("Mask", "NIfTI on the betas' grid; voxels above 0 are used", FILE, NIFTI, True),
    "trials": ("Trials", "Table with trial, stimulus, session and test", FILE, "Table (*.tsv)", True),
    "images": ("Images", "Folder of one image per stimulus, named as in the table; to decode", FOLDER, "", False),
    "captions": ("Captions", "JSON of stimulus to captions", FILE, "JSON (*.json)", False),
    "anatomy": ("Anatomy", "T1 in the space of the betas, to be shown", FILE, NIFTI, False),
    "rois": ("ROIs", "Label volumes on the betas' grid, one per family, separated by ;", FILES, NIFTI, False),
}


TESTED = {
    "core": "Shared images of the core experiment",
    "synthetic": "NSD-synthetic",
    "imagery": "NSD-imagery, by a table of rows",
}
"""Test set of an NSD subject -> how it is offered."""
IMAGERY = {
    "trials": ("Rows", "Table with trial (0-based row of the betas) and stimulus", FILE, "Table (*.tsv)", True),
    "images": ("Pictures", "Folder of one picture per stimulus, named as in the table", FOLDER, "", True),
}


def nsd_root(path: str | Path) -> str:
    """The NSD folder that a folder is or lies in; the folder itself where there is none."""
    path = Path(located(path))
    return str(next((one for one in (path, *path.parents) if (one / DESIGN).is_file()), path))


def subjects_in(folder: str) -> list[str]:
    """The subjects of an NSD folder."""
    try:
        return sorted(p.name for p in Path(located(folder)).glob("nsddata/ppdata/subj*") if p.is_dir())
    except OSError:
        return []


def folder_problem(folder: str) -> str:
    """Why a folder is no NSD folder, or nothing."""
    if not folder:
        return "NSD folder must be chosen. Choose the folder that holds nsddata, or take the simulated subject."
    path = Path(located(folder))
    if not path.is_dir():
        return f"NSD folder must be an existing folder, got {folder}. Check the path."
    if not (path / DESIGN).is_file():
        return f"NSD folder must hold {DESIGN}, got {folder}. Choose the folder that holds nsddata and nsddata_betas."
    if not subjects_in(folder):
        return f"NSD folder must hold subjects, got none in {folder}/nsddata/ppdata. Download one."
    return ""


class NsdPage(QWidget):
    """An NSD folder, the former ones, and its subjects."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.folder = RecentBox("Folder that holds nsddata, nsddata_betas and nsddata_stimuli; it can be dropped here")
        self.folder.lineEdit().setAcceptDrops(False)
        self.folder.lineEdit().setPlaceholderText("folder that holds nsddata")
        self.browse = button("Browse…", "Choose the NSD folder", self._browse)
        self.subject = QComboBox(toolTip="Subjects of the folder")
        self.problem_label = Notice()
        self.tested = QComboBox(toolTip="Which session's images are decoded; the core experiment trains (docs/nsd.md)")
        for name, text in TESTED.items():
            self.tested.addItem(text, name)
        self.beside = {name: PathField(*about) for name, about in IMAGERY.items()}
        folder = side_by_side(self.folder, self.browse, wide=0)
        rows = [(IMAGERY[name][0], field) for name, field in self.beside.items()]
        self.rows = form(
            self, ("Folder", folder), self.problem_label, ("Subject", self.subject), ("Test set", self.tested), *rows
        )
        self._show_beside()
        self.folder.taken.connect(self._taken)
        self.subject.activated.connect(lambda _: self.changed.emit())
        self.tested.activated.connect(self._test_chosen)
        for field in self.beside.values():
            field.changed.connect(self.changed)

    @property
    def path(self) -> str:
        """The folder as it is written."""
        return self.folder.currentText().strip()

    def problem(self) -> str:
        """Why the folder cannot be used, or what is missing beside it, or nothing."""
        if self.tested.currentData() != "imagery":
            return folder_problem(self.path)
        return folder_problem(self.path) or next((text for f in self.beside.values() if (text := f.problem())), "")

    def source(self) -> Source:
        """The chosen subject and test set."""
        subject, tested = self.subject.currentText() or "subj01", self.tested.currentData()
        source = Source(nsd_dir=located(self.path), subject=subject, test_set=tested)
        if tested != "imagery":
            return source
        return replace(source, trials=self.beside["trials"].located, images=self.beside["images"].located)

    def show_source(self, source: Source) -> None:
        """Show a subject, without a signal."""
        self.folder.setEditText(source.nsd_dir)
        self._refresh(source.subject)
        self.tested.setCurrentIndex(self.tested.findData(source.test_set))
        for name, field in self.beside.items():
            field.show_path(getattr(source, name))
        self._show_beside()

    def _test_chosen(self) -> None:
        self._show_beside()
        self.changed.emit()

    def _show_beside(self) -> None:
        """The files that NSD-imagery needs, for it alone."""
        for field in self.beside.values():
            self.rows.setRowVisible(field, self.tested.currentData() == "imagery")

    def choose(self, folder: str) -> None:
        """Take a folder as if it had been browsed."""
        self.folder.setEditText(nsd_root(folder))
        self._taken()

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Choose the NSD folder", self.path)
        if chosen:
            self.choose(chosen)

    def _taken(self) -> None:
        self.folder.typing.stop()
        self._refresh(self.subject.currentText())
        if not folder_problem(self.path):
            self.folder.show_recent([located(self.path), *self.folder.recent()])
        self.changed.emit()

    def _refresh(self, subject: str) -> None:
        problem = folder_problem(self.path)
        self.problem_label.show_text(problem if self.path else "")
        self.folder.setToolTip(self.path or self.folder.toolTip())
        self.subject.clear()
        self.subject.addItems([] if problem else subjects_in(self.path))
        self.subject.setCurrentText(subject)


class OwnPage(QWidget):
    """The files of own scans."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.fields = {name: PathField(*about) for name, about in OWN.items()}
        self.subject = QLineEdit("subj01", toolTip="Names the output folder: subj01 gives sub-01")
        form(self, *((OWN[name][0], field) for name, field in self.fields.items()), ("Subject", self.subject))
        for field in self.fields.values():
            field.changed.connect(self.changed)
        self.subject.editingFinished.connect(self.changed)

    def problem(self) -> str:
        """What is missing, or nothing; GLMsingle's design beside the betas stands for a table of trials."""
        self.fields["trials"].needed = design_beside(self.fields["betas"].located) is None
        problem = next((text for field in self.fields.values() if (text := field.problem())), "")
        if not problem and not self.subject.text().strip().removeprefix("sub-").isalnum():
            return f"Subject must look like subj01, got {self.subject.text()!r}. It names the output folder."
        return problem

    def source(self) -> Source:
        """The chosen files."""
        files = {name: field.located for name, field in self.fields.items()}
        rois = tuple(map(located, self.fields["rois"].paths))
        return Source(**{**files, "rois": rois, "subject": self.subject.text().strip()})

    def show_source(self, source: Source) -> None:
        """Show files, without a signal."""
        for name, field in self.fields.items():
            value = getattr(source, name)
            field.show_path("; ".join(value) if name == "rois" else value)
        self.subject.setText(source.subject)


class SourceForm(QWidget):
    """Two pages, of which one is shown: an NSD folder, or own scans."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.nsd, self.own = NsdPage(), OwnPage()
        self.use_nsd = QRadioButton("NSD folder", checked=True, toolTip="Data in NSD's own layout, simulated ones too")
        self.use_own = QRadioButton("Own scans", toolTip="Betas, mask and trials of any experiment (docs/nsd.md)")
        stacked(self, side_by_side(self.use_nsd, self.use_own, wide=2), self.nsd, self.own)
        self.own.setVisible(False)
        self.use_own.toggled.connect(self._turn)
        self.nsd.changed.connect(self.changed)
        self.own.changed.connect(self.changed)

    @property
    def page(self) -> NsdPage | OwnPage:
        """The page that is shown."""
        return self.own if self.use_own.isChecked() else self.nsd

    def problem(self) -> str:
        """Why there are no data yet, or nothing."""
        return self.page.problem()

    def source(self) -> Source:
        """What was chosen; for use where there is no problem."""
        return self.page.source()

    def show_source(self, source: Source) -> None:
        """Show where data are, without a signal."""
        with signals_blocked(self):
            (self.use_own if source.own else self.use_nsd).setChecked(True)
            self.page.show_source(source)
            if not source.own and source.nsd_dir:
                self.nsd.folder.show_recent([source.nsd_dir, *self.nsd.folder.recent()])

    def take_folder(self, folder: str) -> None:
        """Take a dropped folder as the NSD folder."""
        with signals_blocked(self):
            self.use_nsd.setChecked(True)
        self.nsd.choose(folder)

    def _turn(self, own: bool) -> None:
        self.nsd.setVisible(not own)
        self.own.setVisible(own)
        self.changed.emit()


def description_text(described: dict[str, Any]) -> str:
    """What a source holds, in a few lines."""
    if described["affine"] is None:
        size = f"{described['shape'][1]:,} vertices in each hemisphere"
    else:
        size = " × ".join(f"{size:.3g}" for size in described["voxel_sizes_mm"]) + " mm voxels"
    lines = [
        f"{described['trials']:,} trials in {len(described['sessions'])} sessions",
        f"{len(described['test_ids'])} test stimuli, {described['n_train']:,} for training",
        f"{size}, {described['space']}",
    ]
    return "\n".join([*lines, *described["notes"]])


SAMPLE = "simulated_subject"
OPENING = "opening the simulated subject"


class SampleButton(QPushButton):
    """Opens the sample; `said` with what happens, `failed` with why it could not be.

    Parameters
    ----------
    viewer : callable
        Gives the napari viewer.
    """

    said = Signal(str)
    failed = Signal(object)

    def __init__(self, viewer: Callable[[], Any]) -> None:
        super().__init__("Simulated subject")
        self.setToolTip("Opens a subject simulated in NSD's formats; it is written to the cache the first time")
        self._viewer = viewer
        self.clicked.connect(self._open)

    def _open(self) -> None:
        self.setEnabled(False)
        self.said.emit(OPENING)
        failure: Exception | None = None
        told = ""
        try:
            self._viewer().open_sample(PLUGIN, SAMPLE)
        except SampleCancelled as cancelled:
            told = str(cancelled)
        except (KeyError, UserError, EngineError, OSError) as error:
            failure = error
        finally:
            # the sample has an event loop of its own while it is written, in which the panel can be closed
            alive = isalive(self)
            if alive:
                self.setEnabled(True)
        if not alive:
            return
        if failure is None:
            self.said.emit(told)
        else:
            self.failed.emit(failure)
