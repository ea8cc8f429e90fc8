"""The Contribution panel keeps table, slice and outlines together."""

import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.outlines import SELECTED
from napari_neuraldiffuser.widgets.maps.overlay import ALL
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


def test_bars_share_one_zero_line(panel):
    bars = [panel.table.item(i, SHARE).data(FRACTION) for i in range(3)]
    assert bars[0] == pytest.approx((0.75, 0.25))  # from -0.1 to 0.3
    assert bars[1] == pytest.approx((-0.25, 0.25))
    assert bars[2][0] == 0  # what no region has is not drawn


def test_selecting_a_row_moves_to_the_peak_and_outlines_the_region(panel, viewer):
    panel.table.selectRow(row_of(panel, "V1v"))
    np.testing.assert_allclose(viewer.dims.point, apply_affine(AFFINE, PEAK)[::-1])
    layer = viewer.layers[SELECTED]
    drawn = apply_affine(layer.affine.affine_matrix, np.argwhere(layer.data))[:, ::-1]
    found = np.unique(np.rint(apply_affine(np.linalg.inv(AFFINE), drawn)).astype(int), axis=0)
    expected = np.zeros((6, 7, 8), bool)
    expected[PLACES["V1v"]] = True
    np.testing.assert_array_equal(found, np.argwhere(expected))
    assert "V1v (prf-visualrois)" in panel.voxel_text.text()
    panel.look.sign.setCurrentIndex(panel.look.sign.findData("negative"))
    panel.table.selectRow(row_of(panel, "V2v"))
    np.testing.assert_allclose(viewer.dims.point, apply_affine(AFFINE, LOWEST)[::-1])
    assert panel.table.selected() == ("prf-visualrois", "V2v")
    choose(panel, "g02")
    assert panel.table.selected() == ("prf-visualrois", "V2v")


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
