"""The voxel encoder of a subject: ridge from its betas to the latent that subjects share, and what it predicts.

A network that learned from what ridge says of its own training stimuli would trust it too much for new ones.  It learns
from predictions of stimuli that were left out, whose noise is that of new stimuli.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.decoding import solver

FEWEST = 100
"""Training stimuli below which no further, noisier encoder is fitted."""
CONSTANT_LATENT = 1e-6


@dataclass(frozen=True)
class Encoder:
    """Ridge weights (p, k) float32 from centred betas to latents, with the penalty of each; `mean` (p,) of the betas.

    `offset` (k,) is the subject's mean latent.
    """

    weights: np.ndarray
    offset: np.ndarray
    mean: np.ndarray
    alphas: np.ndarray

    def __call__(self, data: np.ndarray) -> np.ndarray:
        """Latents (m, k) of betas (m, p) (method.md eq. 61)."""
        return (data - self.mean).astype(np.float32) @ self.weights + self.offset


@dataclass(frozen=True)
class Encoded:
    """An encoder and the latents (n, k) that encoders without the own stimulus predict for its training rows."""

    encoder: Encoder
    left_out: np.ndarray


def fold_rows(stimulus_ids: np.ndarray, n_folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of each of `n_folds` parts of about the same number of stimuli; all rows of a stimulus are in one part."""
    ids, inverse = np.unique(stimulus_ids, return_inverse=True)
    part = np.empty(len(ids), np.int64)
    part[rng.permutation(len(ids))] = np.arange(len(ids)) % min(n_folds, len(ids))
    return [np.flatnonzero(part[inverse] == k) for k in range(min(n_folds, len(ids)))]


def fit_encoder(data: np.ndarray, latents: np.ndarray, folds: list[np.ndarray], alphas: tuple[float, ...]) -> Encoded:
    """Ridge with a penalty per latent, that which predicts the folds best one from the others.

    Parameters
    ----------
    data : ndarray (n, p)
    latents : ndarray (n, k)
        Those of the rows' stimuli.
    folds : list of ndarray
        From `fold_rows`.
    """
    mean, offset = data.mean(0, dtype=np.float64), latents.mean(0, dtype=np.float64)
    x, y = (data - mean).astype(np.float32), (latents - offset).astype(np.float32)
    spectrum = solver.decompose(x)
    rotated = solver.rotate(spectrum, y)
    best, left_out, chosen = np.full(y.shape[1], np.inf), np.zeros_like(y), np.full(y.shape[1], max(alphas))
    for alpha in sorted(alphas, reverse=True):
        left = solver.leave_out(spectrum, [rows[None] for rows in folds], alpha)
        residuals = solver.leave_out_residuals(spectrum, rotated, left)
        error = np.square(residuals).sum(0, dtype=np.float64)
        better = error < best
        best[better], chosen[better] = error[better], alpha
        left_out[:, better] = (y - residuals)[:, better]
    weights = _weights(spectrum, x, y, chosen)
    return Encoded(Encoder(weights, offset.astype(np.float32), mean, chosen), left_out + offset.astype(np.float32))


def _weights(spectrum: solver.Spectrum, x: np.ndarray, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    out = np.empty((x.shape[1], y.shape[1]), np.float32)
    for alpha in np.unique(alphas):
        out[:, alphas == alpha] = x.T @ solver.apply_inverse(spectrum, float(alpha), y[:, alphas == alpha])
    return out


def noisier(
    data: np.ndarray,
    latents: np.ndarray,
    stimulus_ids: np.ndarray,
    n_folds: int,
    alphas: tuple[float, ...],
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Latents (n, k) as encoders of a half, a quarter ... of the stimuli predict them, NaN for their own stimuli.

    So that a network knows the inputs that a subject with fewer sessions will give it.
    """
    ids = np.unique(stimulus_ids)
    size = len(ids) // 2
    while size >= FEWEST:
        own = np.isin(stimulus_ids, rng.choice(ids, size, replace=False))
        folds = fold_rows(stimulus_ids[own], n_folds, rng)
        encoder = fit_encoder(data[own], latents[own], folds, alphas).encoder
        out = encoder(data)
        out[own] = np.nan
        yield out
        size //= 2
