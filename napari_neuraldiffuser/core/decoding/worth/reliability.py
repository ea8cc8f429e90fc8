"""How far predictions for single trials of one image differ: the trial noise that is in a prediction.

The prediction for the mean of r trials has signal and 1/r of the noise of one.  With the variance w of predictions for
single trials of one image, R² would be R² + (w / r) / var(y) had the image been shown for ever (method.md eq. 58).
"""

from collections.abc import Callable, Iterator

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses

ROWS_AT_ONCE = 3000
"""Trials that are predicted at once: each time, the decoder reads all of its training targets."""


def repeated(trials: Responses, stimulus_ids: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of single trials of every stimulus among `stimulus_ids` that has several."""
    order = np.argsort(trials.stimulus_ids, kind="stable")
    ids, starts, counts = np.unique(trials.stimulus_ids[order], return_index=True, return_counts=True)
    wanted = set(map(int, stimulus_ids))
    found = zip(ids.tolist(), starts.tolist(), counts.tolist(), strict=True)
    return {s: order[first : first + k] for s, first, k in found if k > 1 and s in wanted}


def trial_noise(rows: dict[int, np.ndarray], predict: Callable[[np.ndarray], np.ndarray]) -> float:
    """Noise that a mean over trials leaves in predictions, Σ over columns of w / r, mean over stimuli.

    Parameters
    ----------
    rows : dict of stimulus to ndarray
        Of `repeated`.
    predict : callable
        Rows (k,) of the single trials to predictions (k, T).
    """
    total = 0.0
    for group in _blocks(list(rows.values())):
        values = predict(np.concatenate(group))
        start = 0
        for own in group:
            part = values[start : start + len(own)].astype(np.float64)
            start += len(own)
            total += float(np.square(part - part.mean(0)).sum()) / (len(own) - 1) / len(own)
    return total / len(rows) if rows else float("nan")


def _blocks(groups: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Whole stimuli, about `ROWS_AT_ONCE` trials at a time."""
    block: list[np.ndarray] = []
    for group in groups:
        block.append(group)
        if sum(map(len, block)) >= ROWS_AT_ONCE:
            yield block
            block = []
    if block:
        yield block
