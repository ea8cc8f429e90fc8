"""ROI volumes: merging of hemispheres, stored types, label tables."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.rois import parse_label_table, read_sides
from tests.support.nsd.tree import AFFINE, SHAPE, volume


def test_hemispheres_merge_and_float64_is_accepted(tree):
    left, right = -np.ones(SHAPE), -np.ones(SHAPE)
    left[:3], right[3:6] = 0, 0
    left[1, 2, 3], right[4, 2, 3], right[5, 5, 4] = 2, 1, 2
    volume(tree.roi / "lh.prf-visualrois.nii.gz", left)
    volume(tree.roi / "rh.prf-visualrois.nii.gz", right)
    table = tree.root / "nsddata/freesurfer/fsaverage/label/prf-visualrois.mgz.ctab"
    table.parent.mkdir(parents=True)
    table.write_text("0 Unknown\n1 V1v\t\n2\tV1d \n\n3 V2v\n")
    rois = nsd.Subject(tree.root, "subj02").rois("prf-visualrois")
    assert rois.names == {1: "V1v", 2: "V1d", 3: "V2v"}
    want = -np.ones(SHAPE, int)
    want[:6] = 0
    want[1, 2, 3], want[4, 2, 3], want[5, 5, 4] = 2, 1, 2
    np.testing.assert_array_equal(rois.labels, want)


def test_hemispheres_that_nibabel_saved_again_with_a_scaling(tree):
    left, right = -np.ones(SHAPE), np.where(np.indices(SHAPE)[0] > 3, np.indices(SHAPE)[1] % 4, -1.0)
    left[:3] = 2
    for side, values in (("lh", left), ("rh", right)):
        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        nib.save(nib.Nifti1Image(values, AFFINE, header), tree.roi / f"{side}.streams.nii.gz")
    stored = nib.load(tree.roi / "rh.streams.nii.gz").get_fdata()
    assert (stored != np.rint(stored)).any()
    np.testing.assert_array_equal(nsd.Subject(tree.root, "subj02").rois("streams").labels, np.maximum(left, right))


def test_the_subjects_own_table_comes_first_and_of_masks_voxels(tree):
    labels = np.zeros(SHAPE, np.int16)
    labels[tree.mask] = np.arange(tree.mask.sum()) % 3
    volume(tree.roi / "floc-faces.nii.gz", labels)
    for who, name in (("fsaverage", "wrong"), ("subj02", "OFA")):
        path = tree.root / f"nsddata/freesurfer/{who}/label/floc-faces.mgz.ctab"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"0 Unknown\n1 {name}\n")
    subject = nsd.Subject(tree.root, "subj02")
    masks = subject.rois("floc-faces").of(subject.betas())
    assert list(masks) == ["OFA", "floc-faces-2"]
    np.testing.assert_array_equal(masks["OFA"], np.arange(tree.mask.sum()) % 3 == 1)


def test_without_a_table_one_region_has_the_familys_name(tree):
    assert nsd.Subject(tree.root, "subj02").rois("nsdgeneral").names == {1: "nsdgeneral"}


def test_interpolated_labels_are_refused(tree):
    volume(tree.roi / "streams.nii.gz", np.full(SHAPE, 1.5))
    with pytest.raises(nsd.NSDError, match="whole-number labels"):
        nsd.Subject(tree.root, "subj02").rois("streams")


def test_label_table_with_colours_and_bad_lines(tmp_path):
    path = tmp_path / "x.mgz.ctab"
    path.write_text("# comment\n  1 V1 255 0 0 0\n2 mid ventral\n")
    assert parse_label_table(path) == {1: "V1", 2: "mid ventral"}
    path.write_text("V1 1\n")
    with pytest.raises(nsd.NSDError, match="<number> <name>"):
        parse_label_table(path)


def test_hemispheres_are_those_of_the_lh_and_rh_volumes(tmp_path):
    layout = Layout(tmp_path, "subj01")
    layout.roi_folder.mkdir(parents=True)
    assert read_sides(layout) is None
    labels = np.full((4, 1, 1), -1.0)
    for side, places in (("lh", [0, 1]), ("rh", [1, 2])):
        own = labels.copy()
        own[places] = [[[0.0]], [[3.0]]]
        nib.save(nib.Nifti1Image(own, np.eye(4)), layout.roi_folder / f"{side}.streams.nii.gz")
    # the second voxel is claimed by both, and nobody knows the last
    assert read_sides(layout).ravel().tolist() == [0, -1, 1, -1]
