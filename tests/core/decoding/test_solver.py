"""Leave-one-out of the dual solver against refits, scikit-learn and himalaya, in float64."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from napari_neuraldiffuser.core.decoding import DecodingError, solver
from napari_neuraldiffuser.core.decoding.penalties import Scores
from tests.support.stand_ins import linear_data, primal_ridge

ALPHAS = (1e-6, 0.1, 3.0, 100.0, 1e5)
SHAPES = [(17, 40), (40, 17), (23, 22), (22, 23), (5, 1)]


def centred_problem(n, p, t=7):
    x, y, _, _ = linear_data(n, p, t)
    return x - x.mean(0), y - y.mean(0)


def refit_residuals(x, y, ids, alpha):
    """Residual of every row, predicted by a ridge fitted without the rows of its stimulus."""
    out = np.empty_like(y)
    for stimulus in np.unique(ids):
        left = ids == stimulus
        weights, intercept = primal_ridge(x[~left], y[~left], alpha)
        out[left] = y[left] - (x[left] @ weights + intercept)
    return out


def dual_residuals(x, y, ids, alpha):
    spectrum = solver.decompose(x)
    left = solver.leave_out(spectrum, solver.stimulus_groups(ids), alpha)
    return solver.leave_out_residuals(spectrum, solver.rotate(spectrum, y), left)


@pytest.mark.parametrize("n, p", SHAPES)
@pytest.mark.parametrize("alpha", [0.1, 3.0, 1e5])
def test_leave_one_out_equals_refits(n, p, alpha):
    x, y = centred_problem(n, p)
    ids = np.arange(n)
    ours, refits = dual_residuals(x, y, ids, alpha), refit_residuals(x, y, ids, alpha)
    np.testing.assert_allclose(ours, refits, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("n, p", [(24, 40), (24, 9)])
def test_repeats_are_left_out_together(n, p):
    x, y = centred_problem(n, p)
    ids = np.array([7, 3, 3, 9, 1, 7, 2, 9, 9] + list(range(20, 20 + n - 9)))
    ours, refits = dual_residuals(x, y, ids, 2.0), refit_residuals(x, y, ids, 2.0)
    np.testing.assert_allclose(ours, refits, rtol=1e-8, atol=1e-9)
    single = refit_residuals(x, y, np.arange(n), 2.0)
    assert np.abs(single - refits).max() > 1e-3  # leaving out single trials is something else


def test_a_vanishing_penalty_does_not_cancel():
    x, y = centred_problem(17, 40)
    ours = dual_residuals(x, y, np.arange(17), 1e-9)
    np.testing.assert_allclose(ours, dual_residuals(x, y, np.arange(17), 1e-6), rtol=1e-5)
    np.testing.assert_allclose(ours, refit_residuals_min_norm(x, y), rtol=1e-6)


def refit_residuals_min_norm(x, y):
    """The limit of zero penalty: least-norm regression without each row."""
    out = np.empty_like(y)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        mean_x, mean_y = x[rest].mean(0), y[rest].mean(0)
        weights = np.linalg.pinv(x[rest] - mean_x) @ (y[rest] - mean_y)
        out[i] = y[i] - mean_y - (x[i] - mean_x) @ weights
    return out


@pytest.mark.parametrize("n, p", [(31, 60), (31, 12)])
def test_r2_picks_the_penalty_of_sklearn_ridgecv(n, p):
    x, y, _, _ = linear_data(n, p, t=5, noise=2.0)
    reference = RidgeCV(alphas=ALPHAS, store_cv_results=True).fit(x, y)
    mse = reference.cv_results_.mean((0, 1))
    yc = y - y.mean(0)
    expected = 1 - mse * y.size / (yc**2).sum()
    spectrum = solver.decompose(x - x.mean(0))
    leaves = [solver.leave_out(spectrum, solver.stimulus_groups(np.arange(n)), a) for a in ALPHAS]
    ours = 1 - Scores(spectrum, leaves).pooled(yc) / (yc**2).sum()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert ALPHAS[int(np.argmax(ours))] == reference.alpha_


def test_dual_coefficients_equal_himalaya():
    from himalaya.kernel_ridge import KernelRidge

    x, y = centred_problem(19, 33)
    model = KernelRidge(alpha=5.0, kernel="linear", fit_intercept=False).fit(x, y)
    ours = x.T @ solver.apply_inverse(solver.decompose(x), 5.0, y)
    np.testing.assert_allclose(ours, x.T @ np.asarray(model.dual_coef_), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("n, p", SHAPES)
def test_spectrum_is_that_of_the_gram_matrix(n, p):
    x, _ = centred_problem(n, p)
    spectrum = solver.decompose(x)
    assert spectrum.u.shape == (n, min(n - 1, p))
    gram = (spectrum.u * spectrum.s) @ spectrum.u.T
    np.testing.assert_allclose(gram, x @ x.T, atol=1e-9 * spectrum.s.max())
    np.testing.assert_allclose(spectrum.u.T @ spectrum.u, np.eye(len(spectrum.s)), atol=1e-8)
    np.testing.assert_allclose(spectrum.u.sum(0), 0, atol=1e-7)


def test_duplicated_voxels_lower_the_rank_and_change_nothing_else():
    x, y = centred_problem(20, 6)
    doubled = np.concatenate([x, x], axis=1)
    ids = np.arange(20)
    assert len(solver.decompose(doubled).s) == 6
    ours, reference = dual_residuals(doubled, y, ids, 2.0), dual_residuals(x, y, ids, 1.0)
    np.testing.assert_allclose(ours, reference, rtol=1e-8)


def test_groups_hold_every_row_once_by_stimulus():
    ids = np.array([5, 2, 5, 9, 2, 2, 7])
    groups = {g.shape[1]: g for g in solver.stimulus_groups(ids)}
    assert sorted(groups) == [1, 2, 3]
    assert sorted(np.concatenate([g.ravel() for g in groups.values()])) == list(range(7))
    assert groups[2].tolist() == [[0, 2]] and groups[3].tolist() == [[1, 4, 5]]


def test_constant_betas_are_refused():
    with pytest.raises(DecodingError, match="must vary"):
        solver.decompose(np.zeros((6, 4)))
