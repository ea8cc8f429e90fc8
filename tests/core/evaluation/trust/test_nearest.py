"""Likeness of patterns against numpy's corrcoef, row by row."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation.trust import nearest


@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 3), (5, 7, 11), (3, 20, 5), (4, 1, 50)])
def test_similarity_is_the_correlation_about_the_training_mean_whatever_the_parts(m, n, d):
    rng = np.random.default_rng(m * n)
    queries, train = rng.normal(size=(m, d)), rng.normal(size=(n, d))
    mean = rng.normal(size=d)  # not their own, so that one row alone has a direction
    parts = [(rows, train[rows]) for rows in np.array_split(rng.permutation(n), 3) if len(rows)]
    found = nearest.similarity(queries, parts, n, mean)
    expected = [[np.corrcoef(q - mean, t - mean)[0, 1] for t in train] for q in queries]
    assert np.allclose(found, expected, atol=1e-12)
    rows, best = nearest.best_rows(found)
    assert [int(np.argmax(row)) for row in expected] == rows.tolist()
    assert np.allclose(best, np.max(expected, axis=1))


def test_a_constant_pattern_is_like_nothing():
    train = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    found = nearest.similarity(np.array([[1.0, 2.0, 4.0]]), [(np.arange(2), train)], 2, np.zeros(3))
    assert found[0, 0] == pytest.approx(1) and np.isnan(found[0, 1])
    rows, best = nearest.best_rows(np.full((2, 3), np.nan))
    assert rows.tolist() == [0, 0] and np.isnan(best).all()


def test_targets_count_the_same_and_those_without_a_value_do_not():
    one, other = np.array([[0.2, np.nan, np.nan]]), np.array([[0.6, 0.4, np.nan]])
    assert nearest.mean_similarity([one, other])[0, :2] == pytest.approx([0.4, 0.4])
    assert np.isnan(nearest.mean_similarity([one, other])[0, 2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.1, 0.5], [[0], [2], [1]]),
        ([0.9, 0.1, 0.5, 0.8, 0.2, 0.3, 0.7], [[0, 3, 6], [2, 5], [4, 1]]),
        ([0.3], [[0]]),
        ([0.1, 0.4], [[1], [0]]),
        ([np.nan, 0.4, 0.1, 0.2], [[1], [3], [2]]),
        ([np.nan], []),
    ],
)
def test_thirds_go_from_the_nearest_to_the_farthest(values, expected):
    assert [part.tolist() for part in nearest.thirds(np.array(values))] == expected
