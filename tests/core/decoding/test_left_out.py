"""Left-out predictions against fits that leave each stimulus out."""

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


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60), (25, 24), (33, 1)])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("alpha", [1e-6, 20.0, 1e6])
def test_predictions_equal_those_of_refits(n, p, repeats, alpha):
    x, y, ids, spectrum, left = problem(n, p, repeats, alpha)
    expected = refitted(x, y, ids, alpha)
    each = left_out.left_out_map(spectrum, left)
    np.testing.assert_allclose(each.sample @ y, expected[each.rows], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(each.mean @ y, expected.mean(0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_sample_of_stimuli_predicts_as_all_do(repeats):
    x, y, ids, spectrum, left = problem(600, 80, repeats)
    whole = left_out.left_out_map(spectrum, left, np.float32)
    some = left_out.left_out_map(spectrum, left, np.float32, most=150, seed=3)
    assert whole.sample.shape == (600, 600) and 140 <= len(some.sample) <= 160
    assert some.sample.dtype == np.float32
    # whole stimuli are drawn
    assert all(np.isin(np.flatnonzero(ids == ids[row]), some.rows).all() for row in some.rows)
    np.testing.assert_allclose(some.mean @ y, (whole.sample @ y).mean(0), atol=1e-5)
    place = np.argsort(whole.rows)
    np.testing.assert_allclose(some.sample @ y, whole.sample[place[some.rows]] @ y, rtol=1e-3, atol=1e-4)
    other = left_out.left_out_map(spectrum, left, np.float32, most=150, seed=4)
    assert not np.array_equal(other.rows, some.rows)
