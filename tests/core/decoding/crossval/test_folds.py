"""Stimuli are dealt evenly, their categories too, and what cannot be dealt is refused."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding import DecodingError
from napari_neuraldiffuser.core.decoding.crossval import deal
from napari_neuraldiffuser.core.params import CrossvalParams


@pytest.mark.parametrize("n, folds", [(100, 10), (23, 5), (7, 7), (11, 4)])
def test_folds_differ_by_one_stimulus_at_most(n, folds):
    counts = np.bincount(deal(n, CrossvalParams(folds=folds)))
    assert len(counts) == folds and counts.sum() == n and counts.max() - counts.min() <= 1


def test_every_category_is_spread_evenly():
    categories = ["cat"] * 13 + ["dog"] * 29 + ["owl"] * 4
    folds = deal(46, CrossvalParams(folds=5), categories)
    assert np.ptp(np.bincount(folds)) <= 1
    for one in set(categories):
        assert np.ptp(np.bincount(folds[np.array(categories) == one], minlength=5)) <= 1
    unstratified = deal(46, CrossvalParams(folds=5))
    assert np.ptp(np.bincount(unstratified[:13], minlength=5)) > 1


def test_the_seed_decides_and_nothing_else():
    first, again, other = (deal(40, CrossvalParams(fold_seed=seed)) for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("n, folds, told", [(5, 10, "got 10 for 5"), (3, 3, "leave 3 stimuli"), (4, 2, "leave 3")])
def test_too_few_stimuli(n, folds, told):
    with pytest.raises(DecodingError, match=told):
        deal(n, CrossvalParams(folds=folds))
