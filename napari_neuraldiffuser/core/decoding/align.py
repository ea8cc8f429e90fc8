"""Matching mean and spread of the decoded z to those of real latents.

A ridge prediction varies less than its target.  The published code shifts and scales every column of z with
statistics of the whole test set, which one new scan does not have; `train` takes those of predictions for
training stimuli that were left out of the fit.
"""

from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.decoding import solver
from napari_neuraldiffuser.core.decoding.decoder import DecodingError

COLUMNS_AT_ONCE = 2048
LARGEST_GAIN = 1000.0
"""A column decoded with less than 1/1000 of its true spread carries nothing: it becomes the training mean."""


@dataclass(frozen=True)
class Alignment:
    """Statistics per column of z, each (T,) float64: of left-out predictions, and of the training targets."""

    decoded_mean: np.ndarray
    decoded_sd: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def measure(y: np.ndarray, mean: np.ndarray, spectrum: solver.Spectrum, left: solver.LeaveOut) -> Alignment:
    """Statistics of z predicted for every training stimulus without itself, at the penalty of `left`.

    `y` (n, T) is z minus its `mean` (T,).
    """
    decoded_mean, decoded_sd = np.empty(mean.size), np.empty(mean.size)
    for start in range(0, mean.size, COLUMNS_AT_ONCE):
        part = slice(start, start + COLUMNS_AT_ONCE)
        truth = np.ascontiguousarray(y[:, part])
        rotated = solver.rotate(spectrum, truth)
        decoded = truth - solver.leave_out_residuals(spectrum, rotated, left)
        decoded_mean[part] = decoded.mean(0, dtype=np.float64)
        decoded_sd[part] = decoded.std(0, dtype=np.float64)
    return Alignment(decoded_mean + mean, decoded_sd, mean, y.std(0, dtype=np.float64))


def aligned(z: np.ndarray, how: str, stats: Alignment) -> np.ndarray:
    """(z - mean) / sd * sd_train + mean_train per column, for z (m, T) (method.md eq. 13).

    Mean and sd are of the left-out predictions where `how` is "train", and of `z` itself, as in the published code,
    where it is "test".

    Raises
    ------
    DecodingError
        For "test" with fewer than 2 stimuli.
    """
    if how == "test" and len(z) < 2:
        raise DecodingError(
            f"align='test' must have at least 2 stimuli to take statistics of, got {len(z)}. Use align='train'."
        )
    mean, sd = stats.decoded_mean, stats.decoded_sd
    if how == "test":
        mean, sd = z.mean(0, dtype=np.float64), z.std(0, dtype=np.float64)
    usable = sd * LARGEST_GAIN > stats.sd
    return (z - mean) * np.where(usable, stats.sd / np.where(usable, sd, 1.0), 0.0) + stats.mean
