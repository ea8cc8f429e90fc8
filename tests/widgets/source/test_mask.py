"""Masks that are painted in the viewer: on the betas' grid whatever its orientation, and refused on another."""

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from nibabel.affines import apply_affine

from napari_neuraldiffuser.core.nsd.reading.volumes import check_grid, read_volume
from napari_neuraldiffuser.widgets.source.mask import MaskError, mask_on_grid, new_mask_layer, write_mask

SHAPE = (6, 8, 5)
GRIDS = {
    "RAS": np.array([[2.0, 0, 0, -7], [0, 2, 0, -9], [0, 0, 3, -4], [0, 0, 0, 1]]),
    "LAS": np.array([[-2.0, 0, 0, 7], [0, 2, 0, -9], [0, 0, 3, -4], [0, 0, 0, 1]]),
    "LPS": np.array([[-2.0, 0, 0, 7], [0, -2, 0, 9], [0, 0, 3, -4], [0, 0, 0, 1]]),
    # the first axis of the file runs towards superior, the last towards right
    "SAR": np.array([[0, 0, 3.0, -7], [0, 2, 0, -9], [2, 0, 0, -4], [0, 0, 0, 1]]),
}


@pytest.fixture
def viewer(qtbot):
    """Without a window, which layers do not need."""
    return ViewerModel()


def described(affine, shape=SHAPE):
    return {"shape": list(shape), "affine": np.asarray(affine).tolist()}


def paint(layer, place):
    """Label the voxel at a place (right, anterior, superior) in mm."""
    index = np.rint(layer.world_to_data(place[::-1])).astype(int)
    layer.data[tuple(index)] = 1
    layer.refresh()


@pytest.mark.parametrize("name", list(GRIDS))
def test_what_is_painted_at_a_place_is_the_voxel_at_that_place(name, viewer, tmp_path):
    affine = GRIDS[name]
    layer = new_mask_layer(viewer, described(affine))
    voxels = [(1, 2, 3), (5, 0, 4), (0, 7, 0)]
    for voxel in voxels:
        paint(layer, apply_affine(affine, voxel))
    path, n_voxels = write_mask(layer.as_layer_data_tuple(), described(affine), tmp_path)
    values, written = read_volume(path)
    assert n_voxels == 3
    assert {tuple(v) for v in np.argwhere(values)} == set(voxels)
    check_grid("mask", (values.shape, written), (SHAPE, affine))


def test_a_new_layer_is_ready_to_paint(viewer):
    viewer.dims.ndisplay = 3
    layer = new_mask_layer(viewer, described(GRIDS["LAS"]))
    assert [one.name for one in viewer.layers.selection] == [layer.name]
    assert (layer.mode, layer.selected_label, viewer.dims.ndisplay) == ("paint", 1, 2)
    assert layer.axis_labels == ("S", "A", "R")
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    assert not layer.data.any()
    layer.paint((1, 2, 3), 1)
    assert layer.data[1, 2, 3] == 1
    assert new_mask_layer(viewer, described(GRIDS["LAS"])).name != layer.name


def test_a_layer_of_the_other_orientation_is_turned(viewer, tmp_path):
    """A layer of a RAS file serves LAS betas: the voxels are the same ones."""
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = SHAPE[0] - 1
    las = GRIDS["RAS"] @ mirrored
    layer = new_mask_layer(viewer, described(GRIDS["RAS"]))
    paint(layer, apply_affine(GRIDS["RAS"], (1, 2, 3)))
    mask = mask_on_grid(layer.as_layer_data_tuple(), described(las))
    assert np.argwhere(mask).tolist() == [[SHAPE[0] - 2, 2, 3]]


@pytest.mark.parametrize("change", ["shape", "size", "origin"])
def test_another_grid_is_refused_with_the_way_to_the_right_one(change, viewer):
    affine, shape = GRIDS["RAS"].copy(), SHAPE
    if change == "shape":
        shape = (6, 8, 6)
    elif change == "size":
        affine[0, 0] = 2.2
    else:
        affine[1, 3] += 2.0
    layer = new_mask_layer(viewer, described(affine, shape))
    layer.data[2, 2, 2] = 1
    with pytest.raises(MaskError, match="must lie on the betas' grid .* Press 'New mask layer' and draw on that"):
        mask_on_grid(layer.as_layer_data_tuple(), described(GRIDS["RAS"]))


def test_a_layer_without_paint_is_refused(viewer):
    layer = new_mask_layer(viewer, described(GRIDS["RAS"]))
    with pytest.raises(MaskError, match="painted voxels, got none"):
        mask_on_grid(layer.as_layer_data_tuple(), described(GRIDS["RAS"]))


def test_a_layer_that_was_moved_is_refused(viewer):
    layer = new_mask_layer(viewer, described(GRIDS["RAS"]))
    layer.data[2, 2, 2] = 1
    layer.translate = (0, 4, 0)
    with pytest.raises(MaskError, match="betas' grid"):
        mask_on_grid(layer.as_layer_data_tuple(), described(GRIDS["RAS"]))


def test_an_oblique_grid_gets_its_own_voxels(viewer, tmp_path):
    """Shown resampled, brought back to the betas' voxels: a block stays where it is."""
    angle = np.deg2rad(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ GRIDS["RAS"]
    layer = new_mask_layer(viewer, described(affine))
    centre = apply_affine(affine, (3, 4, 2))
    index = np.rint(layer.world_to_data(centre[::-1])).astype(int)
    layer.data[tuple(slice(i - 1, i + 2) for i in index)] = 1
    path, _ = write_mask(layer.as_layer_data_tuple(), described(affine), tmp_path)
    values, written = read_volume(path)
    check_grid("mask", (values.shape, written), (SHAPE, affine))
    assert values[3, 4, 2] == 1
    np.testing.assert_allclose(np.argwhere(values).mean(axis=0), (3, 4, 2), atol=0.6)


def test_the_name_is_that_of_the_voxels(viewer, tmp_path):
    layer = new_mask_layer(viewer, described(GRIDS["RAS"]), name="my V1: left")
    layer.data[1, 1, 1] = 4
    first, _ = write_mask(layer.as_layer_data_tuple(), described(GRIDS["RAS"]), tmp_path)
    written = first.stat().st_mtime_ns
    again, _ = write_mask(layer.as_layer_data_tuple(), described(GRIDS["RAS"]), tmp_path)
    assert again == first
    assert again.stat().st_mtime_ns == written
    assert first.name.startswith("my-V1-left-")
    layer.data[1, 1, 2] = 1
    assert write_mask(layer.as_layer_data_tuple(), described(GRIDS["RAS"]), tmp_path)[0] != first
    assert write_mask(layer.as_layer_data_tuple(), described(GRIDS["RAS"]), tmp_path)[1] == 2
    assert set(np.unique(nib.load(first).get_fdata())) == {0, 1}
