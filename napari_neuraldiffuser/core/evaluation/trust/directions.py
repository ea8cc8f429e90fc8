"""In how many directions patterns vary: decoded targets beside true ones."""

from typing import Any

import numpy as np

BLOCKS = 10
"""Parts of the stimuli that the jackknife leaves out in turn."""
LEAST = 3
"""Fewer stimuli vary in one direction at most."""


def participation(gram: np.ndarray) -> float:
    """Participation ratio (Σλ)² / Σλ² of the covariance of patterns, by their products (m, m).

    1 where all lie on a line through their mean, m - 1 where they vary equally in all directions; NaN without variance.
    """
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1, keepdims=True) + gram.mean()
    total, squares = float(np.trace(centred)), float(np.square(centred).sum())
    return total**2 / squares if squares > 1e-24 * np.square(gram).sum() else float("nan")


def gram_of(values: np.ndarray) -> np.ndarray:
    """Products (m, m) float64 of patterns (m, d) minus their mean."""
    centred = values - values.mean(axis=0, dtype=np.float64).astype(values.dtype)
    return np.asarray(centred @ centred.T, dtype=np.float64)


def compared(decoded: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Participation ratios of decoded and true patterns of m stimuli, from their products (m, m), and their ratio.

    Returns
    -------
    dict
        "decoded", "true"; "ratio" is decoded over true with "se" by a jackknife over `BLOCKS` parts of the stimuli;
        None where there is no value.
    """
    m = len(true)
    whole = (participation(decoded), participation(true)) if m >= LEAST else (np.nan, np.nan)
    parts = np.array_split(np.arange(m), min(BLOCKS, m))
    without = [np.setdiff1d(np.arange(m), part) for part in parts] if m > LEAST else []
    ratios = np.array([participation(decoded[np.ix_(k, k)]) / participation(true[np.ix_(k, k)]) for k in without])
    k = len(ratios)
    se = float(np.sqrt((k - 1) / k * np.square(ratios - ratios.mean()).sum())) if k > 1 else np.nan
    found = {"decoded": whole[0], "true": whole[1], "ratio": whole[0] / whole[1], "se": se}
    return {name: float(v) if np.isfinite(v) else None for name, v in found.items()} | {"n": m}
