"""What the scanner measures of a simulated subject: responses that lag, drift, motion, physiology and noise."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from scipy.stats import gamma

from napari_neuraldiffuser.core.nsd.simulate import SimulatedSubject
from napari_neuraldiffuser.core.nsd.simulation import noise
from napari_neuraldiffuser.core.nsd.simulation.bold.trials import ScanRun
from napari_neuraldiffuser.core.params import BoldSimulationParams

NEURAL_SHARE = 0.5
"""Share of the nominal trial noise's variance that is in the responses themselves; the scanner adds the other half."""
DELAY, DISPERSION, UNDERSHOOT_AT, UNDERSHOOT = 6.0, 1.1, 16.0, 0.2
"""Double gamma of the response: its first delay (s, beside `hrf_delay`), widths, second delay and relative depth. SPM's
has dispersion 1 and depth 1/6."""
DELAYS = (-0.6, -0.3, 0.0, 0.3, 0.6)
"""Voxels respond at five speeds: seconds beside the mean delay, in patches of the brain."""
FINE = 0.05
DRIFT, PHYSIOLOGY, PER_MM = 0.8, 0.5, 1.0
"""Standard deviations of drift and physiological noise, and the effect of 1 mm of motion: percent of the signal."""
N_PHYSIOLOGY, LEAK = 6, 0.25
"""Physiological sources, and what of a component in the confounds table is not theirs."""
JUMPS = 0.01
"""Share of volumes in which the head jumps."""
HEAD_MM = 50.0
"""Radius that turns rotations into displacement (Power et al. 2012)."""
BASELINE = 10_000.0
"""Mean of the stored signal, before the anatomy shades it."""


