"""The map seen through the brain, against a maximum over the array's own axes."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core.outputs.report.glass import glass_brain, seen_through
from napari_neuraldiffuser.core.outputs.report.slices import Scene, SliceError, SliceStyle, bounds, limit_of
from tests.core.outputs.test_slices import SMALL, head, pixels


def scene_of(volume, background=None):
    values = np.asarray(volume.dataobj)
    ground = volume if background is None else background
    box = bounds(np.asarray(ground.dataobj), ground.affine)
    return Scene(values, volume.affine, background, [], box, limit_of(values), SliceStyle())


@pytest.mark.parametrize("flip", [False, True])
def test_each_line_of_sight_shows_the_share_of_largest_magnitude(flip):
    rng = np.random.default_rng(2)
    shape = (9, 11, 7)
    values = np.where(rng.random(shape) < 0.2, rng.normal(size=shape), 0)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    stored = values[::-1] if flip else values
    if flip:
        affine = affine @ np.array([[-1, 0, 0, shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    scene = scene_of(nib.Nifti1Image(np.ascontiguousarray(stored), affine))
    for axis in range(3):
        seen, inside, _ = seen_through(scene, axis)
        place = np.abs(values).argmax(axis=axis)
        strongest = np.take_along_axis(values, np.expand_dims(place, axis), axis).squeeze(axis).T
        # the box has a margin of two voxels: what is in it must be the array, all else empty
        found = seen[~np.isnan(seen).all(axis=1)][:, ~np.isnan(seen).all(axis=0)]
        wanted = strongest[(strongest != 0).any(axis=1)][:, (strongest != 0).any(axis=0)]
        np.testing.assert_array_equal(np.nan_to_num(found), wanted)
        np.testing.assert_array_equal(inside, ~np.isnan(seen))


def test_the_spot_is_where_it_is_in_the_head_whatever_the_order_of_voxels():
    for flip in (False, True):
        volume, brain, _ = head(4.0, flip)
        assert (pixels(glass_brain(volume, brain, SMALL)) > 60).any()
        seen, inside, extent = seen_through(scene_of(volume, brain), 0)
        row, column = np.unravel_index(np.nanargmax(seen), seen.shape)
        y = np.linspace(extent[0], extent[1], seen.shape[1])[column]
        z = np.linspace(extent[2], extent[3], seen.shape[0])[row]
        assert abs(y + 60) < 10 and abs(z - 10) < 10
        assert inside.mean() > 0.5


def test_an_empty_map_is_refused():
    with pytest.raises(SliceError, match="a finite value other than 0"):
        glass_brain(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)))
