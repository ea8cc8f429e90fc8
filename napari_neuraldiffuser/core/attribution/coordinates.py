"""Targets in as few numbers as ridge needs: coordinates in the span of the training targets.

Ridge meets training targets Y (n, T) and true test targets Y* (m, T) in inner products of rows only, Y Yᵀ and Y* Yᵀ;
whatever it predicts lies in the span of the rows of Y.  With Y Yᵀ = V Λ Vᵀ the coordinates of both in its principal
directions are V Λ^½ (n, k) and Y* Yᵀ V Λ^-½ (m, k), k < n: every fit, score and permutation of any set of voxels has
the same value in them as in all T columns, which are read once.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.attribution.shares import Truth
from napari_neuraldiffuser.core.decoding.penalties import panels
from napari_neuraldiffuser.core.decoding.products import TargetMatrix
from napari_neuraldiffuser.core.decoding.ridge import RidgeDecoder
from napari_neuraldiffuser.core.decoding.targets import is_constant

MOST_STIMULI = 2048
"""With more training stimuli, as many columns of a target are drawn instead, and stand for all."""
RELATIVE_RANK = 1e-10


@dataclass(frozen=True)
class Coordinates:
    """Deviations of one target from the training mean: `train` (n, k) and `test` (m, k), the directions of most energy
    first, and `energies` (m,) float64, ‖y'‖² of the test rows in all columns."""

    train: np.ndarray
    test: np.ndarray
    energies: np.ndarray


def coordinates(decoder: RidgeDecoder, truth: Truth, name: str, seed: int = 0) -> Coordinates | None:
    """Coordinates of one target; None where it does not vary in the training or the test stimuli."""
    fit = decoder.accuracy[name]
    size = fit.mean.size
    own = TargetMatrix(decoder.targets, name, decoder.rows, fit.mean, decoder.dtype)
    other = TargetMatrix(truth.targets, name, truth.rows, fit.mean, decoder.dtype)
    n = len(decoder.rows.order)
    found = _of_columns(own, other, seed) if size <= n or n > MOST_STIMULI else _of_products(own, other)
    constant = is_constant(float(found.energies.sum()), fit.mean, len(found.energies))
    return None if fit.constant or constant else found


def _of_columns(own: TargetMatrix, other: TargetMatrix, seed: int) -> Coordinates:
    """Of all columns, or of `MOST_STIMULI` that are drawn, turned to their principal directions."""
    size = own.mean.size
    chosen = np.sort(np.random.default_rng(seed).choice(size, min(size, MOST_STIMULI), replace=False))
    y, t = (
        np.concatenate([each.panel(part)[:, _within(chosen, part)] for part in panels(size)], 1)
        for each in (own, other)
    )
    _, turn = _eigh(y.T.astype(np.float64) @ y)
    turn = turn[:, ::-1].astype(y.dtype)
    return Coordinates(y @ turn, t @ turn, np.einsum("ij,ij->i", t, t, dtype=np.float64))


def _within(chosen: np.ndarray, part: slice) -> np.ndarray:
    return chosen[(chosen >= part.start) & (chosen < part.stop)] - part.start


def _of_products(own: TargetMatrix, other: TargetMatrix) -> Coordinates:
    """Of all columns, by the inner products of rows."""
    n, m = len(own.rows.order), len(other.rows.order)
    products, cross, energies = np.zeros((n, n)), np.zeros((m, n)), np.zeros(m)
    for part in panels(own.mean.size):
        y, t = own.panel(part), other.panel(part)
        products += y @ y.T
        cross += t @ y.T
        energies += np.einsum("ij,ij->i", t, t, dtype=np.float64)
    values, vectors = _eigh(products)
    kept = np.flatnonzero(values > RELATIVE_RANK * values[-1])[::-1]
    root = np.sqrt(values[kept])
    train, test = vectors[:, kept] * root, cross @ vectors[:, kept] / root
    return Coordinates(train.astype(own.dtype), test.astype(own.dtype), energies)


def _eigh(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with threadpool_limits(1):
        values, vectors = scipy.linalg.eigh(products, overwrite_a=True, check_finite=False, driver="evd")
    return values, vectors
