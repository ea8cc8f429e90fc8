"""Principal components of the targets: what heads end with, and what the latent means to every subject alike.

Two levels, so that 305,920 columns are no hindrance: components of each target, and components of their joint scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.solver import energy
from napari_neuraldiffuser.core.decoding.targets import Rows, blocks, gather, is_constant, match_rows, target_shape
from napari_neuraldiffuser.core.networks.embeddings import Targets

STIMULI = 2000
"""Stimuli that components of a target are computed from; more change them little."""
SMALLEST = 1e-7
"""A component with less than this share of the first one's variance is rounding."""


@dataclass(frozen=True)
class TargetBasis:
    """Components of one target: `mean` (T,), orthonormal `components` (b, T) and the `shape` of a stimulus' target.

    `size` is the variance of all columns together.  A constant target has no components.
    """

    mean: np.ndarray
    components: np.ndarray
    size: float
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Basis:
    """Components of every target, and of all of them together.

    Attributes
    ----------
    targets : dict of str to TargetBasis
        In the project's order.
    loadings : dict of str to ndarray (b, k) float32
        Scores of a target from the latent: its share of each joint component, times the component's spread.
    """

    targets: dict[str, TargetBasis]
    loadings: dict[str, np.ndarray]

    def latents(self, scores: dict[str, np.ndarray]) -> np.ndarray:
        """True latents (n, k) of stimuli with the scores (n, b) of every target: unit variance (method.md eq. 60)."""
        # loadings are V sd size^1/2 with orthonormal V, so that V' score / sd is this
        parts = [(name, loading / np.float32(self.targets[name].size)) for name, loading in self.loadings.items()]
        variance = np.sum([(self.loadings[name] * scaled).sum(0) for name, scaled in parts], axis=0)
        total = np.sum([scores[name] @ scaled for name, scaled in parts], axis=0)
        return np.asarray(total / variance, dtype=np.float32)


Pool = Sequence[tuple[Targets, Rows]]
"""Targets of one or several subjects, each with the rows of its training stimuli, every stimulus once."""


def unique_rows(targets: Targets, stimulus_ids: np.ndarray) -> Rows:
    """Rows of the different ones among some stimuli."""
    return match_rows(targets.stimulus_ids, np.unique(stimulus_ids))


def fit_basis(
    pool: Pool, names: Sequence[str], bottleneck: int, width: int, seed: int, progress: Progress | None = None
) -> Basis:
    """Components of the targets of all subjects' training stimuli.

    Parameters
    ----------
    bottleneck : int
        Most components of a target.
    width : int
        Most joint components.
    seed : int
        Draws the stimuli, where there are more than `STIMULI`.
    """
    report, found, scores = progress or silent, {}, {}
    few = _drawn(pool, np.random.default_rng([seed, 60]))
    for done, name in enumerate(names, 1):
        found[name] = _target_basis(few, name, bottleneck)
        scores[name] = np.concatenate([project(found[name], targets, name, rows).scores for targets, rows in pool])
        report(done, len(names), f"components of targets, {name}")
    return Basis(found, _loadings(found, scores, width))


@dataclass(frozen=True)
class Projected:
    """Scores (n, b) of a target, and `energy` (n,): squared deviations from the mean, over all columns."""

    scores: np.ndarray
    energy: np.ndarray


def project(basis: TargetBasis, targets: Targets, name: str, rows: Rows) -> Projected:
    """Scores of one target, in the order of the betas that `rows` was made for; streamed.

    Raises
    ------
    DecodingError
        If a value is not finite.
    """
    n = len(rows.order)
    out = Projected(np.empty((n, len(basis.components)), np.float32), np.empty(n))
    mean = basis.mean.astype(np.float32)
    for positions, values in blocks(targets, name, rows, np.float32):
        centred = values - mean
        out.scores[positions] = centred @ basis.components.T
        out.energy[positions] = np.einsum("ij,ij->i", centred, centred)
    if not np.isfinite(out.energy).all():
        raise DecodingError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract the targets again.")
    return out


def _drawn(pool: Pool, rng: np.random.Generator) -> Pool:
    """An equal share of each subject's stimuli, `STIMULI` together."""
    share, out = STIMULI // len(pool), []
    for targets, rows in pool:
        n = len(rows.stored)
        kept = np.sort(rng.choice(n, min(n, share), replace=False))
        out.append((targets, Rows(np.arange(len(kept)), rows.stored[kept])))
    return out


def _target_basis(pool: Pool, name: str, bottleneck: int) -> TargetBasis:
    y = np.concatenate([gather(targets, name, rows, np.float32) for targets, rows in pool])
    mean = y.mean(0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise DecodingError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract the targets again.")
    y -= mean.astype(np.float32)
    total, shape = energy(y), target_shape(pool[0][0], name)
    if is_constant(total, mean, len(y)):
        return TargetBasis(mean, np.empty((0, y.shape[1]), np.float32), 1.0, shape)
    return TargetBasis(mean, _components(y, bottleneck), total / len(y), shape)


def _components(y: np.ndarray, most: int) -> np.ndarray:
    """First right singular vectors (b, T) of y (n, T), by the smaller of y yᵀ and yᵀy."""
    wide = len(y) <= y.shape[1]
    gram = (y @ y.T if wide else y.T @ y).astype(np.float64)
    n = len(gram)
    # several threads made this many times slower on a busy machine than one
    with threadpool_limits(1):
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=(max(0, n - most), n - 1), check_finite=False)
    keep = values > values[-1] * SMALLEST
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    rows = (vectors.T.astype(np.float32) @ y) / np.sqrt(values)[:, None] if wide else vectors.T
    return np.ascontiguousarray(rows, dtype=np.float32)


def _loadings(targets: dict[str, TargetBasis], scores: dict[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Joint components of the scores, every target scaled to the same total variance."""
    joint = np.concatenate([scores[name] / np.sqrt(basis.size) for name, basis in targets.items()], axis=1)
    if not joint.shape[1]:
        raise DecodingError("targets must vary between stimuli, got constant ones. Extract the targets again.")
    components = _components(joint, width)
    sd = np.sqrt(np.square(joint @ components.T).mean(0))
    ends = np.cumsum([len(basis.components) for basis in targets.values()])
    parts = np.split((components * sd[:, None]).T, ends[:-1])
    return {
        name: np.ascontiguousarray(part * np.sqrt(targets[name].size), dtype=np.float32)
        for name, part in zip(targets, parts, strict=True)
    }
