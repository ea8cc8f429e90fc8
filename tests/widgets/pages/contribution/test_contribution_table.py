"""The Contribution panel keeps table, slice and outlines together."""

from dataclasses import replace

import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.outlines import SELECTED
from napari_neuraldiffuser.widgets.maps.overlay import ALL, TITLE
from napari_neuraldiffuser.widgets.maps.probe import UNUSED
from napari_neuraldiffuser.widgets.maps.region_names import LAYER_NAME
from napari_neuraldiffuser.widgets.maps.roi_table import FRACTION, SHARE
from tests.support.window.contribution_page import PATIENCE, bold, choose, row_of, rows
from tests.support.window.output_folder import AFFINE, LOWEST, PEAK, PLACES


def test_table_is_sorted_and_filtered(panel):
    assert rows(panel) == ["V1v", "V2v", "outside prf-visualrois"]
    assert panel.table.item(0, SHARE).text() == "0.3000 ± 0.0100"
    panel.regions.family.setCurrentText(ALL)
    assert rows(panel) == ["V1v", "FFA-1", "V2v", "outside prf-visualrois"]
    assert panel.table.item(1, SHARE).text() == "0.0500"  # no error of a single stimulus
    choose(panel, "g02")
    assert rows(panel)[:2] == ["V2v", "V1v"]
    grey = panel.table.item(3, 0).foreground().color()
    assert grey != panel.table.item(0, 0).foreground().color()


def test_regions_that_stand_out_from_permutations_have_a_mark(panel):
    tested = [replace(row, p=p) for row, p in zip(panel.table.rows, (0.01, 0.2, None), strict=True)]
    panel.table.fill(tested)
    texts = [panel.table.item(i, SHARE).text() for i in range(3)]
    assert [text.endswith(" •") for text in texts] == [True, False, False]
    assert "p = 0.01 by permutation" in panel.table.item(0, SHARE).toolTip()
    assert "permutation" not in panel.table.item(2, SHARE).toolTip()


def test_bars_share_one_zero_line(panel):
    bars = [panel.table.item(i, SHARE).data(FRACTION) for i in range(3)]
    assert bars[0] == pytest.approx((0.75, 0.25))  # from -0.1 to 0.3
    assert bars[1] == pytest.approx((-0.25, 0.25))
    assert bars[2][0] == 0  # what no region has is not drawn


def test_selecting_a_row_moves_to_the_peak_and_outlines_the_region(panel, viewer):
    panel.table.selectRow(row_of(panel, "V1v"))
    np.testing.assert_allclose(viewer.dims.point, apply_affine(AFFINE, PEAK)[::-1])
    layer = viewer.layers[SELECTED]
    expected = np.zeros((6, 7, 8), bool)
    expected[PLACES["V1v"]] = True
    for label, inside_region in ((1, True), (2, False)):  # the white ring is the region's, the black one around it
        drawn = apply_affine(layer.affine.affine_matrix, np.argwhere(layer.data == label))[:, ::-1]
        found = np.rint(apply_affine(np.linalg.inv(AFFINE), drawn)).astype(int)
        assert (expected[tuple(found.T)] == inside_region).all(), label
    middle = np.rint(layer.world_to_data(apply_affine(AFFINE, (2, 3, 4))[::-1])).astype(int)
    assert layer.data[tuple(middle)] == 0, "the voxels inside are free"
    assert "V1v (prf-visualrois)" in panel.voxel_text.text()
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("negative"))
    panel.table.selectRow(row_of(panel, "V2v"))
    np.testing.assert_allclose(viewer.dims.point, apply_affine(AFFINE, LOWEST)[::-1])
    assert panel.table.selected() == ("prf-visualrois", "V2v")
    choose(panel, "g02")
    assert panel.table.selected() == ("prf-visualrois", "V2v")


def test_clicking_a_voxel_selects_its_row_and_stays_in_the_slice(panel, viewer):
    viewer.dims.set_point(range(3), (2.0, -10.0, -12.0))
    before = viewer.dims.point
    panel.clicked(apply_affine(AFFINE, (4, 5, 6)))
    assert panel.table.selected() == ("prf-visualrois", "V2v")
    assert viewer.layers[SELECTED].visible
    assert viewer.dims.point == before
    panel.clicked(apply_affine(AFFINE, (0, 0, 0)))  # in no region
    assert panel.table.selected() is None
    assert SELECTED not in viewer.layers


def test_swatches_are_the_colours_of_the_outlines(panel, viewer):
    outlines = viewer.layers["outlines prf-visualrois"]
    for i, roi in enumerate(rows(panel)[:2]):
        colour = panel.table.item(i, 0).icon().pixmap(11).toImage().pixelColor(5, 5).getRgbF()
        label = int(outlines.features["index"][outlines.features["roi"] == roi].iloc[0])
        np.testing.assert_allclose(colour, outlines.colormap.map(label).ravel(), atol=0.01)
    assert panel.table.item(2, 0).icon().isNull()  # what is outside has no outline


