"""The noise ceiling of betas, against what they were made with and against NSD's own way from single trials."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.nsd.ceiling import NOT_REPEATED, NOT_ZSCORED, ceiling_text, noise_ceiling


def averaged(signal_share, repeats, seed=0):
    """Rows of z-scored trials averaged over `repeats`, and the trials; signal variance per voxel is given."""
    rng = np.random.default_rng(seed)
    share = np.asarray(signal_share)
    signal = rng.normal(size=(len(repeats), len(share))) * np.sqrt(share)
    trials = [
        row + rng.normal(size=(r, len(share))) * np.sqrt(1 - share) for row, r in zip(signal, repeats, strict=True)
    ]
    every = np.concatenate(trials)
    trials = [(own - every.mean(0)) / every.std(0) for own in trials]
    return np.array([own.mean(axis=0) for own in trials], np.float32), trials


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.9])
def test_it_is_the_share_that_the_betas_were_made_with(share):
    repeats = np.array([2] * 1500 + [3] * 500)
    data, _ = averaged(np.full(40, share), repeats)
    test = repeats == 3
    found = noise_ceiling(data, repeats, test, True)
    assert found["mean"] == pytest.approx(share / (share + (1 - share) / 3), abs=0.03)
    assert found["why"] == ""


def test_it_agrees_with_nsds_way_from_single_trials():
    share = np.random.default_rng(1).uniform(0.1, 0.6, 30)
    repeats = np.full(1500, 3)
    data, trials = averaged(share, repeats)
    own = np.stack(trials)
    noise = own.var(axis=1, ddof=1).mean(axis=0)
    ncsnr2 = (own.reshape(-1, 30).var(axis=0) - noise) / noise
    nsd = ncsnr2 / (ncsnr2 + 1 / 3)
    assert noise_ceiling(data, repeats, np.ones(1500, bool), True)["mean"] == pytest.approx(nsd.mean(), abs=0.01)


def test_rows_that_were_shown_once_do_not_enter_but_are_told_of():
    repeats = np.array([1] * 300 + [3] * 1500)
    data, _ = averaged(np.full(40, 0.3), repeats)
    spoilt = data.copy()
    spoilt[:300] = 100
    test = repeats == 3
    assert noise_ceiling(spoilt, repeats, test, True) == noise_ceiling(data, repeats, test, True)
    once = noise_ceiling(data, repeats, ~test, True)["mean"]  # of one trial, the ceiling is lower
    assert once == pytest.approx(0.3, abs=0.03)


def test_where_it_cannot_be_known_it_is_not_made_up():
    data, test = np.ones((4, 3), np.float32), np.array([True, False, False, False])
    assert noise_ceiling(data, np.ones(4, int), test, True) == {"mean": None, "why": NOT_REPEATED}
    assert noise_ceiling(data, np.full(4, 3), ~test & test, True)["mean"] is None
    assert noise_ceiling(data, np.full(4, 3), test, False) == {"mean": None, "why": NOT_ZSCORED}


def test_in_words():
    assert ceiling_text({"mean": 0.3456, "why": ""}, 15724, 3.0) == (
        "noise ceiling of the betas 0.346 (mean over 15,724 voxels, means of 3.0 trials)"
    )
    assert ceiling_text({"mean": None, "why": NOT_REPEATED}, 9, 1.0).endswith(f"n/a: {NOT_REPEATED}")
    assert "earlier version" in ceiling_text({}, 9, 1.0)


def test_it_is_kept_with_the_betas_and_near_the_simulators_own(inputs, tmp_path):
    from napari_neuraldiffuser.core import nsd

    subject = nsd.Subject(inputs.source.nsd_dir, "subj01")
    betas = subject.betas()
    _, test = betas.split()
    x, y, z = betas.voxels.T
    truth = np.asarray(subject.noise_ceiling(3).dataobj)[x, y, z].mean() / 100
    # a session of 8 test images: drift and gain are noise too
    assert test.repeats.mean() == 3
    assert betas.noise_ceiling["mean"] == pytest.approx(truth, abs=0.12)
    nsd.save_betas(betas, tmp_path / "betas.h5")
    assert nsd.load_betas(tmp_path / "betas.h5").noise_ceiling == betas.noise_ceiling
    assert nsd.betas_facts(tmp_path / "betas.h5")["noise_ceiling"] == betas.noise_ceiling
    single = nsd.Subject(inputs.source.nsd_dir, "subj01", subject.params.but(average_repeats=False)).betas()
    assert single.noise_ceiling["why"] == NOT_REPEATED
