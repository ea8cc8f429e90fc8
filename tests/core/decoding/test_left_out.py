"""Statistics of left-out predictions against fits that leave each stimulus out."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding import left_out, solver
from tests.support.stand_ins import linear_data, primal_ridge


def problem(n, p, repeats=1, alpha=20.0, seed=0):
    """Centred betas and targets, their stimuli, and what leaves one out at a penalty."""
    x, y, _, _ = linear_data(n, p, seed=seed)
    ids = np.arange(n) // repeats
    if repeats > 1:
        ids[0] = ids[1] = ids[2]  # one stimulus of another number of rows
    x, y = x - x.mean(0), y - y.mean(0)
    spectrum = solver.decompose(x)
    return x, y, ids, spectrum, solver.leave_out(spectrum, solver.stimulus_groups(ids), alpha)


def refitted(x, y, ids, alpha):
    out = np.empty_like(y)
    for stimulus in np.unique(ids):
        rest = ids != stimulus
        weights, intercept = primal_ridge(x[rest], y[rest], alpha)
        out[~rest] = x[~rest] @ weights + intercept
    return out


def in_blocks(y, size=7):
    order = np.random.default_rng(1).permutation(len(y))
    return [(part, y[part]) for part in np.split(order, range(size, len(y), size))]


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60), (25, 24), (33, 1)])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("alpha", [1e-6, 20.0, 1e6])
def test_statistics_equal_those_of_refits(n, p, repeats, alpha):
    x, y, ids, spectrum, left = problem(n, p, repeats, alpha)
    expected = refitted(x, y, ids, alpha)
    each = left_out.left_out_map(spectrum, left)
    np.testing.assert_allclose(each.sample @ y, expected[each.rows], rtol=1e-6, atol=1e-8)
    got = left_out.left_out_statistics([(each, slice(None))], in_blocks(y), y.shape[1])
    np.testing.assert_allclose(got.mean, expected.mean(0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.sd, expected.std(0), rtol=1e-6)
    np.testing.assert_allclose(got.target_sd, y.std(0), rtol=1e-12)


def test_columns_with_penalties_of_their_own():
    x, y, ids, spectrum, _ = problem(30, 12)
    groups, maps, expected = solver.stimulus_groups(ids), [], np.empty_like(y)
    for k, alpha in enumerate((1.0, 100.0, 1e4)):
        columns = np.arange(k, y.shape[1], 3)
        maps.append((left_out.left_out_map(spectrum, solver.leave_out(spectrum, groups, alpha)), columns))
        expected[:, columns] = refitted(x, y, ids, alpha)[:, columns]
    got = left_out.left_out_statistics(maps, in_blocks(y), y.shape[1])
    np.testing.assert_allclose(got.mean, expected.mean(0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.sd, expected.std(0), rtol=1e-6)


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_sample_of_stimuli_has_the_exact_mean_and_nearly_the_sd(repeats):
    x, y, ids, spectrum, left = problem(600, 80, repeats)
    whole = left_out.left_out_map(spectrum, left, np.float32)
    some = left_out.left_out_map(spectrum, left, np.float32, most=150, seed=3)
    assert whole.sample.shape == (600, 600) and 140 <= len(some.sample) <= 160
    assert some.sample.dtype == np.float32
    # whole stimuli are drawn
    assert all(np.isin(np.flatnonzero(ids == ids[row]), some.rows).all() for row in some.rows)
    y = y.astype(np.float32)
    exact, about = (left_out.left_out_statistics([(m, slice(None))], in_blocks(y), y.shape[1]) for m in (whole, some))
    np.testing.assert_allclose(about.mean, exact.mean, rtol=1e-5)
    standard_error = 1 / np.sqrt(2 * len(some.rows) / repeats)
    ratio = about.sd / exact.sd
    assert np.abs(ratio - 1).max() < 5 * standard_error and abs(ratio.mean() - 1) < 2 * standard_error
    assert (ratio != 1).all()
    other = left_out.left_out_map(spectrum, left, np.float32, most=150, seed=4)
    assert not np.array_equal(other.rows, some.rows)
