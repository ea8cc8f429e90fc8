"""Single-trial estimators against nilearn's own models, fitted trial by trial, and least squares in float64."""

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

from napari_neuraldiffuser.core.bold.confounds import Confounds
from napari_neuraldiffuser.core.bold.design import make_design, response
from napari_neuraldiffuser.core.bold.events import Events
from napari_neuraldiffuser.core.bold.linear import LSA, LSS, separate, together, variance_inflation
from napari_neuraldiffuser.core.bold.runs import BoldError, Run, Timing
from napari_neuraldiffuser.core.params import BoldParams

TIMING = Timing(150, 1.6, 0.8)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def make(rng, params, *, keep=None, n_trials=30, spacing=5.0, n_confounds=4):
    """Design of one run and its parts."""
    trials = pd.DataFrame(
        {
            "row": np.arange(1, n_trials + 1),
            "onset": 4 + spacing * np.arange(n_trials) + rng.uniform(0, 1.5, n_trials),
            "duration": 2.0,
            "stimulus": [f"s{k}" for k in range(n_trials)],
            "test": None,
        }
    )
    columns = {f"c{k}": np.cumsum(rng.standard_normal(TIMING.n)) for k in range(n_confounds)}
    confounds = pd.DataFrame(columns, index=range(TIMING.n))
    keep = np.ones(TIMING.n, bool) if keep is None else keep
    others = pd.DataFrame({"onset": [], "duration": [], "trial_type": []})
    run = Run("b.nii", "e.tsv", session="1", run="1")
    return make_design(run, TIMING, Events(trials, others), Confounds(confounds, keep), params), trials, confounds


def data_of(rng, n=40):
    return (8000 + 60 * rng.standard_normal((TIMING.n, n)) + 40 * rng.standard_normal(n)).astype(np.float32)


def percent(data):
    values = data.astype(np.float64)
    return 100 * (values / values.mean(axis=0) - 1)


def nilearn_matrix(events, confounds, params):
    return make_first_level_design_matrix(
        TIMING.frames,
        events,
        hrf_model=params.hrf_model,
        drift_model=params.drift,
        high_pass=params.high_pass,
        drift_order=params.drift_order,
        add_regs=confounds,
    )


def nilearn_beta(matrix, data, name):
    labels, results = run_glm(data, matrix.to_numpy(), noise_model="ols")
    return results[labels[0]].theta[list(matrix.columns).index(name)]


@pytest.mark.parametrize("hrf", ["spm", "glover"])
@pytest.mark.parametrize("drift", ["cosine", "polynomial"])
@pytest.mark.parametrize("left_out", [(), (3, 40, 43, 100)])
def test_separate_is_nilearns_model_of_every_trial(rng, hrf, drift, left_out):
    params = BoldParams(hrf_model=hrf, drift=drift)
    keep = np.ones(TIMING.n, bool)
    keep[list(left_out)] = False
    design, trials, confounds = make(rng, params, keep=keep)
    data = data_of(rng)[keep]
    betas = LSS.fit([design], [data], params, lambda *_: None)[0]
    peak = response(hrf, 2.0)[0]
    assert len(betas) == len(trials)
    for k in range(len(trials)):
        events = trials[["onset", "duration"]].assign(trial_type=np.where(trials.index == k, "this", "others"))
        matrix = nilearn_matrix(events, confounds, params)[keep]
        np.testing.assert_allclose(betas[k], nilearn_beta(matrix, percent(data), "this") * peak, atol=1e-5)


def test_together_is_nilearns_model_with_a_regressor_per_trial(rng):
    params = BoldParams(estimator="lsa")
    design, trials, confounds = make(rng, params)
    data = data_of(rng)
    betas = LSA.fit([design], [data], params, lambda *_: None)[0]
    matrix = nilearn_matrix(trials[["onset", "duration"]].assign(trial_type=trials.stimulus), confounds, params)
    peak = response("spm", 2.0)[0]
    for k, name in enumerate(trials.stimulus):
        np.testing.assert_allclose(betas[k], nilearn_beta(matrix, percent(data), name) * peak, atol=1e-5)


@pytest.mark.parametrize("hrf", ["spm + derivative", "glover + derivative"])
def test_derivatives_against_least_squares_in_float64(rng, hrf):
    params = BoldParams(hrf_model=hrf)
    design = make(rng, params)[0]
    data = percent(data_of(rng))
    nuisance, own = design.nuisance.to_numpy(), design.responses
    whole = np.concatenate([own[:, 0].T, own[:, 1].T, nuisance], axis=1)
    np.testing.assert_allclose(together(design) @ data, np.linalg.lstsq(whole, data)[0][: len(own)], atol=1e-8)
    rest = own.sum(axis=0) - own
    weights = separate(design)
    for k in (0, 7, len(own) - 1):
        matrix = np.concatenate([own[k].T, rest[k].T, nuisance], axis=1)
        np.testing.assert_allclose(weights[k] @ data, np.linalg.lstsq(matrix, data)[0][0], atol=1e-8)


def test_one_trial_alone(rng):
    params = BoldParams()
    design = make(rng, params, n_trials=1)[0]
    np.testing.assert_allclose(separate(design), together(design), atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunks_of_voxels_make_no_difference(rng, chunk):
    params = BoldParams()
    design, data = make(rng, params)[0], data_of(rng, 20)
    whole = LSS.fit([design], [data], params, lambda *_: None)[0]
    np.testing.assert_allclose(
        LSS.fit([design], [data], params.but(chunk_voxels=chunk), lambda *_: None)[0], whole, atol=1e-6
    )


def test_scale_none_is_the_stored_unit(rng):
    params = BoldParams(scale="none")
    design, data = make(rng, params)[0], data_of(rng)
    expected = separate(design) @ data.astype(np.float64)
    np.testing.assert_allclose(LSS.fit([design], [data], params, lambda *_: None)[0], expected, rtol=1e-5, atol=1e-4)


def test_inflation_is_what_the_other_columns_explain(rng):
    """1 / (1 - R²) of each trial on all others, drift and confounds."""
    design = make(rng, BoldParams())[0]
    matrix = design.matrix.to_numpy()
    expected = []
    for k in range(len(design.trials)):
        rest = np.delete(matrix, k, axis=1)
        left = matrix[:, k] - rest @ np.linalg.lstsq(rest, matrix[:, k])[0]
        expected.append(((matrix[:, k] - matrix[:, k].mean()) ** 2).sum() / (left**2).sum())
    np.testing.assert_allclose(variance_inflation(design, together(design)), expected, rtol=1e-6)
    assert (variance_inflation(design, separate(design)) <= np.array(expected) + 1e-9).all()


def test_more_trials_than_volumes_are_not_told_apart(rng):
    design = make(rng, BoldParams(), n_trials=148, spacing=1.6)[0]
    with pytest.raises(BoldError, match="told apart to be fitted all at once.* lss"):
        together(design)


def test_a_trial_that_confounds_explain_is_refused(rng):
    params = BoldParams()
    design = make(rng, params)[0]
    design.nuisance["same"] = design.responses[4, 0] + 3
    with pytest.raises(BoldError, match="got row 5 of e.tsv explained by them"):
        separate(design)
