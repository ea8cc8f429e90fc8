"""Export figure: what the viewer shows of a contribution map, with the pictures beside it, as PNG or PDF."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy import QtWidgets
from qtpy.QtCore import Qt, Signal

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.nsd.reading.volumes import open_volume
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.outputs.report.figure import PLANES, FigureStyle, write_figure
from napari_neuraldiffuser.core.outputs.report.slices import (
    REGION_COLOURS,
    Scene,
    SliceStyle,
    bounds,
    checked_values,
    roi_masks,
    unit_of,
)
from napari_neuraldiffuser.widgets.files.layer_info import kind_of
from napari_neuraldiffuser.widgets.files.outputs import find_outputs
from napari_neuraldiffuser.widgets.files.view import AnatomicalView
from napari_neuraldiffuser.widgets.maps.overlay import USE, Look
from napari_neuraldiffuser.widgets.maps.subject_maps import read_family, read_rows, target_name
from napari_neuraldiffuser.widgets.session.controls import add, button, form, side_by_side
from napari_neuraldiffuser.widgets.session.keys import unwrapped, window_of
from napari_neuraldiffuser.widgets.session.state import KEY
from napari_neuraldiffuser.widgets.session.worker import ThreadTask
from napari_neuraldiffuser.widgets.views import docked
from napari_neuraldiffuser.widgets.views.pictures import PictureStrip

if TYPE_CHECKING:
    import napari

MARGIN = 0.8
"""The head is longer from the side than from above."""
SURFACES = "surfaces from four sides (3-D)"
SIDES = {"left": ((0, 0, 1), (1, 0, 0)), "right": ((0, 0, -1), (1, 0, 0)), "back": ((0, 1, 0), (1, 0, 0))}
SIDES["top"] = (-1, 0, 0), (0, 1, 0)
"""From where the head is seen, to where one looks and what is up, along S, A and R."""
GROUNDS = {"white": ("#ffffff", "#1a1a1a"), "dark": (SliceStyle.ground, SliceStyle.ink)}
"""Background to its colour and that of the letters."""
NO_MAP = (
    "A contribution map must be shown before a figure of it can be exported. Open an output folder or compute maps."
)


@dataclass(frozen=True)
class FigurePlan:
    """What a thread needs to draw the figure."""

    map: Path
    target: str
    look: Look
    anatomy: Path | None
    output: Path | None
    regions: bool
    slices: SliceStyle
    style: FigureStyle
    pictures: dict[str, np.ndarray]
    views: tuple[tuple[str, np.ndarray], ...] = ()


def shown_map(viewer: "napari.Viewer") -> "napari.layers.Layer | None":
    """The contribution layer that is seen: that of the Contribution page, else the topmost."""
    shown = [one for one in viewer.layers if kind_of(one) == "contribution" and one.metadata.get("path")]
    ours = [one for one in shown if one.metadata.items() >= USE.items()]
    visible = [one for one in (*ours, *reversed(shown)) if one.visible]
    return next(iter(visible or ours or shown), None)


def plan_of(viewer: "napari.Viewer", style: FigureStyle, ground: str, regions: bool, pictures: bool) -> FigurePlan:
    """What the viewer shows now; UserError where there is no map."""
    layer = shown_map(viewer)
    if layer is None:
        raise UserError(NO_MAP)
    low, high = layer.contrast_limits
    look = layer.metadata.get("look") or Look(fraction=low / high, opacity=layer.opacity)
    anatomy = next((one.metadata.get("path") for one in viewer.layers if kind_of(one) == "anatomy"), None)
    told = layer.metadata[KEY]
    colour, ink = GROUNDS[ground]
    unit = layer.metadata.get("unit") or unit_of_table(Path(layer.metadata["path"]))
    mirrored = AnatomicalView.of(viewer).mirrors("R")
    slices = SliceStyle(unit, style.n_slices, 1.0, look.fraction, sign=look.sign, mirrored=mirrored)
    slices = replace(slices, named=True, outline_colours=REGION_COLOURS, ground=colour, ink=ink)
    strip = docked.find(viewer, PictureStrip) if pictures else None
    images = dict(strip.images) if strip is not None else {}
    if images:
        style = replace(style, picture_title=f"stimulus {strip.stimulus}")
    paths = Path(anatomy) if anatomy else None, Path(told["output"]) if told.get("output") else None
    target = layer.metadata.get("target") or told["target"]
    return FigurePlan(Path(layer.metadata["path"]), target, look, *paths, regions, slices, style, images)


def unit_of_table(path: Path) -> str:
    """What the shares of a map are fractions of, from the table beside it."""
    table = path.with_name(KINDS["shares"].name(sub=path.name.partition("_")[0]))
    rows = read_rows(table) if table.is_file() else []
    return unit_of(rows[0].kind if rows else "")


def draw(path: Path, plan: FigurePlan, progress: Progress) -> str:
    """Read the files, draw and write; says what was written."""
    progress(0, 0, "drawing the figure")
    volume = open_volume(plan.map, "map", 3)
    values = checked_values(volume)
    extremes = {"positive": values.max(), "negative": -values.min(), "both": np.abs(values).max()}
    anatomy = open_volume(plan.anatomy, "anatomy", 3) if plan.anatomy is not None else None
    box = bounds(values if anatomy is None else np.asanyarray(anatomy.dataobj), (anatomy or volume).affine)
    limit = max(float(extremes[plan.look.sign]), float(np.finfo(np.float32).tiny))
    masks = roi_masks(regions_of(plan)) if plan.regions else []
    scene = Scene(values, volume.affine, anatomy, masks, box, limit, plan.slices)
    return f"Written: {write_figure(path, scene, plan.pictures, plan.style, plan.views)}"


def regions_of(plan: FigurePlan) -> list[Rois]:
    """The first family of regions of the map's output folder, as the Contribution page shows it first."""
    if plan.output is None:
        return []
    subjects = find_outputs(plan.output)
    label = plan.map.name.partition("_")[0]
    outputs = subjects.get(label) or next(iter(subjects.values()))
    first = next(((name, path) for name, path in outputs.regions.items() if name == "prf-visualrois"), None)
    named = first or next(iter(outputs.regions.items()), None)
    if named is None:
        return []
    family = read_family(*named)
    return [Rois(family.name, family.volume.values, family.names, family.volume.affine)]


