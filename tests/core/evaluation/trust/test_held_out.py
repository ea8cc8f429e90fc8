"""Principal components against numpy's SVD; correlations, kinds and the fewest numbers against plain loops."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation.trust import held_out


@pytest.mark.parametrize(("n", "p", "most"), [(12, 40, 5), (40, 12, 5), (9, 9, 100), (30, 3, 10)])
def test_components_are_those_of_the_svd_up_to_sign(n, p, most):
    rng = np.random.default_rng(n + p)
    train, test = rng.normal(size=(n, p)) + 3, rng.normal(size=(4, p)) + 3
    ours = held_out.components(train, test, most)
    mean = train.mean(axis=0)
    _, s, axes = np.linalg.svd(train - mean, full_matrices=False)
    k = min(most, int((s > 1e-6 * s[0]).sum()))
    assert ours[0].shape == (n, k) and ours[1].shape == (4, k)
    for own, values in zip(ours, (train, test), strict=True):
        expected = (values - mean) @ axes[:k].T
        assert np.allclose(np.abs(own), np.abs(expected), atol=1e-7)
        assert np.allclose(own @ own.T, expected @ expected.T, atol=1e-7)


def test_pattern_correlation_is_numpys_stimulus_by_stimulus():
    rng = np.random.default_rng(0)
    decoded, true, mean = rng.normal(size=(5, 8)), rng.normal(size=(5, 8)), rng.normal(size=8)
    expected = [np.corrcoef(decoded[i] - mean, true[i] - mean)[0, 1] for i in range(5)]
    assert np.allclose(held_out.pattern_r(decoded, true, mean), expected)


def test_kinds_are_clusters_and_dealing_keeps_their_sizes():
    rng = np.random.default_rng(1)
    centres = 50 * np.eye(5)[[0, 1, 2, 3, 4] * 6]
    labels = held_out.kinds(centres + rng.normal(size=centres.shape))
    assert labels.min() == 0 and set(np.diff(np.unique(labels))) <= {1}
    truth = np.array([0, 1, 2, 3, 4] * 6)
    for one in np.unique(truth):
        assert len(set(labels[truth == one])) == 1, "no cluster is torn apart"
    dealt = held_out.dealt(labels)
    assert (np.bincount(dealt) == np.bincount(labels)).all() and (dealt != labels).any()
    assert sorted(np.concatenate(held_out.folds(labels))) == list(range(30))
    assert held_out.kinds(centres[:3]).max() <= 2


@pytest.mark.parametrize(
    ("lower", "expected"), [((1, 5), 10), ((), 1), ((1, 5, 10, 30), None), ((10,), 30), ((1, 5, 10), 30)]
)
def test_the_fewest_numbers_are_those_from_which_none_is_clearly_lower(lower, expected):
    rng = np.random.default_rng(2)
    whole = rng.normal(size=20)
    curve = {k: whole + 0.01 * rng.normal(size=20) - (k in lower) for k in (1, 5, 10, 30)}
    assert held_out.enough(curve, whole) == expected
