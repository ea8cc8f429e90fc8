"""Which stimuli are left out together."""

from collections.abc import Sequence

import numpy as np

from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.params import CrossvalParams

FEWEST_TRAINING = 3
"""Stimuli that must be left to fit a decoder to."""


def deal(n: int, params: CrossvalParams, categories: Sequence[str] | None = None) -> np.ndarray:
    """Fold of every stimulus, (n,) int from 0.

    Folds differ by one stimulus at most, and have as many of each category, give or take one: stimuli are dealt out
    like cards, category after category, each in random order.

    Parameters
    ----------
    n : int
        Different stimuli; repeats of one stay together because stimuli are dealt and not trials.
    params : CrossvalParams
    categories : sequence of str (n,), optional

    Raises
    ------
    DecodingError
        If there are fewer stimuli than folds, or too few are left to fit a decoder to.
    """
    if n < params.folds:
        raise DecodingError(
            f"folds must be at most the number of different stimuli, got {params.folds} for {n}. Take fewer folds."
        )
    if n - int(np.ceil(n / params.folds)) < FEWEST_TRAINING:
        raise DecodingError(
            f"cross-validation must leave {FEWEST_TRAINING} stimuli to fit to, got {n} stimuli in {params.folds} folds."
            " Take more folds, or more stimuli."
        )
    rng = np.random.default_rng(params.fold_seed)
    order = rng.permutation(n)
    if categories is not None:
        _, codes = np.unique(np.asarray(categories), return_inverse=True)
        order = order[np.argsort(codes[order], kind="stable")]
    folds = np.empty(n, dtype=np.int64)
    folds[order] = np.arange(n) % params.folds
    return folds
