"""Dock widget: contribution maps of an output folder as a thresholded overlay with their ROI table."""

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_neuraldiffuser.widgets.outputs import OutputFolderError, SubjectOutputs, find_subjects, roi_shares
from napari_neuraldiffuser.widgets.reader import ReadError, read_volume

if TYPE_CHECKING:
    import napari

SLIDER_STEPS = 200
LAYER_NAME = "contribution"


class ContributionOverlay(QWidget):
    """Choose an output folder, a subject and a target; the slider hides contributions below the threshold.

    Parameters
    ----------
    viewer : napari.Viewer
        Receives one Image layer, named "contribution", placed in mm.
    """

    def __init__(self, viewer: "napari.Viewer") -> None:
        super().__init__()
        self.viewer = viewer
        self.subjects: dict[str, SubjectOutputs] = {}
        self.layer = None
        self.largest = 0.0
        self._build()

    def _build(self) -> None:
        self.folder = QLineEdit(placeholderText="output folder of neuraldiffuser demo or run")
        self.folder.editingFinished.connect(lambda: self.open_folder(self.folder.text()))
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        row = QHBoxLayout()
        row.addWidget(self.folder)
        row.addWidget(browse)
        self.subject = QComboBox()
        self.subject.currentTextChanged.connect(self._show_subject)
        self.target = QComboBox()
        self.target.setToolTip("z: image latent; c: text embedding; g02 to g12: guidance layers")
        self.target.currentTextChanged.connect(self._show_target)
        self.threshold = QSlider(Qt.Orientation.Horizontal, maximum=SLIDER_STEPS - 1)
        self.threshold.setToolTip("Voxels whose contribution is below this value are transparent")
        self.threshold.valueChanged.connect(self._apply_threshold)
        self.shown = QLabel("")
        self.message = QLabel("", wordWrap=True)
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["ROI", "share", "± se"])
        form = QFormLayout()
        form.addRow("Folder", row)
        form.addRow("Subject", self.subject)
        form.addRow("Target", self.target)
        form.addRow("Threshold", self.threshold)
        form.addRow("", self.shown)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.table)
        layout.addWidget(self.message)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Output folder")
        if folder:
            self.folder.setText(folder)
            self.open_folder(folder)

    def open_folder(self, folder: str) -> None:
        """List the subjects of `folder` and show the first; an error appears in the panel."""
        if not folder:
            return
        try:
            self.subjects = find_subjects(folder)
        except OutputFolderError as error:
            self.subjects = {}
            self.message.setText(str(error))
        else:
            self.message.setText("")
        self.subject.clear()
        self.subject.addItems(list(self.subjects))

    def _show_subject(self, label: str) -> None:
        self.target.clear()
        if label in self.subjects:
            self.target.addItems(list(self.subjects[label].maps))

    def _show_target(self, target: str) -> None:
        subject = self.subjects.get(self.subject.currentText())
        if subject is None or target not in subject.maps:
            return
        try:
            data, keywords, _ = read_volume(subject.maps[target])
            shares = roi_shares(subject.table, target) if subject.table else []
        except (ReadError, OutputFolderError) as error:
            self.message.setText(str(error))
            return
        self.message.setText("")
        self._show_volume(np.nan_to_num(np.asarray(data, dtype=np.float32)), keywords)
        self._fill_table(shares)

    def _show_volume(self, data: np.ndarray, keywords: dict) -> None:
        """Replace the overlay's data (Z, Y, X); a new layer only where there is none or it does not fit."""
        self.largest = float(data.max(initial=0.0))
        if self.layer not in self.viewer.layers or self.layer.data.shape != data.shape:
            if self.layer in self.viewer.layers:
                self.viewer.layers.remove(self.layer)
            placing = {key: keywords[key] for key in ("affine", "units", "axis_labels")}
            self.layer = self.viewer.add_image(data, name=LAYER_NAME, **placing)
            self.layer.colorbar.visible = True
            place_camera(self.viewer)
        else:
            self.layer.data, self.layer.affine = data, keywords["affine"]
        self.layer.metadata = keywords["metadata"]
        self.layer.colormap = transparent_below()
        self._apply_threshold()

    def _apply_threshold(self) -> None:
        if self.layer not in self.viewer.layers or self.largest <= 0:
            self.shown.setText("no positive contribution" if self.layer is not None else "")
            return
        low = self.largest * max(self.threshold.value(), 1) / SLIDER_STEPS
        self.layer.contrast_limits = (low, self.largest)
        self.shown.setText(f"{low:.3g} to {self.largest:.3g}")

    def _fill_table(self, shares: list[tuple[str, float, float]]) -> None:
        self.table.setRowCount(len(shares))
        for i, (roi, share, error) in enumerate(shares):
            for j, text in enumerate((roi, f"{share:.4f}", f"{error:.4f}")):
                self.table.setItem(i, j, QTableWidgetItem(text))


def place_camera(viewer: "napari.Viewer") -> None:
    """Neurological view (superior or anterior up, right on the right) with a scale bar."""
    viewer.scene.camera.orientation2d = ("up", "right")
    viewer.canvas.overlays.scale_bar.visible = True


def transparent_below():
    """A hot colormap whose values below the lower contrast limit are transparent."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    hot = ensure_colormap("inferno")
    return Colormap(hot.colors, name="inferno above threshold", controls=hot.controls, low_color=(0, 0, 0, 0))
