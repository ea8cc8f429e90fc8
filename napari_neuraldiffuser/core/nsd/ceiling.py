"""Noise ceiling of betas: how much of the variance of a test image's row its image can explain at all."""

from collections.abc import Mapping
from typing import Any

import numpy as np

NOT_ZSCORED = "the betas are not z-scored, so that the variance of a trial is not known"
NOT_REPEATED = "no image was shown twice"
NOT_SAID = "the betas were prepared by an earlier version"
ROWS = 256
"""Rows that are squared at once in double precision."""


def noise_ceiling(data: np.ndarray, repeats: np.ndarray, test: np.ndarray, zscored: bool) -> dict[str, Any]:
    """NSD's noise ceiling, mean over voxels, estimated from how much averaging repeats lowers the variance.

    A z-scored trial has variance 1 = s² + n², signal and noise; a row that is the mean of r trials has s² + n²/r.  The
    variance of the rows gives s², and the ceiling of the test rows is s² / (s² + n²/r) (method.md eq. 51).

    Parameters
    ----------
    data : (n, n_voxels) float32
        Averages over repeats of z-scored betas.
    repeats : (n,) int
        Trials in each row.
    test : (n,) bool
        Rows that the ceiling is of.
    zscored : bool

    Returns
    -------
    dict
        "mean": share of variance, 0 to 1, or None; "why": the reason where it is None.
    """
    if not zscored:
        return {"mean": None, "why": NOT_ZSCORED}
    several = repeats > 1
    if not several.any() or not test.any():
        return {"mean": None, "why": NOT_REPEATED}
    ceiling = ceiling_of(signal_share(data, repeats, several), float(np.mean(1 / repeats[test])))
    return {"mean": float(ceiling.mean()), "why": ""}


def signal_share(data: np.ndarray, repeats: np.ndarray, several: np.ndarray) -> np.ndarray:
    """Share of the variance of a z-scored trial that the image explains, (n_voxels,), from the rows `several` (n,)."""
    kept = 1 / repeats[several]
    rows = np.flatnonzero(several)
    squares = np.zeros(data.shape[1])
    for first in range(0, len(rows), ROWS):
        block = data[rows[first : first + ROWS]].astype(np.float64)
        squares += np.einsum("iv,iv->v", block, block)
    return np.clip((squares / len(rows) - kept.mean()) / (1 - kept.mean()), 0, 1)


def ceiling_of(signal: np.ndarray, per_trial: float) -> np.ndarray:
    """Noise ceiling, 0 to 1, of rows whose 1 / trials has the mean `per_trial`, from the shares of `signal_share`."""
    return signal / np.maximum(signal + (1 - signal) * per_trial, np.finfo(float).tiny)


def ceiling_text(ceiling: Mapping[str, Any], n_voxels: int, trials: float) -> str:
    """The ceiling in words, with what it is of; or why there is none."""
    mean = ceiling.get("mean")
    if mean is None:
        return f"noise ceiling of the betas n/a: {ceiling.get('why') or NOT_SAID}"
    return f"noise ceiling of the betas {mean:.3f} (mean over {n_voxels:,} voxels, means of {trials:.1f} trials)"
