"""The directions of a target that a linear map of the betas predicts, found without the targets in memory.

Y (n, T) are training targets minus their mean, H = U S (S + αI)⁻¹ Uᵀ ridge's fit to them.  The directions are the
leading right singular vectors of HY: what ridge decodes lies in their span but for its smallest part.  HY is never
formed: its left singular vectors are taken from some of its columns, and two passes over the targets, each product
of n x T with a few hundred columns, give the right ones and the targets' scores (subspace iteration, Halko, Martinsson
and Tropp 2011).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from napari_neuraldiffuser.core.decoding.solver import Spectrum

MORE = 32
"""Directions beyond those wanted that the passes carry along, so that the last wanted ones are exact, too."""
SMALLEST = 1e-10
"""Directions with less than this share of the largest one's energy are rounding."""

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Begins a pass over the targets: (rows (b,), values minus the mean (b, T)), every row once."""


@dataclass(frozen=True)
class Span:
    """Targets in the directions that betas predict.

    Attributes
    ----------
    directions : ndarray (T, k)
        Orthonormal, the one that ridge predicts most of first: P.
    scores : ndarray (n, k) float64
        Targets minus their mean in these directions: Y P.
    energy : ndarray (n,) float64
        Sum of squares of every row of Y.
    sd : ndarray (T,) float64
        Of every column of Y.
    sample : ndarray (m, T)
        The rows of Y that were asked for.
    """

    directions: np.ndarray
    scores: np.ndarray
    energy: np.ndarray
    sd: np.ndarray
    sample: np.ndarray


def smoothed(spectrum: Spectrum, alpha: float, right: np.ndarray) -> np.ndarray:
    """Ridge's fit H `right`, (n, k), to centred columns `right` (n, k)."""
    u, s = spectrum.u, spectrum.s
    return u @ ((u.T @ right.astype(u.dtype)) * (s / (s + alpha))[:, None].astype(u.dtype))


def find(
    spectrum: Spectrum, alpha: float, some: np.ndarray, size: int, rank: int, blocks: Blocks, sample: np.ndarray
) -> Span:
    """The `rank` directions that ridge at the penalty `alpha` predicts most of (method.md eq. 14).

    Parameters
    ----------
    spectrum : Spectrum
        Of the training betas.
    alpha : float
    some : ndarray (n, t)
        Columns of Y, drawn at random; more than `rank`, or all.
    size : int
        T.
    rank : int
        Most directions; there are fewer if the targets or betas have fewer.
    blocks : callable
        Begins a pass over Y.
    sample : ndarray (m,)
        Rows of Y to keep.
    """
    left = smoothed(spectrum, alpha, _leading(smoothed(spectrum, alpha, some), rank + MORE))
    product = np.zeros((size, left.shape[1]), some.dtype)
    for rows, y in blocks():
        product += y.T @ left[rows].astype(y.dtype)
    directions = scipy.linalg.qr(product, mode="economic", overwrite_a=True, check_finite=False)[0]
    found = _scores(directions, len(left), blocks, sample)
    fitted = smoothed(spectrum, alpha, found.scores)
    values, vectors = np.linalg.eigh((fitted.T @ fitted).astype(np.float64))
    kept = np.flatnonzero(values > values[-1] * SMALLEST)[::-1][:rank]
    turn = vectors[:, kept]
    return replace(found, directions=directions @ turn.astype(directions.dtype), scores=found.scores @ turn)


def _leading(columns: np.ndarray, count: int) -> np.ndarray:
    """Leading left singular vectors (n, at most count) of columns (n, t)."""
    values, vectors = np.linalg.eigh((columns.T @ columns).astype(np.float64))
    kept = np.flatnonzero(values > values[-1] * SMALLEST)[::-1][:count]
    return columns @ (vectors[:, kept] / np.sqrt(values[kept]))


def _scores(directions: np.ndarray, n: int, blocks: Blocks, sample: np.ndarray) -> Span:
    """Scores in some directions, and what else of Y one pass tells."""
    scores, energy, squares = np.empty((n, directions.shape[1])), np.empty(n), np.zeros(len(directions))
    place, kept = np.full(n, -1), np.empty((len(sample), len(directions)), directions.dtype)
    place[sample] = np.arange(len(sample))
    for rows, y in blocks():
        scores[rows] = y @ directions
        energy[rows] = np.einsum("ij,ij->i", y, y)
        squares += np.einsum("ij,ij->j", y, y)
        among = place[rows] >= 0
        kept[place[rows[among]]] = y[among]
    return Span(directions, scores, energy, np.sqrt(squares / n), kept)
