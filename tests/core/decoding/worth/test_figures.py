"""Figures of decoded values against numpy, scipy and scikit-learn in float64."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from napari_neuraldiffuser.core.decoding.worth import collapse, figures, reliability
from tests.support.stand_ins import make_betas


def pair(m=23, d=11, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((m, d)) + 2
    return truth, truth + noise * rng.standard_normal((m, d))


@pytest.mark.parametrize("m, d", [(23, 11), (2, 3), (7, 1), (5, 40)])
def test_column_correlation_is_pearsons(m, d, monkeypatch):
    monkeypatch.setattr(figures, "COLUMNS_AT_ONCE", 4)
    truth, decoded = pair(m, d)
    expected = np.mean([pearsonr(truth[:, j], decoded[:, j]).statistic for j in range(d)])
    assert figures.column_correlation(truth, decoded) == pytest.approx(expected, rel=1e-9)


def test_columns_that_do_not_vary_count_nowhere():
    truth, decoded = pair()
    expected = figures.column_correlation(truth[:, 2:], decoded[:, 2:])
    truth[:, 0], decoded[:, 1] = 3.0, 0.1
    assert figures.column_correlation(truth, decoded) == pytest.approx(expected)
    assert np.isnan(figures.column_correlation(np.ones((5, 2)), decoded[:5, :2]))


def test_pattern_agreement_is_pearsons():
    truth, decoded = pair()
    ours = figures.pattern_agreement(truth, decoded)
    np.testing.assert_allclose(ours, np.corrcoef(truth, decoded)[:23, 23:], rtol=1e-9)
    # in single precision, far from zero, a constant row has none
    decoded[3] = 1.1
    assert np.isnan(figures.pattern_agreement(truth.astype(np.float32), decoded.astype(np.float32))[:, 3]).all()


def test_two_way_counts_pairs_and_ties_half():
    rng = np.random.default_rng(1)
    a = np.round(rng.standard_normal((9, 9)), 1)
    expected = [
        np.mean([(a[i, j] < a[j, j]) + 0.5 * (a[i, j] == a[j, j]) for i in range(9) if i != j]) for j in range(9)
    ]
    found = figures.two_way(a, 99, 0)
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.se == pytest.approx(np.std(expected, ddof=1) / 3)


def test_permutation_test_tells_signal_from_chance():
    truth, decoded = pair(40, 30)
    good = figures.two_way(figures.pattern_agreement(truth, decoded), 499, 0)
    assert good.mean > 0.9 and good.p == 1 / 500
    p = []
    for seed in range(60):
        a, _ = pair(12, 6, seed=seed)
        b, _ = pair(12, 6, seed=1000 + seed)
        p.append(figures.two_way(figures.pattern_agreement(a, b), 99, seed).p)
    # uniform under chance: neither small too often nor never
    assert 0.3 < np.mean(p) < 0.7 and np.mean(np.array(p) <= 0.05) < 0.2
    assert np.isnan(figures.two_way(np.ones((1, 1)), 99, 0).mean)


def test_explained_is_sklearns_r2_and_its_error_that_of_the_mean():
    truth, decoded = pair(200, 5)
    truth, decoded = truth - truth.mean(0), decoded - truth.mean(0)
    r2, se = figures.explained(truth, decoded, 400, 0)
    assert r2 == pytest.approx(r2_score(truth.ravel(), decoded.ravel()), abs=0.01)
    assert r2 == pytest.approx(1 - ((truth - decoded) ** 2).sum() / (truth**2).sum())
    again = [figures.explained(*(v - 2 for v in pair(200, 5, seed=s)), 2, 0)[0] for s in range(100)]
    assert se == pytest.approx(np.std(again), rel=0.5)
    assert np.isnan(figures.explained(np.zeros((3, 2)), np.ones((3, 2)), 9, 0)[0])


@pytest.mark.parametrize("n, d", [(8, 30), (30, 8), (12, 12)])
def test_projection_is_least_squares_on_the_training_targets(n, d, monkeypatch):
    monkeypatch.setattr(collapse, "COLUMNS_AT_ONCE", 5)
    rng = np.random.default_rng(2)
    train, test = rng.standard_normal((n, d)) + 4, rng.standard_normal((6, d))
    mean = train.mean(0)
    ours = collapse.project(train, mean, test)
    y = (train - mean).T
    expected = LinearRegression(fit_intercept=False).fit(y, test.T).predict(y).T
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    # inside the span it changes nothing, and with more stimuli than columns everything is inside
    np.testing.assert_allclose(collapse.project(train, mean, ours), ours, atol=5e-5)
    if n > d:
        np.testing.assert_allclose(ours, test, atol=1e-4)
    else:
        assert np.square(test - ours).sum() > 0.01 * np.square(test).sum()


def test_projection_in_single_precision_of_targets_that_are_nearly_dependent():
    """Products of float32 are not positive definite to the last digit."""
    rng = np.random.default_rng(6)
    train = (rng.standard_normal((150, 6)) @ rng.standard_normal((6, 90)) * 30 + 100).astype(np.float16)
    mean = train.mean(0, dtype=np.float64)
    inside = ((train[:20] + train[20:40]) / 2 - mean).astype(np.float32)
    ours = collapse.project(train, mean, inside)
    np.testing.assert_allclose(ours, inside, atol=0.02 * np.abs(inside).max())
    assert np.isfinite(collapse.project(np.ones((5, 3)), np.ones(3), np.ones((2, 3)))).all()


def test_trial_noise_is_the_variance_that_a_mean_has():
    """Against the noise that made the trials."""
    rng = np.random.default_rng(3)
    ids = np.repeat(np.arange(500), 3)
    noise = rng.standard_normal((1500, 4)) * [1, 2, 3, 4]
    values = rng.standard_normal((500, 4))[ids] * 5 + noise
    trials = make_betas(values, ids)
    rows = reliability.repeated(trials, np.arange(500))
    found = reliability.trial_noise(rows, lambda k: values[k])
    assert found == pytest.approx((1 + 4 + 9 + 16) / 3, rel=0.05)
    groups = [values[ids == s] for s in range(500)]
    assert found == pytest.approx(np.mean([g.var(0, ddof=1).sum() / 3 for g in groups]))
    # shown once, or not asked for
    assert not reliability.repeated(make_betas(values[:500], np.arange(500)), np.arange(500))
    assert list(reliability.repeated(trials, [7])) == [7]
    assert np.isnan(reliability.trial_noise({}, lambda k: values[k]))
