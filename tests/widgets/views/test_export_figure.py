"""Export figure: what the viewer shows goes onto the figure."""

import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.outputs.report.figure import FigureStyle
from napari_neuraldiffuser.widgets.files.view import AnatomicalView
from napari_neuraldiffuser.widgets.maps.overlay import Look, Overlay
from napari_neuraldiffuser.widgets.maps.subject_maps import read_map
from napari_neuraldiffuser.widgets.samples import result_folder
from napari_neuraldiffuser.widgets.views.figure import (
    NO_MAP,
    SIDES,
    SURFACES,
    ExportFigure,
    plan_of,
    regions_of,
    shown_map,
)
from napari_neuraldiffuser.widgets.views.pictures import PictureStrip

PLUGIN = "napari-neuraldiffuser"
ALL = FigureStyle(n_slices=1, width=4, dpi=50), "white", True, True


@pytest.fixture
def opened(viewer):
    viewer.open_sample(PLUGIN, "finished_result")
    return viewer


def overlay_of(viewer, target, look):
    path = next(result_folder().glob(f"sub-01/*target-{target}_contribution.nii.gz"))
    volume, overlay = read_map(path), Overlay(viewer)
    overlay.measure(volume)
    overlay.show(volume, look, {**volume.placing["metadata"], "target": target})
    return overlay


def test_the_plan_is_what_is_shown(opened):
    layer = opened.layers["contribution g12"]
    plan = plan_of(opened, *ALL)
    assert (plan.target, plan.slices.sign) == ("g12", "positive")
    assert plan.map.name == "sub-01_space-func1pt8mm_target-g12_contribution.nii.gz"
    assert plan.slices.threshold == pytest.approx(layer.contrast_limits[0] / layer.contrast_limits[1])
    assert plan.anatomy.name.endswith("T1w.nii.gz")
    assert plan.slices.label == "share of R²"  # as the table beside the map says
    assert not plan.slices.mirrored
    AnatomicalView.of(opened).choose("radiological")
    assert plan_of(opened, *ALL).slices.mirrored

    overlay_of(opened, "c", Look("both", 0.3))
    plan = plan_of(opened, *ALL)
    assert (plan.target, plan.slices.sign, plan.slices.threshold) == ("c", "both", 0.3)
    opened.layers["contribution"].visible = False
    assert plan_of(opened, *ALL).target == "g12", "what is hidden is not drawn"


def test_regions_are_those_of_the_folder(opened):
    (family,) = regions_of(plan_of(opened, *ALL))
    assert family.name == "prf-visualrois"
    assert {"V1v", "hV4"} <= set(family.names.values())


def test_pictures_are_those_of_the_strip(opened):
    strip = PictureStrip(opened)
    image = np.full((8, 8, 3), 7, np.uint8)
    strip.show_pictures({"seen": image}, 5)
    plan = plan_of(opened, *ALL)
    assert plan.style.picture_title == "stimulus 5"
    np.testing.assert_array_equal(plan.pictures["seen"], image)
    assert plan_of(opened, *ALL[:3], False).pictures == {}


@pytest.mark.parametrize("kind", ["axial", "all three"])
def test_the_dialog_writes_a_figure(opened, tmp_path, qtbot, kind):
    dialog = ExportFigure(opened)
    qtbot.addWidget(dialog)
    assert dialog.title.text() == "Contribution to g12, guidance layer 12"
    dialog.kind.setCurrentText(kind)
    for spin, value in ((dialog.n, 1), (dialog.dpi, 50)):
        spin.setValue(value)
    with qtbot.waitSignal(dialog.written) as written:
        dialog.write(tmp_path / "a.png")
    assert written.args == [f"Written: {tmp_path / 'a.png'}"]
    image = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert image.shape[1] == 10 * 50
    assert dialog.save.isEnabled()
    red = (image[..., 0].astype(int) - image[..., 2]) > 80
    assert red.sum() > 20, "the heat map is on it"


def test_views_fill_their_rows(opened, qtbot):
    dialog = ExportFigure(opened)
    qtbot.addWidget(dialog)
    dialog.kind.setCurrentText(SURFACES)
    assert len(SIDES) % dialog.style_wanted().columns == 0 and dialog.style_wanted().columns > 1
    assert not dialog.n.isEnabled(), "there are no slices"
    dialog.kind.setCurrentText("coronal")
    assert dialog.style_wanted().columns == FigureStyle().columns and dialog.n.isEnabled()


def test_a_closed_dialog_is_gone(opened, qtbot):
    dialog = ExportFigure(opened)
    dialog.show()
    with qtbot.waitSignal(dialog.destroyed):
        dialog.close()


def test_what_cannot_be_exported_is_said(viewer, opened, tmp_path, qtbot):
    dialog = ExportFigure(opened)
    qtbot.addWidget(dialog)
    with qtbot.waitSignal(dialog.failed) as failed:
        dialog.write(tmp_path / "a.jpg")
    assert "must end with .png or .pdf" in failed.args[0]
    assert not list(tmp_path.iterdir())
    opened.layers.clear()
    assert shown_map(opened) is None
    with pytest.raises(UserError, match="A contribution map must be shown"):
        plan_of(opened, *ALL)
    empty = ExportFigure(opened)
    qtbot.addWidget(empty)
    assert not empty.save.isEnabled()
    assert empty.message.text() == NO_MAP
