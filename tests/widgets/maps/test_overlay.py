"""The overlay layer: transparent inside the threshold in every look, one layer, no growing number of colormaps."""

import gc
import subprocess
import sys
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.maps import subject_maps as maps
from napari_neuraldiffuser.widgets.maps.overlay import LAYER_NAME, LEAST, TITLE, Look, Overlay, both_signs, colormap_of
from tests.support.window.output_folder import AFFINE, LOWEST, PEAK, write_map


@pytest.fixture
def volume(tmp_path):
    write_map(tmp_path / "map.nii.gz", 2)
    return maps.read_map(tmp_path / "map.nii.gz")


@pytest.fixture
def overlay(viewer, volume):
    made = Overlay(viewer)
    made.measure(volume)
    made.show(volume, Look(), {})
    return made


def alphas(overlay, shares):
    """Alpha of the colours of some shares, as the layer maps them."""
    low, high = overlay.layer.contrast_limits
    position = np.clip((np.array(shares) - low) / (high - low), 0, 1)
    return overlay.layer.colormap.map(position)[:, 3].tolist()


def test_layer_is_placed_in_mm(overlay, viewer):
    layer = viewer.layers[LAYER_NAME]
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.colorbar.visible
    assert viewer.canvas.overlays.scale_bar.visible
    for index, at in ((PEAK, layer.data.argmax()), (LOWEST, layer.data.argmin())):
        shown = np.unravel_index(at, layer.data.shape)
        np.testing.assert_allclose(layer.data_to_world(shown)[::-1], apply_affine(AFFINE, index))


def test_positive_look(overlay):
    overlay.apply(Look("positive", 0.5))
    assert overlay.layer.contrast_limits == pytest.approx([1.0, 2.0])
    assert alphas(overlay, [-1.0, 0.0, 0.99, 1.01, 2.0]) == [0, 0, 0, 1, 1]


def test_negative_look(overlay):
    overlay.apply(Look("negative", 0.5))
    assert overlay.layer.contrast_limits == pytest.approx([-1.0, -0.5])
    assert alphas(overlay, [-1.0, -0.51, -0.49, 0.0, 2.0]) == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_look_of_both_signs(overlay, fraction):
    overlay.apply(Look("both", fraction))
    assert overlay.layer.contrast_limits == pytest.approx([-2.0, 2.0])
    edge = 2 * fraction
    shares = [-2.0, -edge - 0.01, -edge + 0.01, 0.0, edge - 0.01, edge + 0.01, 2.0]
    assert alphas(overlay, shares) == pytest.approx([1, 1, 0, 0, 0, 1, 1])
    colours = overlay.layer.colormap.map(np.array([0.0, 0.5 - fraction / 2 - 0.01, 0.5 + fraction / 2 + 0.01, 1.0]))
    assert (colours[:2, 2] > colours[:2, 0]).all()  # blue takes away
    assert (colours[2:, 0] > colours[2:, 2]).all()  # red and yellow add


@pytest.mark.parametrize("sign", maps.SIGNS)
def test_a_threshold_of_nothing_colours_no_voxel_without_a_share(overlay, sign):
    overlay.apply(Look(sign, 0.0))
    assert alphas(overlay, [0.0]) == [0]
    assert overlay.limits(Look(sign, 1.0))[0] < overlay.limits(Look(sign, 1.0))[1]


@pytest.mark.parametrize("sign", maps.SIGNS)
def test_a_map_without_shares_of_that_sign_shows_nothing(viewer, sign):
    empty = maps.make_volume(np.zeros((3, 4, 5), np.float32), np.eye(4), "empty.nii.gz")
    overlay = Overlay(viewer)
    overlay.measure(empty)
    overlay.show(empty, Look(sign), {})
    assert overlay.largest(sign) == 0
    assert alphas(overlay, [0.0]) == [0]


