"""Penalties chosen by leaving stimuli out, against scikit-learn and against refits."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from napari_neuraldiffuser.core.decoding import penalties, solver
from tests.support.stand_ins import linear_data

ALPHAS = tuple(10.0**k for k in range(-2, 6))


def problem(n, p, t=22, repeats=1, dtype=np.float64, seed=0):
    """Centred betas and targets of mixed noise, their spectrum and what leaves a stimulus out."""
    x, y, _, _ = linear_data(n, p, t, seed=seed)
    y += np.random.default_rng(seed).standard_normal(y.shape) * np.geomspace(0.1, 10, t)
    x, y = x - x.mean(0), y - y.mean(0)
    spectrum = solver.decompose(x.astype(dtype))
    groups = solver.stimulus_groups(np.arange(n) // repeats)
    return x, y.astype(dtype), spectrum, [solver.leave_out(spectrum, groups, a) for a in ALPHAS]


def left_out_energies(spectrum, y, leaves):
    """From the reference solver, (penalties, t)."""
    rotated = solver.rotate(spectrum, y)
    return np.stack([np.square(solver.leave_out_residuals(spectrum, rotated, left)).sum(0) for left in leaves])


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60), (25, 24), (33, 1)])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("t", [1, 22])
def test_energies_equal_those_of_the_reference(n, p, repeats, t):
    _, y, spectrum, leaves = problem(n, p, t, repeats)
    expected = left_out_energies(spectrum, y, leaves)
    scores = penalties.Scores(spectrum, leaves)
    np.testing.assert_allclose(scores.columns(y), expected, rtol=1e-9)
    np.testing.assert_allclose(scores.pooled(y), expected.sum(1), rtol=1e-9)


def test_rank_deficient_betas():
    x, y, _, _ = problem(30, 12)
    doubled = np.concatenate([x, x, 2 * x], 1)
    spectrum = solver.decompose(doubled)
    leaves = [solver.leave_out(spectrum, solver.stimulus_groups(np.arange(30)), a) for a in ALPHAS]
    reference = RidgeCV(ALPHAS, alpha_per_target=True).fit(doubled, y)
    energies = penalties.Scores(spectrum, leaves).columns(y)
    np.testing.assert_array_equal(np.array(ALPHAS)[energies.argmin(0)], reference.alpha_)


@pytest.mark.parametrize("n, p", [(120, 40), (60, 200)])
def test_penalty_and_score_of_every_column_are_those_of_scikit_learn(n, p):
    x, y, spectrum, leaves = problem(n, p, 40)
    reference = RidgeCV(ALPHAS, alpha_per_target=True, scoring="neg_mean_squared_error").fit(x, y)
    energies = penalties.Scores(spectrum, leaves).columns(y)
    picked = penalties.choose(energies, np.square(y).sum(0), len(ALPHAS) - 1)
    np.testing.assert_array_equal(np.array(ALPHAS)[picked.chosen], reference.alpha_)
    np.testing.assert_allclose(energies.min(0) / n, -reference.best_score_, rtol=1e-6)
    assert len(set(picked.chosen)) > 2 and picked.chosen_r2 > picked.r2.max()


@pytest.mark.parametrize("n, p", [(500, 900), (500, 200)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_random_sums_of_many_columns_score_as_all_of_them(monkeypatch, n, p, repeats):
    monkeypatch.setattr(penalties, "SKETCHED", 500 * 100)
    _, y, spectrum, leaves = problem(n, p, 600, repeats, np.float32)
    expected = left_out_energies(spectrum, y.astype(np.float64), leaves).sum(1)
    energies = [penalties.Scores(spectrum, leaves).pooled(y, seed) for seed in (0, 1)]
    total = np.square(y, dtype=np.float64).sum()
    for each in energies:
        np.testing.assert_allclose(each / total, expected / total, atol=5e-3 if repeats == 1 else 3e-2)
        assert each.argmin() == expected.argmin()
    assert not np.array_equal(*energies)


def test_many_stimuli_are_scored_by_generalised_cross_validation(monkeypatch):
    _, y, spectrum, leaves = problem(1200, 400, 300, dtype=np.float32)
    monkeypatch.setattr(penalties, "EXACT_STIMULI", 1200)
    exact = penalties.Scores(spectrum, leaves)
    monkeypatch.setattr(penalties, "EXACT_STIMULI", 100)
    fast = penalties.Scores(spectrum, leaves)
    assert exact.exact and not fast.exact
    total = np.square(y, dtype=np.float64).sum(0)
    want, got = exact.columns(y) / total, fast.columns(y) / total
    np.testing.assert_allclose(got, want, atol=2e-2)
    lost = want[got.argmin(0), np.arange(300)] - want.min(0)
    assert lost.max() < 1e-3 and (lost == 0).mean() > 0.9


def test_blocks_have_one_penalty_and_constant_ones_the_largest():
    _, y, spectrum, leaves = problem(60, 30, 24)
    y[:, 8:12] = 0
    energies, totals = penalties.Scores(spectrum, leaves).columns(y), np.square(y).sum(0)
    picked = penalties.choose(energies, totals, 7, blocks=6)
    pooled = energies.reshape(8, 6, 4).sum(2).argmin(0)
    expected = np.where(np.arange(6) == 2, 7, pooled)
    np.testing.assert_array_equal(picked.chosen.reshape(6, 4), np.repeat(expected[:, None], 4, 1))
    one = penalties.choose(energies, totals, 7, blocks=1)
    assert one.chosen_r2 == pytest.approx(one.r2.max()) and one.chosen_r2 < picked.chosen_r2
    np.testing.assert_allclose(one.r2, 1 - energies.sum(1) / totals.sum())
