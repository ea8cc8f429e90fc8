"""The Contribution panel: threshold, sign and outlines, live."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.outlines import fine
from napari_neuraldiffuser.widgets.maps.overlay import ALL, PERCENT, SHARE
from napari_neuraldiffuser.widgets.maps.subject_maps import USED
from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from tests.support.window.contribution_page import choose, finish, read, row_of
from tests.support.window.output_folder import AFFINE, PEAK
from tests.support.window.viewers import settle


def test_threshold_acts_live_on_one_layer(panel, viewer):
    layer = viewer.layers["contribution"]
    limits = []
    for value in range(100, 900, 200):
        panel.look.slider.setValue(value)
        limits.append(layer.contrast_limits[0])
    assert limits == pytest.approx([0.1, 0.3, 0.5, 0.7])
    panel.look.value.setValue(25.0)
    assert layer.contrast_limits[0] == pytest.approx(0.25)
    assert panel.look.slider.value() == 250
    panel.look.opacity.setValue(30)
    assert layer.opacity == pytest.approx(0.3)


def test_another_target_keeps_threshold_slice_and_layer(panel, viewer):
    identity = viewer.layers["contribution"].unique_id
    panel.look.slider.setValue(400)
    viewer.dims.set_point(0, 10.0)
    choose(panel, "g02")
    layer = viewer.layers["contribution"]
    assert layer.unique_id == identity
    assert layer.contrast_limits == pytest.approx([0.8, 2.0])
    assert viewer.dims.point[0] == 10.0
    # in units of the share, the share stays
    panel.look.unit.setCurrentText(SHARE)
    assert panel.look.value.value() == pytest.approx(0.8)
    choose(panel, "c")
    assert viewer.layers["contribution"].contrast_limits == pytest.approx([0.8, 1.0])
    panel.look.unit.setCurrentText(PERCENT)
    assert panel.look.value.value() == pytest.approx(80)


def test_signs(panel, viewer):
    layer = viewer.layers["contribution"]
    panel.look.slider.setValue(500)
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("negative"))
    assert layer.contrast_limits == pytest.approx([-0.5, -0.25])
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("both"))
    assert layer.contrast_limits == pytest.approx([-1, 1])
    assert layer.colormap.map(np.array([0.0, 0.5, 1.0]))[:, 3].tolist() == [1, 0, 1]


def test_look_is_remembered(panel, viewer, session, qtbot):
    panel.look.sign.setCurrentIndex(2)
    panel.look.slider.setValue(330)
    panel.regions.width.setValue(3)
    panel._store()
    again = ContributionPanel(viewer, session)
    qtbot.addWidget(again)
    finish(again, qtbot)
    assert again.look.look() == panel.look.look()
    assert again.regions.width.value() == 3
    again.restore({"sign": "sideways", "fraction": "x", "opacity": float("nan"), "width": None, "unit": 3})
    assert again.look.look().sign == "positive"


def test_outlines(panel, viewer):
    layer = viewer.layers["outlines prf-visualrois"]
    assert (layer.contour, layer.visible) == (1, True)
    panel.regions.width.setValue(2)
    assert layer.contour == 2
    panel.regions.family.setCurrentText(ALL)
    assert viewer.layers["outlines floc-faces"].visible
    panel.regions.family.setCurrentText("floc-faces")
    assert not layer.visible
    assert viewer.layers["outlines floc-faces"].visible
    panel.regions.outlined.setChecked(False)
    assert not viewer.layers["outlines floc-faces"].visible


def test_what_the_decoder_uses_is_outlined(panel, viewer):
    unused = np.zeros(panel.maps.maps["c"].values.shape, bool)
    unused[0], unused[:, :2] = True, True
    for volume in panel.maps.maps.values():
        volume.values[unused] = 0
    panel.used.setChecked(True)
    layer = viewer.layers[f"outlines {USED}"]
    assert (layer.contour, layer.visible) == (1, True)
    for index in [(0, 3, 3), (3, 1, 3), (3, 3, 3), (5, 6, 7)]:
        at = tuple(np.rint(layer.world_to_data(apply_affine(AFFINE, index)[::-1])).astype(int))
        assert layer.data[at] == (not unused[index]), index
    assert layer.colormap.map(1).ravel().tolist() == [1, 1, 1, 1]
    assert viewer.layers["outlines prf-visualrois"].visible
    panel.used.setChecked(False)
    assert not layer.visible


def test_regions_of_the_viewer_are_used_and_get_their_look_back(empty, viewer, out_dir, qtbot):
    volume = next((out_dir / "sub-01" / "anat").glob("*prf*.nii.gz"))
    data, keywords, _ = maps.volume_layer(nib.load(volume), volume)
    names = {"index": [0, 1, 2], "roi": ["", "V1v", "V2v"]}
    told = {"neuraldiffuser": {"kind": "roi", "family": "prf-visualrois"}}
    placing = {key: keywords[key] for key in ("affine", "units", "axis_labels")}
    layer = viewer.add_labels(data, name="mine", features=names, metadata=told, **placing)
    for path in (out_dir / "sub-01" / "anat").iterdir():
        path.unlink()
    read(empty, out_dir, qtbot)
    assert list(empty.families) == ["prf-visualrois"]
    assert not layer.visible
    assert viewer.layers["outlines prf-visualrois"].visible
    empty.go_to("prf-visualrois", "V1v")
    np.testing.assert_allclose(viewer.dims.point[::-1], apply_affine(AFFINE, PEAK))
    empty.regions.outlined.setChecked(False)
    assert layer.visible
    assert not viewer.layers["outlines prf-visualrois"].visible


def test_outlines_follow_the_plane_and_leave_the_slice(panel, viewer, qtbot):
    layer, place = viewer.layers["outlines prf-visualrois"], tuple(viewer.dims.point)
    shapes = {}
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        viewer.dims.order = order
        qtbot.waitUntil(lambda: not panel._redraw_timer.isActive())
        shapes[order] = layer.data.shape
        assert layer.data.shape[order[0]] == viewer.layers["contribution"].data.shape[order[0]]
        assert viewer.dims.range[order[0]].step == 4.0
        np.testing.assert_allclose(viewer.dims.point, place, atol=1e-9)
        assert layer.visible
    assert len(set(shapes.values())) == 3


def in_3d(panel):
    panel.viewer.dims.ndisplay = 3


def another_plane(panel):
    panel.viewer.dims.order = (1, 0, 2)


def a_wider_line(panel):
    panel.regions.width.setValue(4)


def a_row(panel):
    panel.table.selectRow(row_of(panel, "V2v"))
    panel.go_to("prf-visualrois", "V2v")


def a_click(panel):
    panel.clicked(apply_affine(AFFINE, PEAK))


@pytest.mark.parametrize("act", [in_3d, another_plane, a_wider_line, a_row, a_click])
@pytest.mark.parametrize("before", [True, False])
def test_layers_that_the_user_removed_do_not_come_back(panel, viewer, qtbot, act, before):
    if before:
        act(panel)
    viewer.layers.clear()
    viewer.add_image(np.zeros((4, 5, 6)), name="other")
    if not before:
        act(panel)
    settle(panel._redraw_timer, panel._mark_timer)
    assert [layer.name for layer in viewer.layers] == ["other"]


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (0, 2), ()])
@pytest.mark.parametrize(("size", "k"), [(5.0, 5), (4.0, 3), (1.8, 1), (0.5, 1)])
def test_fine_labels_are_in_the_same_place(size, k, axes):
    labels = np.random.default_rng(0).integers(0, 300, (3, 4, 5))
    affine = nib.affines.from_matvec(np.diag([size, size, 2 * size]), [-7, 3, 11])
    placing = {"affine": affine, "units": ("mm",) * 3, "axis_labels": ("S", "A", "R"), "metadata": {}}
    data, keywords = fine(labels, placing, axes)
    assert data.shape == tuple((k if i in axes else 1) * n for i, n in enumerate(labels.shape))
    index = np.argwhere(np.ones(data.shape, bool))
    world = apply_affine(keywords["affine"], index)
    coarse = np.rint(apply_affine(np.linalg.inv(affine), world)).astype(int)
    np.testing.assert_array_equal(data[tuple(index.T)], labels[tuple(coarse.T)])
    corner = np.full(3, -0.5)
    np.testing.assert_allclose(apply_affine(keywords["affine"], corner), apply_affine(affine, corner))
