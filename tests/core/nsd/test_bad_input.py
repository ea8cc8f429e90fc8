"""What is wrong with a tree is said plainly: which file, which rule, what to do."""

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.recipe import Source
from tests.support.nsd.tree import AFFINE, SHAPE, N, hdf5, volume


def test_a_folder_that_is_not_nsd_names_the_file(tmp_path):
    with pytest.raises(nsd.NSDError, match="no nsddata/experiments/nsd/nsd_expdesign.mat"):
        nsd.Subject(tmp_path, "subj01")
    with pytest.raises(nsd.NSDError, match="must be a folder"):
        nsd.Subject(tmp_path / "nowhere", "subj01")


def test_a_missing_subject_lists_those_there_are(tree):
    with pytest.raises(nsd.NSDError, match=r"one of \['subj02'\]"):
        nsd.Subject(tree.root, "subj01")
    with pytest.raises(nsd.NSDError, match="subj01 ... subj08"):
        nsd.Subject(tree.root, "sub-02")


@pytest.mark.parametrize("suffix", ["hdf5", "nii", "nii.gz"])
def test_a_truncated_session(tree, suffix):
    path = tree.betas / f"betas_session02.{suffix}"
    (tree.betas / "betas_session02.hdf5").unlink()
    (hdf5 if suffix == "hdf5" else volume)(path, tree.raw[2])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(nsd.NSDError, match="betas_session02.*truncated"):
        nsd.Subject(tree.root, "subj02").betas()


def test_a_file_that_is_no_hdf5_or_lacks_betas(tree):
    (tree.betas / "betas_session01.hdf5").write_text("not here: see the form")
    with pytest.raises(nsd.NSDError, match="session01.hdf5 must be session betas, got .* of another format"):
        nsd.Subject(tree.root, "subj02").betas()
    with h5py.File(tree.betas / "betas_session01.hdf5", "w") as file:
        file["other"] = 1
    with pytest.raises(nsd.NSDError, match="dataset 'betas'"):
        nsd.Subject(tree.root, "subj02").betas()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"betas/session": np.ones((2, 2, 2, 2))}, "got a group of session"),
        ({"betas": np.ones((2, 2, 2))}, r"got shape \(2, 2, 2\)"),
        ({"betas": h5py.ExternalLink("other.hdf5", "betas")}, "got a link to other.hdf5"),
        ({"betas": np.array([b"a"]).reshape(1, 1, 1, 1)}, "of real numbers"),
        ({}, "got nothing"),
    ],
)
def test_a_session_whose_betas_are_no_betas(tree, content, told):
    path = tree.betas / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        file.update(content)
    with pytest.raises(nsd.NSDError, match=f"session01.hdf5 must hold a dataset 'betas' of 4 axes .*{told}"):
        nsd.Subject(tree.root, "subj02").betas()
    with pytest.raises(nsd.NSDError, match="session01.hdf5 must hold a dataset 'betas' of 2 axes"):
        np.save(tree.root / "behav.npy", np.ones((2, 17)))
        nsd.mindeye_betas(path, tree.root / "behav.npy")


@pytest.mark.parametrize("suffix", ["hdf5", "nii.gz"])
def test_a_session_with_the_wrong_number_of_trials(tree, suffix):
    (tree.betas / "betas_session02.hdf5").unlink()
    write = hdf5 if suffix == "hdf5" else volume
    write(tree.betas / f"betas_session02.{suffix}", tree.raw[2][..., :749])
    with pytest.raises(nsd.NSDError, match=f"must hold {N} trials, got 749"):
        nsd.Subject(tree.root, "subj02").betas()


def test_a_session_of_another_shape(tree):
    hdf5(tree.betas / "betas_session02.hdf5", tree.raw[2].transpose(1, 0, 2, 3))
    with pytest.raises(nsd.NSDError, match="must have the betas' shape"):
        nsd.Subject(tree.root, "subj02").betas()


