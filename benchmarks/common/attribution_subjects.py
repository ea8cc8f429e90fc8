"""Small simulated subjects whose regions encode what is known, with the truth in closed form."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.rois import Rois

LATENTS = 8
WIDTHS = {"z": 40, "c": 30, "g02": 50}
"""Columns of the targets."""
SIGNAL, PAIR, SUPPRESSOR, NOISE = "signal", "redundant", "suppressor", "noise"
KINDS = (*(SIGNAL,) * 6, *(PAIR,) * 2, SUPPRESSOR, *(NOISE,) * 4)
"""What the regions are: two of eight latent variables each; twice the same two; only the noise that the first region's
responses have in them; nothing that anything else has."""
SMALL_KINDS = (SIGNAL, PAIR, PAIR, *(NOISE,) * 4)


@dataclass(frozen=True)
class Size:
    """Training and test stimuli, kinds of the regions, fewest and most voxels of one."""

    n: int
    m: int
    kinds: tuple[str, ...]
    voxels: tuple[int, int]


WHOLE = Size(300, 150, KINDS, (10, 50))
SMALL = Size(60, 40, SMALL_KINDS, (6, 12))


@dataclass(frozen=True)
class Subject:
    """Betas and targets of training and test, regions, and of every target what each region encodes.

    `alone` has the R² of the best linear decoder of the region's voxels there could be, `unique` what the best decoder
    of all voxels loses without them; both (regions,), from the covariances that the data were drawn with.
    """

    train: Betas
    test: Betas
    train_targets: Embeddings
    test_targets: Embeddings
    rois: Rois
    kinds: tuple[str, ...]
    alone: dict[str, np.ndarray]
    unique: dict[str, np.ndarray]


def subject(seed: int, size: Size = WHOLE, encodes: bool = True) -> Subject:
    """Draw one subject; without `encodes` no voxel has anything to do with the targets."""
    rng = np.random.default_rng([seed, len(size.kinds), int(encodes)])
    n_voxels = rng.integers(*size.voxels, len(size.kinds), endpoint=True)
    labels = np.repeat(np.arange(1, len(size.kinds) + 1), n_voxels)
    loadings = np.concatenate(list(_loadings(size.kinds, n_voxels, rng)), 1)  # (LATENTS + shared noise, p)
    sources = rng.standard_normal((size.n + size.m, len(loadings)))
    own = rng.uniform(1.5, 2.5, len(labels))
    x = sources @ loadings + own * rng.standard_normal((len(sources), len(labels)))
    seen = sources[:, :LATENTS] if encodes else rng.standard_normal((len(sources), LATENTS))
    covariance = loadings.T @ loadings + np.diag(own**2)
    values, alone, unique = {}, {}, {}
    for name, width in WIDTHS.items():
        mix = rng.standard_normal((LATENTS, width)) * rng.uniform(0.3, 1.5, (LATENTS, 1))
        values[name] = seen @ mix + np.linalg.norm(mix, axis=0) * 0.7 * rng.standard_normal((len(seen), width))
        energy = 1.49 * (mix**2).sum()
        cross = loadings[:LATENTS].T @ mix if encodes else np.zeros((len(labels), width))
        alone[name], unique[name] = _truth(covariance, cross, energy, labels)
    parts = slice(None, size.n), slice(size.n, None)
    ids = np.arange(len(x))
    betas = [_betas(x[part], ids[part]) for part in parts]
    targets = [
        Embeddings(values["z"][part, None], values["c"][part, None], {"g02": values["g02"][part, None]}, ids[part])
        for part in parts
    ]
    names = {k: f"{kind}-{k}" for k, kind in enumerate(size.kinds, 1)}
    rois = Rois("regions", labels.reshape(-1, 1, 1), names, np.eye(4))
    return Subject(*betas, *targets, rois, size.kinds, alone, unique)


def _loadings(kinds: tuple[str, ...], n_voxels: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How strongly every voxel of a region has each latent variable and the shared noise, (LATENTS + 2, voxels)."""
    pair = rng.choice(LATENTS, 2, replace=False)
    first = True
    for kind, size in zip(kinds, n_voxels, strict=True):
        out = np.zeros((LATENTS + 2, size))
        strength = np.exp(rng.uniform(np.log(0.15), np.log(1.0)))
        if kind in (SIGNAL, PAIR):
            own = pair if kind == PAIR else rng.choice(LATENTS, 2, replace=False)
            out[own] = (0.5 if kind == PAIR else strength) * rng.standard_normal((2, size))
        if kind == SUPPRESSOR or (kind == SIGNAL and first):
            out[LATENTS:] = rng.standard_normal((2, size))
            first = False
        yield out


def _truth(
    covariance: np.ndarray, cross: np.ndarray, energy: float, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """R² of every region's voxels alone, and what all voxels lose without them, in the population."""

    def r2(mask: np.ndarray) -> float:
        weights = np.linalg.solve(covariance[np.ix_(mask, mask)], cross[mask])
        return float((weights * cross[mask]).sum() / energy)

    masks = [labels == k for k in range(1, labels.max() + 1)]
    whole = r2(np.ones(len(labels), bool))
    return np.array([r2(mask) for mask in masks]), np.array([whole - r2(~mask) for mask in masks])


def _betas(x: np.ndarray, ids: np.ndarray) -> Betas:
    p, ones = x.shape[1], np.ones(len(x), int)
    voxels = np.stack([np.arange(p), np.zeros(p, int), np.zeros(p, int)], 1)
    return Betas(x.astype(np.float32), ids, ones.astype(bool), ones, voxels, np.eye(4), (p, 1, 1), "func1pt8mm")
