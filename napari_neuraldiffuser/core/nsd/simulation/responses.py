"""Noise-free responses of simulated voxels to images: receptive fields for the image, tuning for its contents."""

from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.nsd.simulation.atlas import REST, Region
from napari_neuraldiffuser.core.nsd.simulation.brain import Brain
from napari_neuraldiffuser.core.nsd.simulation.features import FIELD_PX

BLOCK_VOXELS, BLOCK_VALUES = 2048, 4_000_000
"""Most voxels, and most responses, that are computed at once."""
LINEAR_SHARE = 0.65
"""Share of the low-level signal's variance from signed luminance, colour and Gabor filters; the rest is contrast
energy."""

CEILINGS = {"prf-visualrois": (25.0, 60.0), "nsdgeneral": (5.0, 35.0)}
CATEGORY_CEILING = (20.0, 55.0)
"""Range of noise ceilings in percent for three trials, by family."""


@dataclass
class Population:
    """Per-voxel properties of the voxels of nsdgeneral, in the order of `rows`.

    Attributes
    ----------
    rows : (n,) int
        Rows of the brain's voxels.
    position : (n, 2) float
        Receptive field centre (x right, y down) as a fraction of the image's side from its centre.
    sigma : (n,) float
        Receptive field size, same unit.
    low_level : (n,) float
        Share of the signal's variance that the image's local features carry.
    preference : list of n tuples of str
        Content prefixes that drive the voxel.
    ceiling : (n,) float
        Noise ceiling in percent for the average of three trials.
    amplitude : (n,) float
        Signal standard deviation, percent signal change.
    """

    rows: np.ndarray
    position: np.ndarray
    sigma: np.ndarray
    low_level: np.ndarray
    preference: list[tuple[str, ...]]
    ceiling: np.ndarray
    amplitude: np.ndarray

    @property
    def ncsnr(self) -> np.ndarray:
        """Signal over trial-noise standard deviation, from NC = 100 s^2 / (s^2 + 1/3)."""
        share = self.ceiling / 100
        return np.sqrt(share / (3 * (1 - share)))


def make_population(brain: Brain, rng: np.random.Generator) -> Population:
    """Draw receptive fields, preferences and noise ceilings of all nsdgeneral voxels."""
    rows = np.flatnonzero(brain.general)
    n = len(rows)
    people = Population(
        rows, np.zeros((n, 2)), np.zeros(n), np.zeros(n), [()] * n, np.zeros(n), rng.uniform(0.6, 1.4, n)
    )
    where = np.full(len(brain.voxels), -1)
    where[rows] = np.arange(n)
    todo = np.ones(n, dtype=bool)
    for region, members in brain.members.items():
        todo[where[members]] = False
        _settle(people, where[members], region, brain, rng)
    _settle(people, np.flatnonzero(todo), REST, brain, rng)
    return people


def _settle(people: Population, which: np.ndarray, region: Region, brain: Brain, rng: np.random.Generator) -> None:
    """Give a region's voxels their properties; where categories overlap, preferences add up."""
    mni = brain.mni[people.rows[which]]
    for side in (mni[:, 0] < 0, mni[:, 0] >= 0):
        people.position[which[side]] = retinotopy(mni[side], region.field, rng)
    eccentricity = np.hypot(*people.position[which].T)
    people.sigma[which] = region.size * (0.03 + 0.06 * eccentricity)
    people.low_level[which] = region.low_level
    people.ceiling[which] = rng.uniform(*CEILINGS.get(region.family, CATEGORY_CEILING), len(which))
    for one in which:
        people.preference[one] = people.preference[one] + region.prefers


def retinotopy(mni: np.ndarray, field: str, rng: np.random.Generator) -> np.ndarray:
    """Receptive field centres of one hemisphere's part of an area, (n, 2).

    Posterior voxels see the fovea and anterior ones the periphery, with more voxels near the fovea; the angle runs
    with height; the field is the opposite side's, upper for ventral and lower for dorsal parts.
    """
    n = len(mni)
    eccentricity = 0.02 + 0.6 * ((np.argsort(np.argsort(mni[:, 1])) + rng.uniform(0, 1, n)) / max(n, 1)) ** 0.7
    turn = (np.argsort(np.argsort(mni[:, 2] + rng.normal(0, 2.0, n))) + rng.uniform(0, 1, n)) / max(n, 1)
    low, high = {"upper": (-0.5, 0.0), "lower": (0.0, 0.5), "both": (-0.5, 0.5)}[field]
    angle = np.pi * (low + (high - low) * turn)
    x, y = eccentricity * np.cos(angle), eccentricity * np.sin(angle)
    side = -1.0 if n and mni[0, 0] > 0 else 1.0
    return np.clip(np.stack([side * x, y], axis=1), -0.49, 0.49)


@dataclass
class LowLevelTuning:
    """What each voxel takes from an image's local features.

    Attributes
    ----------
    signed : (4, n) float
        Weights of luminance, two colours and a Gabor filter.
    energy : (8, n) float
        Weights of oriented contrast energy.
    turn, phase : (n,) float
        Of the Gabor filter.
    """

    signed: np.ndarray
    energy: np.ndarray
    turn: np.ndarray
    phase: np.ndarray


