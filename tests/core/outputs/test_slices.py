"""Contribution slices: valid pictures that show the right place, on any grid."""

import io
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.outputs.report import slices
from napari_neuraldiffuser.core.outputs.report.slices import SliceError, SliceStyle, contribution_slices

SMALL = SliceStyle(width=6.0, dpi=60, spacing=2.0)


def head(mm, flip=False):
    """An ellipsoid head with one bright spot at (20, -60, 10) mm; optionally stored right to left."""
    shape = tuple(round(s / mm) for s in (140, 180, 150))
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = [-70, -100, -60]
    world = np.moveaxis(np.indices(shape), 0, -1) * mm + affine[:3, 3]
    brain = ((world / [65, 85, 65]) ** 2).sum(-1) < 1
    spot = np.linalg.norm(world - [20, -60, 10], axis=-1) < 9
    values = np.where(spot, 0.01, np.where(brain & (world[..., 1] < -30), 1e-5, 0))
    if flip:
        values, brain, spot = values[::-1], brain[::-1], spot[::-1]
        affine = affine @ np.array([[-1, 0, 0, shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    rois = SimpleNamespace(name="prf", labels=spot.astype(int), names={1: "V1v", 0: "Unknown"}, affine=affine)
    return nib.Nifti1Image(values, affine), nib.Nifti1Image(brain * 100.0, affine), rois


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("mm", [4.0, 1.8])
def test_slices_pass_through_the_contribution(mm):
    volume, _, _ = head(mm)
    planes = slices.choose_planes(slices.checked_values(volume), volume.affine, 1)
    assert [axis for axis, _ in planes] == [0, 1, 2]
    assert np.allclose([position for _, position in planes], [20, -60, 10], atol=mm)


def test_picture_has_brain_contribution_and_outline():
    volume, anatomy, rois = head(4.0)
    with_outline, without = (pixels(contribution_slices(volume, anatomy, r, SMALL)) for r in (rois, None))
    red, green, blue = np.moveaxis(without, -1, 0)
    assert ((red > 200) & (green > 150) & (blue < 220)).any()  # the spot
    assert ((abs(red - green) < 8) & (red > 120)).mean() > 0.1  # the grey head
    cyan = np.array([0x4C, 0xC9, 0xF0])
    assert (abs(with_outline - cyan).sum(-1) < 60).any() and not (abs(without - cyan).sum(-1) < 20).any()


def test_storage_order_of_the_volume_does_not_matter():
    plain, flipped = (pixels(contribution_slices(*head(4.0, flip), SMALL)) for flip in (False, True))
    assert abs(plain - flipped).max() <= 2


def test_right_is_on_the_right():
    volume, anatomy, _ = head(4.0)
    box = slices.bounds(anatomy.get_fdata(), anatomy.affine)
    scene = slices.Scene(slices.checked_values(volume), volume.affine, anatomy, [], box, 0.01, SMALL)
    points, extent = slices.plane_points(scene.box, 2, 10.0, 2.0)
    columns = np.argwhere(np.nan_to_num(slices._contribution_at(scene, points)) > 0.005)[:, 1]
    middle = extent[0] + 2.0 * columns.mean()
    assert middle == pytest.approx(20, abs=3)


def test_background_may_have_another_grid():
    volume, _, rois = head(4.0)
    _, anatomy, _ = head(3.0)
    assert pixels(contribution_slices(volume, anatomy, [rois], SMALL)).std() > 10


def blue_pixels(png):
    image = pixels(png)
    return (image[..., 2] > image[..., 0] + 60).sum()


def test_small_negative_shares_keep_one_sided_colours_and_large_ones_do_not():
    volume, anatomy, _ = head(4.0)
    values = volume.get_fdata()
    values[values == 1e-5] = np.resize([1e-5, -1e-5], (values == 1e-5).sum())
    noise, signal = (nib.Nifti1Image(v, volume.affine) for v in (values, np.sign(values)))
    assert blue_pixels(contribution_slices(noise, anatomy, None, SMALL)) == 0
    assert blue_pixels(contribution_slices(signal, anatomy, None, SMALL)) > 0


def test_dorsal_and_ventral_parts_are_one_outline():
    labels = np.zeros((4, 4, 4), int)
    labels[0], labels[1], labels[2] = 1, 2, 3
    rois = SimpleNamespace(name="prf", labels=labels, names={1: "V1v", 2: "V1d", 3: "hV4", 4: "V2v"}, affine=np.eye(4))
    masks = slices.roi_masks(rois)
    assert [name for name, _, _ in masks] == ["V1", "hV4"]
    assert masks[0][1].sum() == 32


@pytest.mark.parametrize("values", [np.zeros((5, 5, 5)), np.full((5, 5, 5), np.nan), np.ones((4, 4, 4, 2))])
def test_empty_or_four_dimensional_volumes_are_named(values):
    with pytest.raises(SliceError, match="volume must be three-dimensional"):
        contribution_slices(nib.Nifti1Image(values, np.eye(4)), None, None, SMALL)