def test_other_data_use_the_same_layer_and_slice(overlay, viewer, tmp_path):
    identity = viewer.layers[LAYER_NAME].unique_id
    viewer.dims.set_point(0, 6.0)
    write_map(tmp_path / "b.nii.gz", 3)
    other = maps.read_map(tmp_path / "b.nii.gz")
    overlay.measure(other)
    overlay.show(other, Look("positive", 0.25), {"a": 1})
    assert len(viewer.layers) == 1
    assert viewer.layers[LAYER_NAME].unique_id == identity
    assert viewer.dims.point[0] == 6.0
    assert overlay.layer.contrast_limits == pytest.approx([0.75, 3.0])
    # another grid needs another layer
    wide = maps.make_volume(np.ones((3, 4, 5), np.float32), np.eye(4), "wide.nii.gz")
    overlay.measure(wide)
    overlay.show(wide, Look(), {})
    assert [layer.name for layer in viewer.layers] == [LAYER_NAME]
    assert viewer.layers[LAYER_NAME].data.shape == (5, 4, 3)


def test_a_layer_that_the_user_removed_comes_back(overlay, viewer, volume):
    viewer.layers.clear()
    overlay.apply(Look("both"))  # nothing to change
    assert len(viewer.layers) == 0
    overlay.show(volume, Look(), {})
    assert LAYER_NAME in viewer.layers


def test_the_title_is_there_with_its_map_alone(overlay, viewer, volume):
    title = viewer.canvas.overlays[TITLE]
    overlay.show(volume, Look(), {"target": "z", "unit": "share of R²"})
    assert (title.text, title.visible) == ("z\nshare of R²", True)
    viewer.add_image(np.zeros((3, 4, 5)), name="other")
    viewer.layers.remove("other")
    assert title.visible
    overlay.layer.visible = False
    assert not title.visible
    overlay.layer.visible = True
    assert title.visible
    viewer.layers.clear()
    assert not title.visible
    viewer.add_image(np.zeros((3, 4, 5)), name="another volume")
    assert not title.visible
    overlay.show(volume, Look(), {"target": "c"})
    assert title.visible
    overlay.remove()
    assert not title.visible


def test_another_overlay_has_the_same_layer(overlay, viewer, volume):
    other = Overlay(viewer)
    assert other.layer is overlay.layer
    overlay.layer.name = "mine"
    other.measure(volume)
    other.show(volume, Look("negative", 0.5), {})
    assert [layer.name for layer in viewer.layers] == ["mine"]
    assert overlay.layer.contrast_limits == pytest.approx([-1.0, -0.5])
    other.remove()
    assert not overlay.shown


def test_the_colormap_of_both_signs_is_one_object():
    first = both_signs(0.2)
    assert both_signs(0.6) is first
    assert first.controls[4:8] == pytest.approx([0.2, 0.2, 0.8, 0.8])
    assert colormap_of(Look("both", 0.0)).controls[4] == pytest.approx(0.5 - LEAST / 2)


@pytest.mark.slow
@pytest.mark.parametrize("sign", maps.SIGNS)
def test_memory_is_flat_over_500_thresholds(overlay, viewer, qapp, sign):
    from napari.utils.colormaps import AVAILABLE_COLORMAPS, Colormap
    from vispy.color import Colormap as VispyColormap

    def change(n):
        for i in range(n):
            overlay.apply(Look(sign, 0.05 + 0.9 * (i % 97) / 97))
            qapp.processEvents()
        gc.collect()

    def counts():
        objects = [type(thing) for thing in gc.get_objects()]
        return len(AVAILABLE_COLORMAPS), objects.count(Colormap), objects.count(VispyColormap), len(objects)

    change(100)
    before = counts()
    tracemalloc.start()
    change(500)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    after = counts()
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 200
    assert grown < 4e6, "bytes that Python and NumPy took and did not give back"


def test_reader_through_napari(viewer, tmp_path):
    path = tmp_path / "sub-01_space-func1pt8mm_target-c_contribution.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((4, 5, 6), dtype=np.float32), AFFINE), path)
    (layer,) = viewer.open(path, plugin="napari-neuraldiffuser")
    assert tuple(layer.axis_labels) == ("S", "A", "R")


def test_importing_the_widgets_does_not_import_torch():
    code = (
        "import sys, napari_neuraldiffuser.widgets.pages.contribution, napari_neuraldiffuser.widgets.pages.report;"
        "sys.exit(sum(m in sys.modules for m in ('torch', 'nipype', 'diffusers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
