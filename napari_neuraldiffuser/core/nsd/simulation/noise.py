"""What a scanner adds: trial noise that neighbours share, slow drift, and another gain in every session."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_neuraldiffuser.core.nsd.simulation.brain import GRIDS, Brain

N_MAPS = 40
SMOOTH_MM = 7.0
SHARED_NOISE = 0.35
"""Share of the remaining trial noise's variance that is spatially correlated."""

SIGNAL_LIKE = 1.0
"""Variance of the signal-like trial noise relative to the signal: it bounds what any decoder can reach (R^2 at most
1 / (1 + SIGNAL_LIKE / 3) for the average of three trials), as averaging over voxels does not remove it."""

DRIFT, GAIN_SD, BASELINE = 0.4, 0.07, 1.0
"""Drift relative to the trial noise; spread of the session gain; mean response in percent signal change."""

QUIET_LEVEL = 1.5
"""Trial noise, percent signal change, of grey matter that does not respond to images."""


@dataclass
class NoiseModel:
    """Noise of one subject.

    Attributes
    ----------
    maps : (N_MAPS, n_voxels) float32
        Smooth spatial patterns, unit sum of squares per voxel; the first half carries the drift.
    level : (n_voxels,) float32
        Standard deviation of the trial noise beside the signal-like part, percent signal change.
    """

    maps: np.ndarray
    level: np.ndarray


@dataclass
class SessionNoise:
    """Time courses of one session: `shared` and `drift` (trials, N_MAPS), and the session's gain."""

    shared: np.ndarray
    drift: np.ndarray
    gain: float


def smooth_maps(brain: Brain, grid: str, rng: np.random.Generator) -> np.ndarray:
    """Random spatial patterns of SMOOTH_MM, (N_MAPS, n_voxels) float32, unit sum of squares per voxel."""
    width = SMOOTH_MM / GRIDS[grid][0]
    where = tuple(brain.voxels.T)
    maps = np.empty((N_MAPS, len(brain.voxels)), dtype=np.float32)
    for row in maps:
        row[:] = gaussian_filter(rng.standard_normal(brain.shape, dtype=np.float32), width)[where]
    return maps / np.sqrt((maps**2).sum(axis=0))


def session_noise(n_trials: int, rng: np.random.Generator) -> SessionNoise:
    """Draw one session's shared noise (white in time), drift (one to three slow cosines) and gain."""
    shared = rng.standard_normal((n_trials, N_MAPS)).astype(np.float32)
    time = np.linspace(0, 1, n_trials)[:, None]
    cycles, phase = rng.uniform(0.3, 3.0, N_MAPS), rng.uniform(0, 2 * np.pi, N_MAPS)
    drift = np.sqrt(2) * np.cos(2 * np.pi * cycles * time + phase)
    return SessionNoise(shared, drift.astype(np.float32), float(1 + GAIN_SD * rng.standard_normal()))


def signal_like(signal: np.ndarray, n_trials: int, rng: np.random.Generator) -> np.ndarray:
    """Trial noise with the signal's own covariance over voxels, (n_trials, n_voxels) float32.

    Attention, imagery and eye movements move responses along the directions in which images move them; such noise,
    unlike independent noise, limits information (Moreno-Bote et al. 2014, doi:10.1038/nn.3807). Drawn as random
    mixtures of the signals (n_images, n_voxels), whose mean over images is zero.
    """
    mixture = rng.standard_normal((n_trials, len(signal)), dtype=np.float32) / np.float32(np.sqrt(len(signal)))
    return np.float32(np.sqrt(SIGNAL_LIKE)) * (mixture @ signal)


def remaining_level(amplitude: np.ndarray, ncsnr: np.ndarray) -> np.ndarray:
    """Standard deviation of the trial noise beside the signal-like part, such that both together give `ncsnr`."""
    return amplitude * np.sqrt(np.maximum(1 / ncsnr**2 - SIGNAL_LIKE, 0.0))


def observe(
    signal: np.ndarray, model: NoiseModel, session: SessionNoise, part: slice, rng: np.random.Generator
) -> np.ndarray:
    """Betas of some voxels in one session, percent signal change.

    Parameters
    ----------
    signal : (trials, n) float32
        Responses of the voxels of `part`, signal-like noise included.
    model, session : NoiseModel, SessionNoise
    part : slice
        Which voxels of the model.
    rng : numpy.random.Generator
        Draws the independent noise of this part of this session.

    Returns
    -------
    (trials, n) float32
    """
    maps = model.maps[:, part]
    noise = rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(np.sqrt(1 - SHARED_NOISE))
    noise += np.float32(np.sqrt(SHARED_NOISE)) * (session.shared @ maps)
    noise += np.float32(DRIFT) * (session.drift @ maps)
    noise *= model.level[part]
    noise += signal
    noise += BASELINE
    noise *= np.float32(session.gain)
    return noise