def views_of(viewer: "napari.Viewer") -> tuple[tuple[str, np.ndarray], ...]:
    """The canvas in 3-D from four sides; camera, letters and bars are put back."""
    camera, dims = viewer.scene.camera, viewer.dims
    before, order = (dims.ndisplay, camera.angles, camera.zoom, camera.center), dims.order
    overlays = {name: one.visible for name, one in viewer.canvas.overlays.items()}
    layer = shown_map(viewer)
    bar = layer.colorbar.visible if layer is not None else False
    taken = []
    try:
        dims.ndisplay = 3
        dims.order = tuple(range(dims.ndim))
        QtWidgets.QApplication.processEvents()  # the Contribution page makes its surfaces
        viewer.reset_view()
        camera.zoom *= MARGIN
        if layer is not None:
            layer.colorbar.visible = False
        for name in overlays:
            viewer.canvas.overlays[name].visible = False
        for name, directions in SIDES.items():
            camera.set_view_direction(*directions)
            taken.append((name, viewer.screenshot(canvas_only=True, flash=False)[..., :3]))
    finally:
        dims.ndisplay, dims.order = before[0], order
        camera.angles, camera.zoom, camera.center = before[1:]
        for name, visible in overlays.items():
            viewer.canvas.overlays[name].visible = visible
        if layer is not None:
            layer.colorbar.visible = bar
    return tuple(taken)