def response_curve(delay: float, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds after the onset, and the response to an image shown for `duration` s, with a peak of 1."""
    time = np.arange(0, 40 + duration, FINE)
    width = DISPERSION
    impulse = gamma.pdf(time, (DELAY + delay) / width, scale=width)
    impulse -= UNDERSHOOT * gamma.pdf(time, UNDERSHOOT_AT / width, scale=width)
    curve = np.convolve(impulse, np.ones(max(1, round(duration / FINE))))[: len(time)]
    return time, curve / curve.max()


def true_betas(
    subject: SimulatedSubject, runs: list[ScanRun], params: BoldSimulationParams, session: int
) -> np.ndarray:
    """Responses of one session's trials, (n_trials, n_grey) float32: percent signal change at the peak.

    Signal, signal-like noise and half of the nominal trial noise, times the session's gain; 0 in voxels that do not
    respond to images.
    """
    before = sum(len(one.trials) for one in runs if one.session < session)
    n = sum(len(one.trials) for one in runs if one.session == session)
    rng = np.random.default_rng([params.seed, 21, subject.number, session])
    rows = subject.people.rows
    course = noise.session_noise(n, rng)
    own = subject.signal[subject.image_of[before : before + n]]
    own = own + params.noise * noise.signal_like(subject.signal, n, rng)
    shared = course.shared @ subject.noise.maps[:, rows]
    alone = rng.standard_normal(own.shape, dtype=np.float32)
    trial = np.sqrt(1 - noise.SHARED_NOISE) * alone + np.sqrt(noise.SHARED_NOISE) * shared
    own = own + np.float32(np.sqrt(NEURAL_SHARE)) * trial * subject.noise.level[rows]
    betas = np.zeros((n, len(subject.brain.voxels)), dtype=np.float32)
    betas[:, rows] = course.gain * (noise.BASELINE + own)
    return betas


@dataclass
class Nuisance:
    """Of one run: motion (n, 6) in mm and radians, physiological sources (n, N_PHYSIOLOGY) of unit variance."""

    motion: np.ndarray
    physiology: np.ndarray


def make_nuisance(n: int, params: BoldSimulationParams, rng: np.random.Generator) -> Nuisance:
    """Draw a run's head motion, which wanders and now and then jumps and comes back, and its physiology."""
    steps = rng.standard_normal((n, 6))
    wander = lfilter([1.0], [1.0, -0.98], steps, axis=0) * np.sqrt(1 - 0.98**2)
    wander -= wander[0]
    jumps = (rng.uniform(size=(n, 1)) < JUMPS) * rng.normal(0, 2.0, (n, 6))
    millimetres = params.motion * (wander + lfilter([1.0], [1.0, -0.5], jumps, axis=0))
    motion = millimetres / np.array([1, 1, 1, HEAD_MM, HEAD_MM, HEAD_MM])
    sources = lfilter([1.0], [1.0, -0.7], rng.standard_normal((n, N_PHYSIOLOGY)), axis=0) * np.sqrt(1 - 0.7**2)
    return Nuisance(motion, sources)


def displacement(motion: np.ndarray) -> np.ndarray:
    """Framewise displacement, (n,) mm; NaN at the first volume."""
    moved = np.abs(np.diff(motion, axis=0)) * np.array([1, 1, 1, HEAD_MM, HEAD_MM, HEAD_MM])
    return np.concatenate([[np.nan], moved.sum(axis=1)])


def confounds_table(nuisance: Nuisance, rng: np.random.Generator) -> pd.DataFrame:
    """fMRIPrep's columns; the components see the physiology with some noise."""
    columns: dict[str, np.ndarray] = {}
    for k, name in enumerate(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"):
        values = nuisance.motion[:, k]
        slope = np.concatenate([[np.nan], np.diff(values)])
        columns |= {name: values, f"{name}_derivative1": slope}
        columns |= {f"{name}_power2": values**2, f"{name}_derivative1_power2": slope**2}
    columns["framewise_displacement"] = displacement(nuisance.motion)
    n = len(nuisance.physiology)
    mixture = np.linalg.qr(rng.standard_normal((N_PHYSIOLOGY, N_PHYSIOLOGY)))[0]
    seen = nuisance.physiology @ mixture + LEAK * rng.standard_normal((n, N_PHYSIOLOGY))
    for name, k in (("csf", 0), ("white_matter", 1), ("global_signal", 2)):
        columns[name] = BASELINE * (1 + 0.01 * nuisance.physiology[:, k] + 0.002 * rng.standard_normal(n))
    columns |= {f"a_comp_cor_{k:02d}": seen[:, k] / np.linalg.norm(seen[:, k]) for k in range(N_PHYSIOLOGY)}
    return pd.DataFrame(columns)


def measure(
    subject: SimulatedSubject,
    run: ScanRun,
    betas: np.ndarray,
    nuisance: Nuisance,
    params: BoldSimulationParams,
    rng: np.random.Generator,
) -> np.ndarray:
    """BOLD of one run at all grey voxels, (n_volumes, n_grey) float32 percent of each voxel's mean.

    Parameters
    ----------
    subject : SimulatedSubject
    run : ScanRun
    betas : (n_trials, n_grey) float32
        Of this run.
    nuisance : Nuisance
    params : BoldSimulationParams
    rng : numpy.random.Generator
        Draws drift and noise.
    """
    frames = params.tr * (np.arange(run.n_volumes) + 0.5)
    maps = subject.noise.maps
    bold = _evoked(run, frames, betas, _speeds(maps), params)
    slow = np.stack([_slow_course(frames, rng) for _ in range(len(maps))], axis=1)
    bold += np.float32(DRIFT) * (slow @ maps)
    bold += np.float32(PHYSIOLOGY) * (nuisance.physiology.astype(np.float32) @ _spread(maps[:N_PHYSIOLOGY]))
    millimetres = nuisance.motion * np.array([1, 1, 1, HEAD_MM, HEAD_MM, HEAD_MM])
    moved = np.concatenate([millimetres, np.diff(millimetres, axis=0, prepend=millimetres[:1])], axis=1)
    bold += np.float32(PER_MM) * (moved.astype(np.float32) @ _spread(maps[N_PHYSIOLOGY : N_PHYSIOLOGY + 12]))
    return bold + _noise(run.n_volumes, maps, params, rng)


def _speeds(maps: np.ndarray) -> np.ndarray:
    """(n_grey,) index into DELAYS: equally many voxels each, in patches."""
    rank = np.argsort(np.argsort(maps[-1]))
    return rank * len(DELAYS) // len(rank)


def _evoked(
    run: ScanRun, frames: np.ndarray, betas: np.ndarray, speeds: np.ndarray, params: BoldSimulationParams
) -> np.ndarray:
    since = frames[:, None] - run.trials["onset"].to_numpy()
    bold = np.empty((len(frames), betas.shape[1]), dtype=np.float32)
    for k, delay in enumerate(DELAYS):
        time, curve = response_curve(params.hrf_delay + delay, params.trial_duration)
        regressors = np.interp(since, time, curve, left=0, right=0).astype(np.float32)
        bold[:, speeds == k] = regressors @ betas[:, speeds == k]
    return bold


def _slow_course(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A trend and two slow waves, of unit variance."""
    time = frames / frames[-1]
    course = rng.normal() * (time - 0.5) * 3
    for _ in range(2):
        period = rng.uniform(150, 600)
        course = course + rng.normal() * np.cos(2 * np.pi * frames / period + rng.uniform(0, 2 * np.pi))
    return (course / max(course.std(), 1e-6)).astype(np.float32)


def _spread(maps: np.ndarray) -> np.ndarray:
    """Spatial weights of some sources, of unit sum of squares per voxel on average."""
    return maps * np.float32(1 / np.sqrt((maps**2).sum(axis=0).mean()))


def _noise(n: int, maps: np.ndarray, params: BoldSimulationParams, rng: np.random.Generator) -> np.ndarray:
    """Autocorrelated noise that neighbours share in part, (n, n_grey) float32 percent."""
    warm = 20
    alone = rng.standard_normal((n + warm, maps.shape[1]), dtype=np.float32)
    shared = rng.standard_normal((n + warm, len(maps)), dtype=np.float32) @ maps
    both = np.sqrt(1 - noise.SHARED_NOISE) * alone + np.sqrt(noise.SHARED_NOISE) * shared
    phi = params.autocorrelation
    course = lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], both, axis=0)[warm:]
    return (100 / params.tsnr * course).astype(np.float32)
