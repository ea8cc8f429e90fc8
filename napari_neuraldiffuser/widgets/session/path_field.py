"""Lines for files and folders: typed, browsed or dropped, and checked as they are typed."""

from collections.abc import Iterable
from pathlib import Path

from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QComboBox, QFileDialog, QLineEdit, QWidget

from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.widgets.session.controls import Notice, button, side_by_side, stacked

RECENT = 8
"""Texts that are remembered."""
TYPING = 400
"""Milliseconds of quiet after which typed text is taken."""
FILE, FOLDER, FILES = "file", "folder", "files"
SEPARATOR = ";"
NIFTI = "NIfTI (*.nii *.nii.gz)"


class RecentBox(QComboBox):
    """An editable line with what was used last below it; `taken` when a text was chosen, or typed and left at rest.

    Parameters
    ----------
    tip : str
    first : str, optional
        What the list always begins with.
    """

    taken = Signal()

    def __init__(self, tip: str, first: str = "") -> None:
        super().__init__(editable=True, insertPolicy=QComboBox.InsertPolicy.NoInsert, toolTip=tip)
        self.first = (first,) if first else ()
        self.addItems(self.first)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.typing = QTimer(self, singleShot=True, interval=TYPING, timeout=self.taken)
        self.lineEdit().textEdited.connect(lambda _: self.typing.start())
        self.lineEdit().editingFinished.connect(self.finish)
        self.activated.connect(lambda _: self.taken.emit())

    def finish(self) -> None:
        """Take what is being typed: who leaves the line has typed to the end."""
        if self.typing.isActive():
            self.typing.stop()
            self.taken.emit()

    def recent(self) -> list[str]:
        """The list but for what is always there, the last used first."""
        return [self.itemText(k) for k in range(len(self.first), self.count())]

    def show_recent(self, texts: Iterable[str]) -> None:
        """Fill the list; the line stays as it is."""
        text = self.currentText()
        self.clear()
        self.addItems(list(dict.fromkeys([*self.first, *texts]))[: RECENT + len(self.first)])
        self.setEditText(text)


class PathField(QWidget):
    """A path with a Browse button, and below it what is wrong with it.

    Parameters
    ----------
    name : str
        Of messages and of the file dialog.
    tip : str
    kind : {"file", "folder", "files"}
        Several files are separated by semicolons.
    filters : str
        Of the file dialog.
    needed : bool
        Whether nothing is a problem too.
    """

    changed = Signal()

    def __init__(self, name: str, tip: str, kind: str = FILE, filters: str = "", needed: bool = False) -> None:
        super().__init__()
        self.name, self.kind, self.filters, self.needed = name, kind, filters, needed
        self.edit = QLineEdit(toolTip=tip, placeholderText="" if needed else "optional", acceptDrops=False)
        self.setAcceptDrops(True)
        self.browse = button("Browse…", f"Choose {name}", self._browse)
        self.problem_label = Notice()
        stacked(self, side_by_side(self.edit, self.browse, wide=0), self.problem_label)
        self._typing = QTimer(self, singleShot=True, interval=TYPING, timeout=self._taken)
        self.edit.textEdited.connect(lambda _: self._typing.start())
        self.edit.editingFinished.connect(self._left)

    def _left(self) -> None:
        """Who leaves the line has typed to the end."""
        if self._typing.isActive():
            self._taken()

    @property
    def path(self) -> str:
        """What the line says."""
        return self.edit.text().strip()

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that the line names."""
        return tuple(one.strip() for one in self.path.split(SEPARATOR) if one.strip())

    @property
    def located(self) -> str:
        """The same by their whole paths."""
        return f"{SEPARATOR} ".join(map(located, self.paths)) if self.kind == FILES else located(self.path)

    def show_path(self, path: str) -> None:
        """Show a path, without a signal."""
        self.edit.setText(path)
        self._show_problem()

    def choose(self, path: str) -> None:
        """Take a path as if it had been browsed."""
        self.edit.setText(path)
        self._taken()

    def problem(self) -> str:
        """Why the path cannot be used, or nothing."""
        paths = self.paths if self.kind == FILES else (self.path,) if self.path else ()
        if not paths:
            return f"{self.name} must be given. Choose the file." if self.needed else ""
        exists = Path.is_dir if self.kind == FOLDER else Path.is_file
        absent = [path for path in paths if not exists(Path(located(path)))]
        what = "folder" if self.kind == FOLDER else "file"
        return f"{self.name} must be an existing {what}, got {absent[0]}. Check the path." if absent else ""

    def _show_problem(self) -> None:
        # what is not filled in yet is said below the Run button, and not in every line at once
        self.problem_label.show_text(self.problem() if self.path else "")

    def _taken(self) -> None:
        self._typing.stop()
        self._show_problem()
        self.changed.emit()

    def _browse(self) -> None:
        folder = str(Path(self.paths[0]).parent) if self.paths else ""
        if self.kind == FOLDER:
            chosen = QFileDialog.getExistingDirectory(self, f"Choose {self.name}", self.path)
        elif self.kind == FILES:
            files, _ = QFileDialog.getOpenFileNames(self, f"Choose {self.name}", folder, self.filters)
            chosen = f"{SEPARATOR} ".join(files)
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, f"Choose {self.name}", folder, self.filters)
        if chosen:
            self.choose(chosen)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Let Qt know that files may be dropped here."""
        if dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Take what was dropped."""
        paths = dropped(event)
        event.acceptProposedAction()
        self.choose(f"{SEPARATOR} ".join(paths) if self.kind == FILES else paths[0])


def dropped(event: QDropEvent) -> list[str]:
    """Local paths of a drag or drop event."""
    return [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
