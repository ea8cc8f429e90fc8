"""How alike feature patterns are, which training image is nearest, and stimuli in thirds by that nearness."""

from collections.abc import Iterable, Sequence

import numpy as np

THIRDS = ("nearest", "middle", "farthest")
"""Names of the parts of `thirds`."""


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows of values (n, d) minus their mean, of length 1: products are correlations; NaN where a row is constant."""
    out = values - values.mean(axis=1, keepdims=True, dtype=np.float64).astype(values.dtype)
    length = np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))[:, None]
    constant = length <= 1e-6 * np.abs(values).max(axis=1, keepdims=True, initial=0)
    return np.where(constant, np.nan, out / np.where(constant, 1, length)).astype(values.dtype)


def similarity(
    queries: np.ndarray, parts: Iterable[tuple[np.ndarray, np.ndarray]], n: int, mean: np.ndarray
) -> np.ndarray:
    """Correlation over columns of every query with every training pattern, both minus the training mean.

    Parameters
    ----------
    queries : (m, d)
    parts : iterable of (rows (b,), values (b, d))
        The training patterns, some rows at a time.
    n : int
        Number of rows in all.
    mean : (d,)

    Returns
    -------
    ndarray (m, n)
        NaN of a constant pattern.
    """
    own = unit_rows(queries - mean)
    out = np.full((len(own), n), np.nan, own.dtype)
    for rows, values in parts:
        out[:, rows] = own @ unit_rows(values - mean).T
    return out


def mean_similarity(of_targets: Sequence[np.ndarray]) -> np.ndarray:
    """Mean (m, n) of the similarities of several targets, each counting the same; NaN where none has a value."""
    stack = np.stack(of_targets)
    known = np.isfinite(stack)
    count = known.sum(axis=0)
    total = np.where(known, stack, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def best_rows(similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row (m,) of the most similar training pattern of each query, and how similar it is; row 0 where none has one."""
    filled = np.where(np.isfinite(similar), similar, -np.inf)
    rows = filled.argmax(axis=1)
    best = filled[np.arange(len(filled)), rows]
    return rows, np.where(np.isfinite(best), best, np.nan)


def thirds(nearness: np.ndarray) -> list[np.ndarray]:
    """Rows of the stimuli whose nearness (m,) is highest, middle and lowest, as equal in number as can be.

    Fewer parts of fewer than three stimuli; stimuli without a value are in none.
    """
    known = np.flatnonzero(np.isfinite(nearness))
    order = known[np.argsort(-nearness[known], kind="stable")]
    return [part for part in np.array_split(order, len(THIRDS)) if len(part)]