def low_level_tuning(people: Population, rng: np.random.Generator) -> LowLevelTuning:
    """Draw each voxel's mixture of channels."""
    n = len(people.rows)
    signed = rng.normal(size=(4, n)) * np.array([1.0, 0.6, 0.6, 1.0])[:, None]
    # orientation tuning: a smooth bump around a preferred orientation, a preferred frequency band, all positive
    tuning = np.exp(2 * np.cos(2 * (rng.uniform(0, np.pi, n)[None] - np.deg2rad([0, 45, 90, 135])[:, None])))
    band = rng.uniform(0, 1, n)
    weights = np.concatenate([tuning * band, tuning * (1 - band)])
    return LowLevelTuning(signed, weights, rng.uniform(0, np.pi, n), rng.uniform(0, 2 * np.pi, n))


def blocks(n: int, n_images: int) -> list[slice]:
    """Parts of `n` voxels whose responses are computed at once: an intermediate of all of them would take gigabytes."""
    size = max(1, min(BLOCK_VOXELS, BLOCK_VALUES // n_images))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def low_level_signal(
    people: Population,
    tuning: LowLevelTuning,
    opponent: np.ndarray,
    energy: np.ndarray,
    part: slice,
    n: int | None = None,
) -> np.ndarray:
    """Image-driven part of the responses of some voxels, (n_images, n) float32, unit variance per voxel.

    Parameters
    ----------
    people : Population
    tuning : LowLevelTuning
    opponent : (3, n_images, 1024)
        Luminance and colour maps.
    energy : (8, n_images, 1024)
        Oriented contrast energy.
    part : slice
        Which voxels.
    n : int, optional
        Only the first so many images decide mean and variance, as in `unit`.
    """
    pool, gabor = receptive_fields(people.position[part], people.sigma[part], tuning.turn[part], tuning.phase[part])
    signed, weights = tuning.signed[:, part], tuning.energy[:, part]
    linear = sum(w * unit(m @ pool.T, n) for w, m in zip(signed[:3], opponent, strict=True))
    linear = linear + signed[3] * unit(opponent[0] @ gabor.T, n)
    complex_cells = sum(w * (m @ pool.T) for w, m in zip(weights, energy, strict=True))
    mixed = np.sqrt(LINEAR_SHARE) * unit(linear, n) + np.sqrt(1 - LINEAR_SHARE) * unit(np.sqrt(complex_cells), n)
    return unit(mixed, n)


def receptive_fields(
    position: np.ndarray, sigma: np.ndarray, turn: np.ndarray, phase: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian pooling weights (rows sum to 1) and Gabor filters of the same envelope, each (n, 1024) float32."""
    axis = (np.arange(FIELD_PX) + 0.5) / FIELD_PX - 0.5
    dx = axis[None, None, :] - position[:, 0, None, None]
    dy = axis[None, :, None] - position[:, 1, None, None]
    width = np.maximum(sigma, 0.5 / FIELD_PX)[:, None, None]
    envelope = np.exp(-(dx**2 + dy**2) / (2 * width**2))
    along = dx * np.cos(turn)[:, None, None] + dy * np.sin(turn)[:, None, None]
    wave = np.cos(2 * np.pi * along / np.maximum(4 * width, 3 / FIELD_PX) + phase[:, None, None])
    gabor = envelope * wave
    gabor -= envelope * gabor.sum(axis=(1, 2), keepdims=True) / envelope.sum(axis=(1, 2), keepdims=True)
    pool = envelope / envelope.sum(axis=(1, 2), keepdims=True)
    flat = (len(position), FIELD_PX * FIELD_PX)
    return pool.reshape(flat).astype(np.float32), gabor.reshape(flat).astype(np.float32)


def content_tuning(people: Population, names: list[str], rng: np.random.Generator) -> np.ndarray:
    """Weights of what scenes contain, (len(names), n_voxels) float32; the unit of table @ weights is the signal.

    Every voxel has a weak random tuning to everything a scene contains (a distributed code) and a strong positive
    one to what its region prefers.
    """
    weights = rng.normal(0.0, 0.5, (len(names), len(people.rows)))
    rows_of = {prefix: _rows_of(prefix, names) for prefix in {p for prefers in people.preference for p in prefers}}
    for voxel, prefers in enumerate(people.preference):
        for prefix in prefers:
            rows = rows_of[prefix]
            strong = rng.uniform(1.5, 2.5) if len(rows) == 1 else rng.normal(0.0, 1.2, len(rows))
            weights[rows, voxel] += strong
    return weights.astype(np.float32)


def _rows_of(prefix: str, names: list[str]) -> list[int]:
    return [k for k, name in enumerate(names) if name == prefix or (prefix[-1] == ":" and name.startswith(prefix))]


def unit(values: np.ndarray, n: int | None = None) -> np.ndarray:
    """Zero mean and unit variance along the images, the first `n` of them where it is given; a constant column becomes
    0."""
    centred = values - values[:n].mean(axis=0)
    spread = centred[:n].std(axis=0)
    return centred / np.where(spread > 0, spread, 1.0)


def mix(people: Population, low: np.ndarray, content: np.ndarray, part: slice, n: int | None = None) -> np.ndarray:
    """Signal of some voxels in percent signal change, (n_images, n) float32; `n` as in `unit`."""
    share = people.low_level[part]
    both = np.sqrt(share) * low + np.sqrt(1 - share) * content
    return (people.amplitude[part] * unit(both, n)).astype(np.float32)
