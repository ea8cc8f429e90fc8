"""Own scans, on real volumes: nibabel's functional.nii and example4d.nii.gz, nilearn's template and masks."""

from pathlib import Path

import nibabel as nib
import nibabel.tests
import numpy as np
import pytest
from nilearn.datasets import load_mni152_gm_mask, load_mni152_template

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.user import read_user_trials
from napari_neuraldiffuser.core.params import BetasParams

DATA = Path(nibabel.tests.__file__).parent / "data"


def table(path, rows, header="trial\tstimulus\tsession"):
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture
def functional(tmp_path):
    """functional.nii (17, 21, 3, 20): a mask of its brighter half, two sessions of ten, five stimuli, two
    of them test."""
    image = nib.load(DATA / "functional.nii")
    values = np.asarray(image.dataobj)
    inside = values.mean(-1) > np.median(values.mean(-1))
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), image.affine), tmp_path / "mask.nii.gz")
    names = ["cat", "dog", "tree", "house", "7"]
    rows = [(t, names[t % 5], "ab"[t // 10], int(t % 5 >= 3)) for t in range(20)]
    trials = table(tmp_path / "trials.tsv", rows, "trial\tstimulus\tsession\ttest")
    return DATA / "functional.nii", tmp_path / "mask.nii.gz", trials, values[inside].T, inside


def test_functional_nii_with_mask_and_trials(functional):
    path, mask, trials, values, inside = functional
    betas = nsd.user_betas(path, mask, trials)
    halves = [values[:10].astype(np.float64), values[10:].astype(np.float64)]
    z = np.concatenate([(h - h.mean(0)) / np.where(h.std(0) > 0, h.std(0), np.nan) for h in halves])
    keep = np.isfinite(z).all(0)
    assert betas.stimulus_names == ["7", "cat", "dog", "house", "tree"]
    for row, name in enumerate(["7", "cat", "dog", "house", "tree"]):
        which = np.arange(20) % 5 == ["cat", "dog", "tree", "house", "7"].index(name)
        np.testing.assert_allclose(betas.data[row], z[which].mean(0)[keep], atol=1e-5)
    np.testing.assert_array_equal(betas.repeats, 4)
    np.testing.assert_array_equal(betas.shared, [True, False, False, True, False])
    np.testing.assert_array_equal(betas.voxels, np.argwhere(inside)[keep])
    assert sum(betas.dropped.values()) == (~keep).sum()
    image = nib.load(path)
    np.testing.assert_array_equal(betas.affine, image.affine)
    assert betas.space == "native" and betas.shape == image.shape[:3]


def test_example4d_gz_two_volumes_oblique_affine(tmp_path):
    image = nib.load(DATA / "example4d.nii.gz")
    values = np.asarray(image.dataobj)
    inside = np.zeros(image.shape[:3], np.uint8)
    inside[40:90, 30:60, 5:20] = 1
    nib.save(nib.Nifti1Image(inside, image.affine), tmp_path / "mask.nii")
    trials = table(tmp_path / "t.tsv", [(1, "b", 1), (0, "a", 1)])
    betas = nsd.user_betas(DATA / "example4d.nii.gz", tmp_path / "mask.nii", trials, BetasParams(zscore=False))
    picked = values[inside > 0].T
    varies = picked[0] != picked[1]
    np.testing.assert_array_equal(betas.data, picked[:, varies].astype(np.float32))
    assert betas.dropped == {"constant": int((~varies).sum())} and not varies.all()
    np.testing.assert_allclose(betas.to_volume(np.ones(betas.n_voxels)).affine, image.affine)
    with pytest.raises(nsd.NSDError, match="column 'test'"):
        betas.split()


def test_mni_template_with_nilearns_grey_mask(tmp_path):
    """Volumes scaled and shifted from the MNI template at 8 mm, masked by nilearn's own grey-matter mask."""
    template, grey = load_mni152_template(resolution=8), load_mni152_gm_mask(resolution=8)
    base = np.asarray(template.dataobj)
    series = np.stack([base * k + k * k for k in (1.0, 2.0, 4.0)], axis=-1)
    nib.save(nib.Nifti1Image(series, template.affine), tmp_path / "b.nii.gz")
    nib.save(grey, tmp_path / "grey.nii.gz")
    trials = table(tmp_path / "t.tsv", [(0, "x", "s"), (1, "y", "s"), (2, "x", "s")])
    betas = nsd.user_betas(tmp_path / "b.nii.gz", tmp_path / "grey.nii.gz", trials, BetasParams(zscore=False))
    where = np.asarray(grey.dataobj) > 0
    assert betas.n_voxels == where.sum() > 1000
    np.testing.assert_allclose(
        betas.data, np.stack([series[..., [0, 2]].mean(-1)[where], series[..., 1][where]]), rtol=1e-5
    )


def test_volumes_without_a_row_are_left_out_with_a_note(functional):
    path, mask, trials, values, _ = functional
    table(trials, [(3, "u", 1), (17, "v", 1), (5, "u", 1)])
    betas = nsd.user_betas(path, mask, trials, BetasParams(zscore=False, average_repeats=False))
    assert betas.notes == ["17 volumes without a row in the trials table left out"]
    varies = (values[[3, 5, 17]] != values[3]).any(0)
    np.testing.assert_allclose(betas.data, values[[3, 5, 17]][:, varies], rtol=1e-6)


@pytest.mark.parametrize(
    "rows, header, match",
    [
        ([(0, "a")], "trial\tstimulus", "must have the columns"),
        ([(0, "a", 1), (20, "b", 1)], "trial\tstimulus\tsession", "0 ... 19"),
        ([(0, "a", 1), (0, "b", 1)], "trial\tstimulus\tsession", "1 doubled"),
        ([(0, "a", 1), (1, "b", 2)], "trial\tstimulus\tsession", "at least two trials in every session"),
        ([(0, "a", 1, "maybe"), (1, "b", 1, "0")], "trial\tstimulus\tsession\ttest", "0/1 or true/false"),
        (
            [(0, "a", 1), (1, "", 1)],
            "trial\tstimulus\tsession",
            "in column stimulus, got a missing one in row 2",
        ),
    ],
)
def test_bad_tables(functional, rows, header, match):
    path, mask, trials, *_ = functional
    table(trials, rows, header)
    with pytest.raises(nsd.NSDError, match=match):
        nsd.user_betas(path, mask, trials)


def test_bad_images(functional, tmp_path):
    path, mask, trials, *_ = functional
    with pytest.raises(nsd.NSDError, match="mask must have the betas' shape"):
        nsd.user_betas(DATA / "example4d.nii.gz", mask, trials)
    with pytest.raises(nsd.NSDError, match="betas must have four axes"):
        nsd.user_betas(mask, mask, trials)
    with pytest.raises(nsd.NSDError, match="none.nii must be an image file, got no such file"):
        nsd.user_betas(tmp_path / "none.nii", mask, trials)
    with pytest.raises(nsd.NSDError, match="none.tsv must be a table, got no such file"):
        nsd.user_betas(path, mask, tmp_path / "none.tsv")
    empty = nib.Nifti1Image(np.zeros((17, 21, 3), np.uint8), nib.load(path).affine)
    nib.save(empty, tmp_path / "empty.nii")
    with pytest.raises(nsd.NSDError, match="empty mask"):
        nsd.user_betas(path, tmp_path / "empty.nii", trials)
    cut = tmp_path / "cut.nii"
    cut.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(nsd.NSDError, match="truncated"):
        nsd.user_betas(cut, mask, trials)


HEADER = "trial\tstimulus\tsession\t"


@pytest.mark.parametrize(
    ("flags", "header"),
    [
        (["1", "0", "0", "0"], "test"),
        (["0", "0", "true", "0"], "shared"),
        (["1\t0", "n/a\tn/a", "1\tn/a", "0\t0"], "test\tshared"),
        (["n/a\t0", "0\t0", "1\tn/a", "0\t0"], "test\tshared"),
    ],
)
def test_a_stimulus_is_in_one_set(tmp_path, flags, header):
    """`cat` is shown twice; what is tested must not be trained on, whether or not repeats are averaged."""
    rows = [(k, name, 1, flag) for k, (name, flag) in enumerate(zip(["cat", "cow", "cat", "dog"], flags, strict=True))]
    path = table(tmp_path / "trials.tsv", rows, HEADER + header)
    with pytest.raises(nsd.NSDError, match=r"held out everywhere or nowhere, got 'cat' as both, last in .*trials\.tsv"):
        read_user_trials(path, 4)


@pytest.mark.parametrize(
    ("flags", "header"),
    [
        (["1", "0", "n/a", "0"], "test"),
        (["", "n/a", "TRUE", "false"], "shared"),
        (["1\tn/a", "0\t0", "n/a\t1", "n/a\t0"], "test\tshared"),
    ],
)
def test_one_row_marks_a_stimulus_in_all(tmp_path, flags, header):
    rows = [(k, name, 1, flag) for k, (name, flag) in enumerate(zip(["cat", "cow", "cat", "dog"], flags, strict=True))]
    trials, _ = read_user_trials(table(tmp_path / "trials.tsv", rows, HEADER + header), 4)
    assert trials["shared"].tolist() == [True, False, True, False]
