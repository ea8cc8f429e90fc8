"""Where training starts: ridge in every direction of a target, with a penalty of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.decoding import solver


@dataclass(frozen=True)
class Start:
    """Ridge in k directions.

    Attributes
    ----------
    alphas : ndarray (k,)
        Penalty of every direction.
    left_out : ndarray (n, k) float64
        Scores of every training row predicted without its own stimulus (method.md eq. 11): L.
    """

    alphas: np.ndarray
    left_out: np.ndarray


def best_penalty(spectrum: solver.Spectrum, leaves: Sequence[solver.LeaveOut], y: np.ndarray) -> float:
    """The one penalty that predicts left-out stimuli best, for centred columns (n, t)."""
    rotated = solver.rotate(spectrum, y)
    squares = [solver.energy(solver.leave_out_residuals(spectrum, rotated, left)) for left in leaves]
    return leaves[int(np.argmin(squares))].alpha


def begin(spectrum: solver.Spectrum, leaves: Sequence[solver.LeaveOut], scores: np.ndarray) -> Start:
    """The penalty that predicts left-out stimuli best, direction by direction, for centred scores (n, k)."""
    rotated = solver.rotate(spectrum, scores.astype(spectrum.u.dtype))
    least, alphas, left_out = np.full(scores.shape[1], np.inf), np.zeros(scores.shape[1]), np.zeros_like(scores)
    for left in leaves:
        residuals = solver.leave_out_residuals(spectrum, rotated, left)
        squares = np.einsum("ij,ij->j", residuals, residuals, dtype=np.float64)
        better = squares < least
        least[better], alphas[better] = squares[better], left.alpha
        left_out[:, better] = scores[:, better] - residuals[:, better]
    return Start(alphas, left_out)


def dual(spectrum: solver.Spectrum, alphas: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(K + α_j I)⁻¹ times column j of the scores, (n, k): the map from betas is Xᵀ of it (method.md eq. 15)."""
    u = spectrum.u
    return u @ ((u.T @ scores.astype(u.dtype)) / (spectrum.s[:, None] + alphas)).astype(u.dtype)