class ExportFigure(QtWidgets.QDialog):
    """Choices of the figure; Save asks for a name, and a thread draws."""

    written = Signal(str)
    failed = Signal(str)

    def __init__(self, viewer: "napari.Viewer", parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = unwrapped(viewer)
        self.setWindowTitle("Export figure")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        layer = shown_map(self.viewer)
        told = layer.metadata if layer is not None else {}
        target = told.get("target") or told.get(KEY, {}).get("target")
        self.title = QtWidgets.QLineEdit(f"Contribution to {target_name(target)}" if target else "")
        self.title.setToolTip("Above the figure")
        self.kind = QtWidgets.QComboBox(toolTip="Slices where the contribution is, or the 3-D canvas from four sides")
        self.kind.addItems([*PLANES, SURFACES])
        self.kind.setCurrentText("axial")
        self.n = QtWidgets.QSpinBox(minimum=1, maximum=30, value=6, toolTip="Slices; of each plane for all three")
        self.columns = QtWidgets.QSpinBox(
            minimum=1, maximum=10, value=FigureStyle.columns, toolTip="Slices or views in a row"
        )
        self.kind.currentTextChanged.connect(self._fill_rows)
        self.ground = QtWidgets.QComboBox(toolTip="White for a page, dark for a talk")
        self.ground.addItems(list(GROUNDS))
        self.dpi = QtWidgets.QSpinBox(minimum=50, maximum=1200, value=300, suffix=" dpi")
        self.dpi.setToolTip("Pixels per inch of a PNG, and of the slices in a PDF")
        self.regions = QtWidgets.QCheckBox("Outlines and names of regions", checked=True)
        self.regions.setToolTip("Of the first family in the map's output folder")
        strip = docked.find(self.viewer, PictureStrip)
        self.pictures = QtWidgets.QCheckBox("Seen image and reconstructions", checked=strip is not None)
        self.pictures.setEnabled(strip is not None and bool(strip.images))
        self.pictures.setToolTip("Those that the Pictures dock shows, beside the brain")
        self.message = QtWidgets.QLabel("" if layer is not None else NO_MAP, wordWrap=True)
        self.save = button("Save…", "Asks for a name that ends with .png or .pdf", self._choose)
        self.save.setEnabled(layer is not None)
        size = side_by_side(self.n, QtWidgets.QLabel("in rows of"), self.columns, wide=3)
        rows = form(None, ("Title", self.title), ("Brain", self.kind), ("Slices", size), ("Background", self.ground))
        add(QtWidgets.QVBoxLayout(self), rows, self.regions, self.pictures, self.dpi, self.message, self.save)
        self.written.connect(self.message.setText)
        self.failed.connect(self.message.setText)

    def _fill_rows(self, kind: str) -> None:
        """Four views fill two rows of two."""
        self.columns.setValue(len(SIDES) // 2 if kind == SURFACES else FigureStyle.columns)
        self.n.setEnabled(kind != SURFACES)

    def style_wanted(self) -> FigureStyle:
        """What the controls say."""
        plane = self.kind.currentText() if self.kind.currentText() in PLANES else "axial"
        sizes = {"n_slices": self.n.value(), "columns": self.columns.value(), "dpi": self.dpi.value()}
        return FigureStyle(self.title.text(), plane, **sizes)

    def _choose(self) -> None:
        path, _ = QtWidgets.QFileDialog.getSaveFileName(self, "Export figure", "figure.png", "PNG (*.png);;PDF (*.pdf)")
        if path:
            self.write(Path(path))

    def write(self, path: Path) -> None:
        """Draw into a file; `written` or `failed` says how it ended."""
        try:
            plan = plan_of(self.viewer, self.style_wanted(), *self._wanted())
            if self.kind.currentText() == SURFACES:
                plan = replace(plan, views=views_of(self.viewer))
        except UserError as error:
            self.failed.emit(str(error))
            return
        self.save.setEnabled(False)
        self.message.setText("Drawing…")
        self.task = ThreadTask(partial(draw, path, plan))
        self.task.ended.connect(self._ended)
        self.task.start()

    def _wanted(self) -> tuple[str, bool, bool]:
        return self.ground.currentText(), self.regions.isChecked(), self.pictures.isChecked()

    def _ended(self, result: Any) -> None:
        self.save.setEnabled(True)
        if isinstance(result, UserError):
            self.failed.emit(str(result))
        elif isinstance(result, Exception):
            raise result
        else:
            self.written.emit(result)


def export_figure(viewer: "napari.Viewer") -> None:
    """Open the dialog."""
    dialog = ExportFigure(viewer, window_of(viewer))
    dialog.setModal(False)
    dialog.show()
