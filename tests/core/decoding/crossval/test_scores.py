"""Scores of left-out stimuli against a plain double loop, and p-values under the null."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding.crossval import score_target


def case(n=24, t=13, noise=1.0, seed=0, folds=4):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, t)) + 5
    return truth, truth + noise * rng.standard_normal((n, t)), np.arange(n), np.arange(n) % folds


def pairs(truth, decoded, folds, groups):
    """Two-way identification, a pair at a time, each stimulus counting once."""
    y, p = truth.copy(), decoded.copy()
    for k in set(folds):
        mean = truth[folds != k].mean(0)
        y[folds == k] -= mean
        p[folds == k] -= mean
    shares = []
    for j in range(len(y)):
        others = [i for i in range(len(y)) if i != j and folds[i] == folds[j] and groups[i] == groups[j]]
        own = np.corrcoef(y[j], p[j])[0, 1]
        if others:
            shares.append(np.mean([own > np.corrcoef(y[i], p[j])[0, 1] for i in others]))
    return np.mean(shares)


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_two_way_is_that_of_a_double_loop(noise):
    truth, decoded, stimuli, folds = case(noise=noise)
    categories = np.where(np.arange(24) < 10, "a", "b")
    score = score_target(truth, decoded, stimuli, folds, categories)
    assert score.two_way.value == pytest.approx(pairs(truth, decoded, folds, np.zeros(24)))
    assert score.within.value == pytest.approx(pairs(truth, decoded, folds, categories))
    assert score.two_way.n == 24 and len(score.two_way.folds) == 4
    assert np.mean(score.two_way.folds) == pytest.approx(score.two_way.value)
    assert np.isnan(score.two_way.p)


def test_r2_and_correlation_are_of_deviations_from_the_training_mean():
    truth, decoded, stimuli, folds = case(noise=0.5)
    score = score_target(truth, decoded, stimuli, folds)
    means = np.stack([truth[folds != k].mean(0) for k in folds])
    y, p = truth - means, decoded - means
    assert score.r2 == pytest.approx(1 - ((y - p) ** 2).sum() / (y**2).sum(), rel=1e-5)
    one = folds == 2
    assert score.r2_folds[2] == pytest.approx(1 - ((y - p)[one] ** 2).sum() / (y[one] ** 2).sum(), rel=1e-5)
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, p.T, strict=True)]
    assert score.r == pytest.approx(np.mean(each), rel=1e-5)


def test_the_training_mean_alone_scores_nothing():
    """Each fold's mean is the lower, the higher its stimuli: over folds it would correlate with them below zero."""
    truth, _, stimuli, folds = case(n=30, folds=30)
    decoded = np.stack([truth[folds != k].mean(0) for k in folds])
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(truth.T, decoded.T, strict=True)]) < -0.9
    score = score_target(truth, decoded, stimuli, folds)
    assert score.r2 == pytest.approx(0, abs=1e-6)
    assert not abs(score.r) > 0.5
    assert np.isnan(score.two_way.value) and score.two_way.n == 0


def test_repeats_are_compared_with_other_stimuli_only():
    truth, decoded, _, _ = case(n=12, noise=3.0)
    stimuli, folds = np.repeat(np.arange(6), 2), np.repeat(np.arange(2), 6)
    truth = truth[stimuli]
    score = score_target(truth, decoded, stimuli, folds)
    assert score.two_way.value == pytest.approx(pairs_of_repeats(truth, decoded, stimuli, folds))


def pairs_of_repeats(truth, decoded, stimuli, folds):
    means = np.stack([truth[folds != k].mean(0) for k in folds])
    y, p, shares = truth - means, decoded - means, []
    for j in range(len(y)):
        others = {int(stimuli[i]): i for i in range(len(y)) if stimuli[i] != stimuli[j] and folds[i] == folds[j]}
        own = np.corrcoef(y[j], p[j])[0, 1]
        shares.append(np.mean([own > np.corrcoef(y[i], p[j])[0, 1] for i in others.values()]))
    return np.mean(shares)


def test_p_values_are_uniform_under_the_null_and_small_where_stimuli_are_decoded():
    found = []
    for seed in range(60):
        truth, _, stimuli, folds = case(seed=seed)
        noise = np.random.default_rng(1000 + seed).standard_normal(truth.shape)
        found.append(score_target(truth, noise, stimuli, folds, permutations=99, seed=seed).two_way.p)
    assert 0.3 < np.mean(found) < 0.7 and np.mean(np.array(found) <= 0.05) < 0.2
    assert score_target(*case(noise=0.5), permutations=99).two_way.p == 0.01


def test_a_category_that_is_all_there_is_to_see_is_no_identification_within_it():
    rng = np.random.default_rng(0)
    categories, folds = np.arange(40) % 2, np.arange(40) // 2 % 4
    truth = np.array([[1.0, -1, 1, -1, 2], [-1, 1, -1, 1, -2]])[categories] + 0.1 * rng.standard_normal((40, 5))
    decoded = np.array([[1.0, -1, 1, -1, 2], [-1, 1, -1, 1, -2]])[categories] + rng.standard_normal((40, 5))
    score = score_target(truth, decoded, np.arange(40), folds, categories, permutations=199)
    assert score.two_way.value > 0.7 and score.two_way.p < 0.01
    assert 0.3 < score.within.value < 0.7 and score.within.p > 0.05


def test_a_constant_target_has_no_scores():
    truth, decoded, stimuli, folds = case()
    score = score_target(np.full_like(truth, 2.5), decoded, stimuli, folds, stimuli % 2, permutations=10)
    assert np.isnan([score.r2, score.r, score.two_way.value, score.within.p]).all() and len(score.r2_folds) == 4
