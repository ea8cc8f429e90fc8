"""Trials without betas are left out and named, as if they had never been; the mask is blamed for its voxels alone."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.nsd.assemble import assemble
from napari_neuraldiffuser.core.params import BetasParams

N_VOXELS = 40


def table(n_stimuli=12, repeats=2, sessions=2, tests=3):
    """Every stimulus `repeats` times in every session; trial numbers with gaps."""
    rows = [(k, session, r) for session in range(sessions) for r in range(repeats) for k in range(n_stimuli)]
    trials = pd.DataFrame(rows, columns=["stimulus_id", "session", "r"])
    trials["session"] = [f"a{session}" for session in trials["session"]]
    return trials.assign(trial=np.arange(len(trials)) * 2 + 100, shared=trials["stimulus_id"] < tests)


def betas_of(trials):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(len(trials), N_VOXELS)) + 3).astype(np.float32)


def run(trials, values, **params):
    """`assemble` of sessions as readers hand them over, and its notes."""
    sessions = [values[rows].copy() for rows in trials.groupby("session").indices.values()]
    readers = [lambda session=session: (session, None) for session in sessions]
    voxels = np.argwhere(np.ones((N_VOXELS, 1, 1), bool))
    return assemble(readers, trials, voxels, BetasParams(**params), notes=["first"])


BLANKS = {
    "NaN": lambda values: np.full_like(values, np.nan),
    "infinite": lambda values: np.full_like(values, np.inf),
    "zeros": np.zeros_like,
    "most voxels": lambda values: np.where(np.arange(N_VOXELS) < 25, np.nan, values),
}


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("params", [{}, {"zscore": False}, {"average_repeats": False}])
def test_a_trial_without_betas_is_as_if_it_had_never_been(blank, params):
    trials, gone = table(), [5, 30]
    values = betas_of(trials)
    values[:, 7] = np.nan  # outside the brain in every trial: of no trial's making
    rest = trials.drop(index=gone).reset_index(drop=True)
    want = run(rest, np.delete(values, gone, axis=0), **params)
    values[gone] = BLANKS[blank](values[gone])
    got = run(trials, values, **params)
    for name in ("data", "stimulus_ids", "shared", "repeats", "voxels"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    assert np.isfinite(got.data).all() and got.dropped == want.dropped == {"nan": 1}
    assert got.notes == ["first", "trials without betas (NaN or 0) left out: 2 (110, 160)"] and want.notes == ["first"]


def test_a_stimulus_without_any_trial_is_left_out_and_counted():
    trials = table()
    values = betas_of(trials)
    gone = trials["stimulus_id"] == 9
    values[gone] = np.nan
    got = run(trials, values)
    assert got.stimulus_ids.tolist() == [k for k in range(12) if k != 9] and len(got) == len(got.repeats) == 11
    assert got.notes[1:] == [
        "trials without betas (NaN or 0) left out: 4 (118, 142, 166, 190)",
        "stimuli without any other trial left out: 1 (9)",
    ]
    values[trials["stimulus_id"] == 2] = 0
    with pytest.raises(
        nsd.NSDError, match=r"test images must have a trial with betas, got none .* for 2 \(trials 104,"
    ):
        run(trials, values)


@pytest.mark.parametrize("n", [13, 23, 24])
def test_a_session_of_blank_trials_is_named(n):
    trials = table()
    values = betas_of(trials)
    values[24 : 24 + n] = np.nan
    with pytest.raises(
        nsd.NSDError, match=f"session a1 must have betas in most of its trials, got none .* in {n} of 24"
    ):
        run(trials, values)
    values[24 : 24 + n] = 0
    told = "one value in all trials of session a1" if n == 24 else f"session a1 must have betas .* in {n} of 24"
    with pytest.raises(nsd.NSDError, match=told):
        run(trials, values)


def test_voxels_that_are_the_cause_are_dropped_and_no_trial():
    trials = table()
    values = betas_of(trials)
    values[3, :15] = np.nan  # less than half of the voxels
    values[30, 20] = np.inf
    got = run(trials, values)
    assert got.dropped == {"nan": 16} and got.repeats.tolist() == [4] * 12
    assert got.notes[1:] == [
        "trials that have no betas in some voxels, which were dropped for it: 106 (15), 160 (1) voxels"
    ]


def test_zeros_of_few_voxels_are_values():
    """Of stored whole numbers a 0 is as likely as its neighbours."""
    trials = table()
    values = np.zeros((len(trials), N_VOXELS), np.float32)
    values[:, :3] = np.random.default_rng(1).integers(-1, 2, (len(trials), 3))
    assert (values == 0).all(axis=1).any()
    got = run(trials, values, zscore=False)
    assert got.repeats.tolist() == [4] * 12 and got.dropped == {"constant": 37}


def test_no_voxel_in_every_session():
    trials = table()
    values = betas_of(trials)
    values[:24, :20], values[24:, 20:] = 5, 5
    with pytest.raises(nsd.NSDError, match="got none of 40 .dropped: 40 constant in at least one session"):
        run(trials, values)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("extra", [(), (1,)])
def test_own_scans_with_a_censored_trial(tmp_path, suffix, extra):
    trials = table().assign(trial=np.arange(48))
    values = betas_of(trials)
    values[37] = np.nan
    volume = values.T.reshape(5, 4, 2, *extra, 48)
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1])), tmp_path / f"b.{suffix}")
    nib.save(nib.Nifti1Image(np.ones((5, 4, 2), np.uint8), np.diag([2.0, 2, 2, 1])), tmp_path / "m.nii")
    named = trials.assign(stimulus=[f"s{k:02d}" for k in trials["stimulus_id"]], test=trials["shared"].astype(int))
    named[["trial", "stimulus", "session", "test"]].to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    got = nsd.user_betas(tmp_path / f"b.{suffix}", tmp_path / "m.nii", tmp_path / "t.tsv")
    want = run(trials.drop(index=37).reset_index(drop=True), np.delete(values, 37, axis=0))
    np.testing.assert_array_equal(got.data, want.data)
    assert got.notes == ["trials without betas (NaN or 0) left out: 1 (37)"] and got.repeats.sum() == 47


def test_trials_of_different_stimuli_with_the_same_betas_are_refused_by_name():
    trials = table()
    values = betas_of(trials)
    values[30] = values[5]  # stimulus 6 of the second session has the betas of stimulus 5 in the first
    told = r"the same ones in every voxel of trial 160 of session a1 \(stimulus 6\) and trial 110 of session a0 \(stimu"
    with pytest.raises(nsd.NSDError, match=told):
        run(trials, values)


def test_a_session_that_is_a_copy_of_another_is_told():
    """Stimuli in another order, as in the design; in the same order they are repeats, and noted."""
    trials = table()
    values = betas_of(trials)
    values[24:] = values[:24]
    got = run(trials, values)
    assert got.notes[1:] == [
        "trials with the very betas of another of the same stimulus: 24 "
        "(148, 150, 152, 154, 156, 158, 160, 162, 164, 166 ...)"
    ]
    values[24:] = np.roll(values[:24], 1, axis=0)
    with pytest.raises(nsd.NSDError, match=r"\(24 such trials\). Estimate them again, or take the copies out"):
        run(trials, values)


def test_few_voxels_may_agree_by_chance():
    trials = table()
    values = np.zeros((len(trials), N_VOXELS), np.float32)
    values[:, :3] = np.random.default_rng(1).integers(0, 3, (len(trials), 3))
    assert len(np.unique(values, axis=0)) < len(values)
    assert run(trials, values, zscore=False).notes == ["first"]


def test_a_trial_that_costs_voxels_is_named():
    trials = table()
    values = betas_of(trials)
    values[3, :15] = np.nan
    values[:, 20] = np.nan  # of no trial's making
    got = run(trials, values)
    assert got.dropped == {"nan": 16}
    assert got.notes[1:] == ["trials that have no betas in some voxels, which were dropped for it: 106 (15) voxels"]
