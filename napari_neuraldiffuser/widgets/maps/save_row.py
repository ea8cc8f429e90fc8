"""Buttons that write what the contribution panel shows: the canvas as a picture, the map as NIfTI."""

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.widgets.session.layouts import button, side_by_side, stacked
from napari_neuraldiffuser.widgets.session.worker import ThreadTask

if TYPE_CHECKING:
    import napari

NIFTI = ".nii.gz"


class SaveRow(QWidget):
    """Two buttons; `said` what was written, `failed` why it was not.

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
        stacked(self, side_by_side(picture, button("Save map as NIfTI…", tip, self.choose_copy)))

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
