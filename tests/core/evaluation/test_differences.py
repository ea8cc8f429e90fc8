"""Differences of scores between runs, and when one is clear."""

import numpy as np
import pytest
from scipy import stats

from napari_neuraldiffuser.core.evaluation.differences import Difference, between


def rows(values, metric="pixcorr"):
    """Rows of {stimulus: [value per repeat]}."""
    return [{"stim": s, "rep": r, metric: v} for s, own in values.items() for r, v in enumerate(own, 1)]


def test_several_stimuli_are_paired_by_stimulus():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) + 1
    found = between(rows(dict(enumerate(one))), rows(dict(enumerate(other))), "pixcorr", True)
    expected = other.mean(1) - one.mean(1)
    assert found.mean == pytest.approx(expected.mean())
    assert found.se == pytest.approx(stats.sem(expected))
    assert (found.n, found.of) == (6, "stimuli")


def test_only_shared_stimuli_count():
    found = between(rows({1: [0.1], 2: [0.2], 3: [9.0]}), rows({2: [0.5], 1: [0.2], 7: [9.0]}), "pixcorr", True)
    assert found.mean == pytest.approx(0.2)
    assert found.n == 2
    assert between(rows({1: [0.1]}), rows({2: [0.1]}), "pixcorr", True) == Difference()


def test_what_compares_stimuli_needs_the_same_ones():
    one, other = rows({1: [0.5], 2: [0.5]}, "twoway_demo"), rows({1: [0.9], 2: [0.9], 3: [0.9]}, "twoway_demo")
    assert between(one, other, "twoway_demo", True).mean is None
    assert between(one, other[:2], "twoway_demo", True).mean == pytest.approx(0.4)


def test_one_stimulus_is_compared_over_its_repeats():
    one, other = [0.1, 0.3, 0.2], [0.3, 0.4, 0.5]
    paired = between(rows({1: one}), rows({1: other}), "pixcorr", True)
    assert paired.se == pytest.approx(stats.sem(np.subtract(other, one)))
    apart = between(rows({1: one}), rows({1: other}), "pixcorr", False)
    assert apart.mean == pytest.approx(paired.mean)
    assert apart.se == pytest.approx(np.hypot(stats.sem(one), stats.sem(other)))
    assert (apart.n, apart.of) == (3, "repeats")
    single = between(rows({1: [0.1]}), rows({1: [0.4]}), "pixcorr", True)
    assert (single.mean, single.se, single.n) == (pytest.approx(0.3), None, 1)


def test_values_that_are_missing_or_nan_do_not_count():
    one = [*rows({1: [0.1, float("nan")]}), {"stim": 2, "rep": 1}]
    found = between(one, rows({1: [0.2, 0.9], 2: [0.3]}), "pixcorr", True)
    assert (found.mean, found.n) == (pytest.approx(0.1), 1)


@pytest.mark.parametrize(
    "difference, clear",
    [
        (Difference(0.5, 0.001, 2), False),
        (Difference(0.5, 0.001, 4), False),
        (Difference(0.5, 0.1, 5), True),
        (Difference(-0.5, 0.1, 5), True),
        (Difference(0.19, 0.1, 50), False),
        (Difference(0.5, None, 5), False),
        (Difference(0.5, 0.1, None), False),
        (Difference(0.5, 0.1, 9, "repeats"), False),
        (Difference(), False),
    ],
)
def test_clear_needs_enough_of_both(difference, clear):
    assert difference.clear is clear


def test_in_words():
    assert str(Difference(0.04, 0.01, 8)) == "+0.040 ± 0.010 (n = 8)"
    assert str(Difference(-0.04, None, 1)) == "-0.040 (n = 1)"
    assert str(Difference(0.04, 0.01, None)) == "+0.040 ± 0.010"
    assert str(Difference()) == "n/a"
