"""What a score would be without any information on the stimulus: the same pictures with their stimuli mixed up."""

from collections.abc import Callable, Mapping

import numpy as np

from napari_neuraldiffuser.core.evaluation.metric import Metric
from napari_neuraldiffuser.core.evaluation.metrics import nanmean_rows
from napari_neuraldiffuser.core.evaluation.stack import Stack

CHANCE_SEED = 0
CHANCE_REPEATS = 2
"""So many repeats are mixed up: enough for the agreement between repeats, and half the work of four."""


def mismatch(n: int, repeats: int) -> np.ndarray | None:
    """Whose picture stands for repeat k of stimulus i when stimuli are mixed up (method.md eq. 50).

    Parameters
    ----------
    n, repeats : int
        Stimuli, and repeats of each.

    Returns
    -------
    int array (n, repeats') or None
        Row of the stimulus whose repeat k is taken.  No row has its own index, or one twice; so that repeats' is at
        most n - 1, and `CHANCE_REPEATS`.  Every stimulus is taken once for each k.  None with one stimulus.
    """
    if n < 2:
        return None
    # a ring in random order: neighbours in a list of labels are often of one category
    ring = np.random.default_rng(CHANCE_SEED).permutation(n)
    place = np.argsort(ring)
    steps = 1 + np.arange(min(repeats, n - 1, CHANCE_REPEATS))
    return ring[(place[:, None] + steps) % n]


def mixed(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Features (n, repeats, d) with the stimuli mixed up, (n, repeats', d)."""
    return features[others, np.arange(others.shape[1])]


def mixed_repeats(images: Stack, others: np.ndarray) -> Callable[[int], np.ndarray]:
    """As `mixed`, of pictures, one stimulus (repeats', H, W, 3) at a time."""
    return lambda i: np.stack([images.one(int(j), k) for k, j in enumerate(others[i])])


def unknown(columns: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics whose chance level no argument gives."""
    return {column: metric for column, metric in columns.items() if metric.chance is None}


def levels(columns: Mapping[str, Metric], guesses: Mapping[str, np.ndarray], n: int) -> dict[str, float]:
    """Chance level of each column of scores.

    Parameters
    ----------
    columns : mapping of column to Metric
    guesses : mapping of column to array (n, repeats')
        Scores with the stimuli mixed up, of the metrics whose chance is `unknown`; NaN where there is no value.
    n : int
        Stimuli.

    Returns
    -------
    dict of column to float
        What the metric says, else the mean over stimuli of the guesses' means; absent where no guess has a value.
    """
    means = {column: rows[np.isfinite(rows)] for column, values in guesses.items() for rows in [nanmean_rows(values)]}
    told = {column: metric.chance for column, metric in columns.items() if metric.chance is not None}
    known = {column: chance(n) if callable(chance) else chance for column, chance in told.items()}
    return known | {column: float(found.mean()) for column, found in means.items() if found.size}
