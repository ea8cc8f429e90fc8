"""The directions of a target against the singular vectors of ridge's whole fit, and the start in them against ridge."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding import solver
from napari_neuraldiffuser.core.decoding.contrastive import span, start
from tests.support.stand_ins import linear_data, primal_ridge

ALPHAS = (0.1, 3.0, 1e4)


def problem(n, p, t, repeats=1, seed=0):
    """Centred betas and targets, and the spectrum, left-out maps and hat matrix of ridge at penalty 3."""
    x, y, _, _ = linear_data(n, p, t=t, seed=seed)
    x, y = x - x.mean(0), y - y.mean(0)
    spectrum = solver.decompose(x)
    groups = solver.stimulus_groups(np.arange(n) // repeats)
    leaves = [solver.leave_out(spectrum, groups, alpha) for alpha in ALPHAS]
    hat = x @ np.linalg.solve(x.T @ x + 3.0 * np.eye(p), x.T)
    return x, y, spectrum, leaves, hat


def in_blocks(y, size, order):
    def begin():
        for first in range(0, len(y), size):
            rows = order[first : first + size]
            yield rows, y[rows]

    return begin


@pytest.mark.parametrize("n, p, t, rank", [(40, 12, 30, 5), (20, 60, 9, 9), (33, 7, 80, 50), (12, 30, 1, 4)])
def test_directions_are_those_of_the_whole_fit(n, p, t, rank):
    _, y, spectrum, _, hat = problem(n, p, t)
    order = np.random.default_rng(1).permutation(n)
    sample = np.array([3, 1])
    found = span.find(spectrum, 3.0, y, t, rank, in_blocks(y, 7, order), sample)
    left, values, right = np.linalg.svd(hat @ y, full_matrices=False)
    k = min(rank, int((values > values[0] * 1e-5).sum()))
    assert found.directions.shape == (t, k)
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(k), atol=1e-10)
    # a singular vector is one but for its sign
    agreement = np.abs(np.einsum("ij,ij->j", found.directions, right[:k].T))
    np.testing.assert_allclose(agreement, 1, atol=1e-6)
    np.testing.assert_allclose(found.scores, y @ found.directions, atol=1e-8)
    np.testing.assert_allclose(found.energy, (y**2).sum(1))
    np.testing.assert_allclose(found.sd, y.std(0))
    np.testing.assert_array_equal(found.sample, y[sample])


def test_some_columns_are_enough_to_find_them():
    """Many columns that few factors make, as features of images are; the directions come from a tenth of them."""
    rng = np.random.default_rng(0)
    x, factors, spectrum, _, hat = problem(120, 40, 6)
    y = factors @ rng.standard_normal((6, 500)) + 0.1 * rng.standard_normal((120, 500))
    y -= y.mean(0)
    some = y[:, rng.choice(500, 50, replace=False)]
    found = span.find(spectrum, 3.0, some, 500, 6, in_blocks(y, 50, np.arange(120)), np.arange(0))
    fitted = hat @ y
    best = np.linalg.svd(fitted, compute_uv=False)[:6]
    kept = np.linalg.norm(fitted @ found.directions) ** 2
    assert kept > (1 - 1e-3) * (best**2).sum()


@pytest.mark.parametrize("repeats", [1, 2])
def test_every_direction_has_the_penalty_that_leaves_out_best(repeats):
    n = 24
    x, y, spectrum, leaves, _ = problem(n, 10, 5, repeats)
    y[:, 1] = np.random.default_rng(3).standard_normal(n)  # noise: not the smallest penalty
    y -= y.mean(0)
    begun = start.begin(spectrum, leaves, y)
    left_out = np.empty((len(ALPHAS), *y.shape))
    for a, alpha in enumerate(ALPHAS):
        for s in range(n // repeats):
            rest = np.arange(n) // repeats != s
            weights, intercept = primal_ridge(x[rest], y[rest], alpha)
            left_out[a, ~rest] = x[~rest] @ weights + intercept
    best = ((left_out - y) ** 2).sum(1).argmin(0)
    np.testing.assert_array_equal(begun.alphas, np.array(ALPHAS)[best])
    assert begun.alphas[1] > min(ALPHAS) and len(set(begun.alphas)) > 1
    np.testing.assert_allclose(begun.left_out, np.take_along_axis(left_out, best[None, None], 0)[0], atol=1e-8)
    for j, alpha in enumerate(begun.alphas):
        weights, _ = primal_ridge(x, y[:, [j]], alpha)
        np.testing.assert_allclose(x.T @ start.dual(spectrum, begun.alphas, y)[:, j], weights[:, 0], atol=1e-8)
    one = start.best_penalty(spectrum, leaves, y)
    assert one == ALPHAS[((left_out - y) ** 2).sum((1, 2)).argmin()]
