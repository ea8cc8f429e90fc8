"""Voxels chosen by their noise ceiling: NSD's file, and the repeats of training images alone."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.by_ceiling import chosen, per_trial, training_ceiling
from napari_neuraldiffuser.core.params import BetasParams
from tests.core.nsd.test_ceiling import averaged
from tests.support.nsd.tree import AFFINE, SHAPE, expected, hdf5, volume


def with_ncsnr(tree, ncsnr, affine=AFFINE):
    volume(tree.betas / "ncsnr.nii.gz", ncsnr, affine)
    return tree


def subject(tree, **params):
    return nsd.Subject(tree.root, "subj02", BetasParams(**params))


def trials_of_test_images(tree):
    ids = tree.ids[: 2 * 750][tree.shared[: 2 * 750]]
    return np.unique(ids, return_counts=True)[1]


def test_ncsnr_chooses_by_percent_for_the_trials_of_the_test_images(tree):
    ncsnr = np.random.default_rng(0).uniform(0, 0.2, SHAPE).astype(np.float32)
    ncsnr[tuple(np.argwhere(tree.mask)[2])] = np.nan
    with_ncsnr(tree, ncsnr)
    power = np.nan_to_num(ncsnr[tree.mask].astype(float)) ** 2
    ceiling = 100 * power / (power + (1 / trials_of_test_images(tree)).mean())
    least = float(np.median(ceiling))
    betas = subject(tree, min_noise_ceiling=least).betas()
    keep = ceiling >= least
    assert 0 < keep.sum() < keep.size
    np.testing.assert_array_equal(betas.voxels, np.argwhere(tree.mask)[keep])
    np.testing.assert_allclose(betas.data, expected(tree)[0][:, keep], atol=2e-6)
    (note,) = [note for note in betas.notes if "kept" in note]
    assert note.startswith(f"{keep.sum()} of {keep.size} voxels kept: noise ceiling of at least {least:g} %")
    assert "computed with the test images too" in note and "mildly circular" in note
    # one trial a row has a lower ceiling
    single = subject(tree, min_noise_ceiling=least, average_repeats=False)
    with pytest.raises(nsd.NSDError, match="min_noise_ceiling must leave voxels of ROI nsdgeneral"):
        single.betas()


def test_the_best_voxels_stay_in_the_order_of_the_grid(tree):
    with_ncsnr(tree, np.random.default_rng(1).uniform(0.1, 2, SHAPE).astype(np.float32))
    ncsnr = np.asarray(nib.load(tree.betas / "ncsnr.nii.gz").dataobj)[tree.mask]
    best = np.sort(np.argsort(-ncsnr)[:7])
    betas = subject(tree, max_voxels=7).betas()
    np.testing.assert_array_equal(betas.voxels, np.argwhere(tree.mask)[best])
    assert any("7 of" in note and "at most 7 of the highest noise ceiling" in note for note in betas.notes)
    assert subject(tree, max_voxels=100_000).betas().n_voxels == tree.mask.sum()


def test_nothing_chosen_reads_no_file_and_says_nothing(tree):
    with_ncsnr(tree, np.zeros(SHAPE, np.float32))
    betas = subject(tree).betas()
    assert betas.n_voxels == tree.mask.sum() and not any("kept" in note for note in betas.notes)
    assert tree.betas / "ncsnr.nii.gz" not in subject(tree).response_files()
    assert tree.betas / "ncsnr.nii.gz" in subject(tree, max_voxels=3).response_files()


def test_what_cannot_be_chosen_is_refused_in_a_sentence(tree):
    with pytest.raises(nsd.NSDError, match="got no file .*ncsnr.nii.gz. Copy .*--ceiling-from training"):
        subject(tree, min_noise_ceiling=5.0)
    subject(tree, min_noise_ceiling=5.0, ceiling_from="training")
    with_ncsnr(tree, np.zeros(SHAPE, np.float32))
    for params in ({"min_noise_ceiling": 5.0}, {"max_voxels": 5}):
        with pytest.raises(nsd.NSDError, match="must leave voxels of ROI nsdgeneral, got .* highest is 0 %"):
            subject(tree, **params).betas()
    volume(tree.roi.parent / "brainmask.nii.gz", np.ones(SHAPE, np.uint8))  # what gives the betas' affine
    moved = AFFINE.copy()
    moved[0, 3] += 1
    with_ncsnr(tree, np.ones(SHAPE, np.float32), moved)
    with pytest.raises(nsd.NSDError, match="ncsnr must have the betas' affine"):
        subject(tree, max_voxels=5).betas()
    for off in ("zscore", "average_repeats"):
        with pytest.raises(nsd.NSDError, match="zscore and average_repeats must be on"):
            subject(tree, max_voxels=5, ceiling_from="training", **{off: False})


def test_training_repeats_never_see_the_test_rows():
    share = np.linspace(0, 0.9, 12)
    repeats = np.array([2] * 6000 + [3] * 500)
    data, _ = averaged(share, repeats)
    test = repeats == 3
    found = training_ceiling(data, repeats, test)
    np.testing.assert_allclose(found / 100, share / (share + (1 - share) / 3), atol=0.13)
    spoilt = data.copy()
    spoilt[test] = 1e3
    np.testing.assert_array_equal(training_ceiling(spoilt, repeats, test), found)
    with pytest.raises(nsd.NSDError, match="training images must have been shown more than once"):
        training_ceiling(data, np.where(test, 3, 1), test)


def test_the_training_choice_keeps_the_voxels_that_repeat(tree):
    """Noise everywhere but in six voxels, which answer to the image of the trial."""
    rng = np.random.default_rng(2)
    inside = np.argwhere(tree.mask)
    good = rng.choice(len(inside), 6, replace=False)
    answer = rng.normal(scale=500, size=(73000,))
    for session, raw in tree.raw.items():
        ids = tree.ids[(session - 1) * 750 : session * 750]
        for one in good:
            raw[tuple(inside[one])] = (answer[ids] + rng.normal(scale=300, size=750)).astype(np.int16)
        hdf5(tree.betas / f"betas_session{session:02d}.hdf5", raw, chunks=(750, 1, 1, 1))
    betas = subject(tree, max_voxels=6, ceiling_from="training").betas()
    np.testing.assert_array_equal(betas.voxels, inside[np.sort(good)])
    np.testing.assert_allclose(betas.data, expected(tree)[0][:, np.sort(good)], atol=2e-6)
    (note,) = [note for note in betas.notes if "kept" in note]
    assert "repeats of the training images" in note and "circular" not in note


def test_equal_ceilings_and_counts_by_hand():
    ceiling = np.array([5.0, 20.0, 20.0, 0.0, 20.0])
    kept, note = chosen(ceiling, BetasParams(min_noise_ceiling=5.0, max_voxels=2), "ROI V1", "x")
    assert kept.tolist() == [False, True, True, False, False]
    assert note == ("2 of 5 voxels kept: noise ceiling of at least 5 % and at most 2 of the highest noise ceiling (x)")
    assert chosen(ceiling, BetasParams(max_voxels=9), "", "")[0].tolist() == [True, True, True, False, True]


def test_per_trial_counts_test_images_only(tree):
    trials = subject(tree).trials.iloc[: 2 * 750]
    assert per_trial(trials, True) == pytest.approx((1 / trials_of_test_images(tree)).mean())
    assert per_trial(trials, False) == 1.0
    assert per_trial(trials[~trials["shared"]], True) < 0.02