def test_what_the_decoder_does_not_use_is_not_a_share_of_0(panel):
    row = panel.table.rows[0]
    panel.table.fill([replace(row, n_voxels=0, share=0.0), replace(row, roi="V2v", share=0.0)])
    texts = {roi: panel.table.item(i, SHARE).text() for i, roi in enumerate(rows(panel))}
    assert texts == {"V1v": "not used", "V2v": "0.0000 ± 0.0100"}
    for volume in panel.maps.maps.values():
        volume.values[0, 0, 0] = 0
    panel.clicked(apply_affine(AFFINE, (0, 0, 0)))
    assert UNUSED in panel.voxel_text.text()
    next(iter(panel.maps.maps.values())).values[0, 0, 0] = 1e-9
    panel.clicked(apply_affine(AFFINE, (0, 0, 0)))
    assert UNUSED not in panel.voxel_text.text()


def test_names_stand_in_their_regions_in_every_plane(panel, viewer, qtbot):
    panel.regions.family.setCurrentText(ALL)
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        viewer.dims.order = order
        qtbot.waitUntil(lambda: not panel._redraw_timer.isActive(), timeout=PATIENCE)
        layer = viewer.layers[LAYER_NAME]
        found = {}
        for point, name in zip(layer.data, layer.text.string.array, strict=True):
            index = np.rint(apply_affine(np.linalg.inv(AFFINE), layer.data_to_world(point)[::-1])).astype(int)
            assert inside(index, PLACES[name]), (name, index)
            found.setdefault(name, set()).add(int(index[2 - order[0]]))
        for name, box in PLACES.items():  # in every slice that the region is in
            across = box[2 - order[0]]
            assert found[name] == set(range(across.start, across.stop)), (order, name)
    panel.regions.named.setChecked(False)
    assert LAYER_NAME not in viewer.layers


UNITS = {"product-measure": "share of R²", "prediction-share": "share of the prediction", "": "share"}


@pytest.mark.parametrize(("kind", "unit"), UNITS.items())
def test_bar_table_and_voxel_have_one_unit_that_of_the_shares(panel, viewer, kind, unit):
    panel._take(replace(panel.maps, rows=[replace(row, kind=kind) for row in panel.maps.rows]))
    title = viewer.canvas.overlays[TITLE]
    for target in ("c", "g02"):
        choose(panel, target)
        assert title.visible
        assert title.text == f"{target}\n{unit}"
    assert panel.table.horizontalHeaderItem(SHARE).text().lower() == f"{unit} ± se".lower()
    panel.clicked(apply_affine(AFFINE, PEAK))
    assert f"{unit} in g02" in panel.voxel_text.text()
    panel._take(None)
    assert not title.visible


def test_selecting_what_is_outside_or_has_no_volume(panel, viewer):
    panel.table.selectRow(row_of(panel, "outside prf-visualrois"))
    index = maps.Volume.index(panel.maps.maps["c"], np.array(viewer.dims.point)[::-1])
    assert not any(inside(index, box) for box in PLACES.values())
    panel.families.pop("prf-visualrois")
    panel.go_to("prf-visualrois", "V1v")
    assert "has no label volume" in panel.message.text()


def inside(index, box):
    return all(s.start <= i < s.stop for i, s in zip(index, box, strict=True))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_the_slice_marks_the_regions_in_view(panel, viewer, qtbot, order):
    panel.regions.family.setCurrentText(ALL)
    viewer.dims.order = order
    across = 2 - order[0]  # axis of the file that the slider runs along
    for i in range((6, 7, 8)[across]):
        viewer.dims.set_point(order[0], apply_affine(AFFINE, (i,) * 3)[across])
        expected = {roi for roi, box in PLACES.items() if box[across].start <= i < box[across].stop}
        qtbot.waitUntil(lambda expected=expected: bold(panel) == expected, timeout=PATIENCE)
    viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: bold(panel) == set(), timeout=PATIENCE)


def test_links_with_a_4d_layer_in_the_viewer(panel, viewer, qtbot):
    layer = viewer.layers["contribution"]
    affine = np.eye(5)
    affine[1:, 1:] = layer.affine.affine_matrix
    viewer.add_image(np.zeros((3, *layer.data.shape)), affine=affine, units=("pixel", "mm", "mm", "mm"))
    viewer.dims.set_point(0, 2)
    panel.table.selectRow(row_of(panel, "V1v"))
    np.testing.assert_allclose(viewer.dims.point, [2, *apply_affine(AFFINE, PEAK)[::-1]])
    qtbot.waitUntil(lambda: bold(panel) == {"V1v"}, timeout=PATIENCE)
    viewer.dims.order = (1, 0, 2, 3)
    assert ("prf-visualrois", "V1v") in panel.in_view()


def test_many_slices_are_marked_once(panel, viewer, qtbot, monkeypatch):
    calls = []
    monkeypatch.setattr(panel.table, "mark", lambda found: calls.append(found))
    for value in np.linspace(-10, 15, 40):
        viewer.dims.set_point(0, float(value))
    assert calls == []
    qtbot.waitUntil(lambda: len(calls) == 1, timeout=PATIENCE)
