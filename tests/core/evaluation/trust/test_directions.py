"""Participation ratios against numpy's eigenvalues of the covariance."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation.trust import directions


def by_eigenvalues(values):
    found = np.linalg.eigvalsh(np.cov(values, rowvar=False))
    return found.sum() ** 2 / (found**2).sum()


@pytest.mark.parametrize(("m", "d"), [(4, 9), (30, 6), (12, 12)])
def test_the_ratio_is_that_of_the_eigenvalues_of_the_covariance(m, d):
    rng = np.random.default_rng(d)
    true = rng.normal(size=(m, d)) * np.arange(1, d + 1)
    decoded = true @ np.diag([1.0] + [0.01] * (d - 1)) + 5
    found = directions.compared(directions.gram_of(decoded), directions.gram_of(true))
    assert found["true"] == pytest.approx(by_eigenvalues(true))
    assert found["decoded"] == pytest.approx(by_eigenvalues(decoded))
    assert found["ratio"] == pytest.approx(by_eigenvalues(decoded) / by_eigenvalues(true)) and found["ratio"] < 1


def test_its_error_is_that_of_leaving_parts_out():
    rng = np.random.default_rng(0)
    true, decoded = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    ratios = [
        by_eigenvalues(np.delete(decoded, k, axis=0)) / by_eigenvalues(np.delete(true, k, axis=0)) for k in range(7)
    ]
    expected = np.sqrt(6 / 7 * ((np.array(ratios) - np.mean(ratios)) ** 2).sum())
    found = directions.compared(directions.gram_of(decoded), directions.gram_of(true))
    assert found["se"] == pytest.approx(expected)


@pytest.mark.parametrize("m", [1, 2])
def test_few_stimuli_have_no_directions(m):
    gram = directions.gram_of(np.random.default_rng(0).normal(size=(m, 4)))
    found = directions.compared(gram, gram)
    assert found == {"decoded": None, "true": None, "ratio": None, "se": None, "n": m}


def test_patterns_that_do_not_vary_have_none():
    same, other = directions.gram_of(np.ones((6, 4))), directions.gram_of(np.eye(6))
    assert directions.compared(same, other)["decoded"] is None
    assert directions.compared(same, other)["ratio"] is None
