"""The Contribution panel in 3D: surfaces where the regions are, and both signs of a map in sight."""

import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.maps.overlay import RENDERING
from napari_neuraldiffuser.widgets.maps.surfaces import FAINT, FULL, LAYER_NAME
from tests.support.window.contribution_page import PATIENCE, row_of
from tests.support.window.output_folder import AFFINE, PLACES


def test_3d_has_surfaces_instead_of_outlines(panel, viewer, qtbot):
    assert LAYER_NAME not in viewer.layers
    viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: LAYER_NAME in viewer.layers, timeout=PATIENCE)
    assert not viewer.layers["outlines prf-visualrois"].visible
    layer = viewer.layers[LAYER_NAME]
    places = apply_affine(layer.affine.affine_matrix, layer.data[0])[:, ::-1]
    index = apply_affine(np.linalg.inv(AFFINE), places)
    boxes = [PLACES[roi] for roi in ("V1v", "V2v")]
    low = np.min([[s.start for s in box] for box in boxes], axis=0)
    high = np.max([[s.stop - 1 for s in box] for box in boxes], axis=0)
    assert (index > low - 1).all() and (index < high + 1).all()
    assert viewer.dims.range[0].step == 4.0

    panel.table.selectRow(row_of(panel, "V2v"))
    opacity = viewer.layers[LAYER_NAME].vertex_colors[:, 3]
    assert {round(float(one), 3) for one in opacity} == {FAINT, FULL}
    viewer.dims.ndisplay = 2
    qtbot.waitUntil(lambda: LAYER_NAME not in viewer.layers, timeout=PATIENCE)
    assert viewer.layers["outlines prf-visualrois"].visible


def test_names_are_seen_through_what_is_in_front(panel, viewer):
    layer = viewer.layers["region names"]
    assert layer.blending == layer.text.blending == "translucent_no_depth"


@pytest.mark.parametrize("sign", RENDERING)
def test_each_sign_is_rendered_so_that_it_is_seen(panel, viewer, sign):
    """Along a line of sight, the highest value hides negative shares and the lowest positive ones."""
    panel.look.sign.setCurrentIndex(panel.look.sign.findData(sign))
    layer = viewer.layers["contribution"]
    assert layer.rendering == {"positive": "mip", "negative": "minip", "both": "translucent"}[sign]
    assert layer.colormap.map(np.array([0.5]) if sign == "both" else np.array([sign == "negative"], float))[0, 3] == 0