def test_an_roi_of_another_shape_or_affine(tree):
    volume(tree.roi / "streams.nii.gz", np.ones((7, 6, 4), np.int16))
    volume(tree.roi.parent / "brainmask.nii.gz", np.ones(SHAPE, np.int16))
    subject = nsd.Subject(tree.root, "subj02")
    with pytest.raises(nsd.NSDError, match=r"ROI streams must have the betas' shape \(7, 6, 5\), got \(7, 6, 4\)"):
        subject.rois("streams")
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    volume(tree.roi / "streams.nii.gz", np.ones(SHAPE, np.int16), moved)
    with pytest.raises(nsd.NSDError, match="ROI streams must have the betas' affine"):
        subject.rois("streams")
    rois = nsd.Rois("streams", np.ones(SHAPE, int), {1: "early"}, moved)
    with pytest.raises(nsd.NSDError, match="affine"):
        rois.of(subject.betas())


def test_an_empty_mask(tree):
    volume(tree.roi / "nsdgeneral.nii.gz", -np.ones(SHAPE, np.int16))
    with pytest.raises(nsd.NSDError, match="ROI nsdgeneral must have voxels above 0"):
        nsd.Subject(tree.root, "subj02").betas()


def test_an_unknown_roi_lists_those_available(tree):
    volume(tree.roi / "lh.floc-faces.nii.gz", np.ones(SHAPE, np.int16))
    with pytest.raises(nsd.NSDError, match=r"one of \['floc-faces', 'nsdgeneral'\].*'V1'"):
        nsd.Subject(tree.root, "subj02").rois("V1")


def test_no_sessions_at_all(tree):
    for path in tree.betas.iterdir():
        path.unlink()
    with pytest.raises(nsd.NSDError, match="betas_sessionNN.hdf5.*got none"):
        nsd.Subject(tree.root, "subj02").betas()


def test_all_voxels_constant(tree):
    hdf5(tree.betas / "betas_session02.hdf5", np.zeros((*SHAPE, N), np.int16))
    with pytest.raises(nsd.NSDError, match="signal in every session"):
        nsd.Subject(tree.root, "subj02").betas()


def test_a_broken_design(tree):
    (tree.root / "nsddata/experiments/nsd/nsd_expdesign.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut")
    with pytest.raises(nsd.NSDError, match="nsd_expdesign.mat must be a complete file"):
        nsd.Subject(tree.root, "subj02").betas()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["sub-01_betas.nii.gz"], "give the file: .*sub-01_betas.nii.gz, with --mask and --trials"),
        (["sub-02/func/sub-02_space-T1w_betas.nii"], "give the file: .*sub-02_space-T1w_betas.nii, with"),
        (["sub-01/func/sub-01_task-a_bold.nii.gz"], "neuraldiffuser betas"),
        (["derivatives/fmriprep/sub-01/ses-1/func/sub-01_task-a_desc-preproc_bold.nii.gz"], "neuraldiffuser betas"),
        (["other.txt"], "Give the folder that holds nsddata"),
    ],
)
def test_a_folder_that_is_no_nsd_folder_says_what_to_do_with_it(tmp_path, files, told):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(nsd.NSDError, match=f"must be an NSD folder.*{told}"):
        nsd.Subject(tmp_path, "subj01")


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("mask", "trials.tsv", "a file of text, .*trials.tsv.*--mask FILE"),
        ("trials", "mask.nii.gz", "a volume, .*mask.nii.gz.*--trials FILE"),
        ("trials", "MASK.NII", "a volume"),
        ("mask", "", "got none.*--mask FILE"),
        ("trials", "absent.tsv", "which is no file.*--trials FILE"),
    ],
)
def test_own_files_in_each_other_s_place(tmp_path, name, given, told):
    files = {"betas": "betas.nii.gz", "mask": "m.nii", "trials": "t.tsv"} | {name: given}
    paths = {key: str(tmp_path / value) if value else "" for key, value in files.items()}
    for path in filter(None, paths.values()):
        if "absent" not in path:
            open(path, "w").close()
    with pytest.raises(nsd.NSDError, match=f"own scans must have {name}, .*{told}"):
        nsd.OwnScans(Source(subject="subj01", **paths))
