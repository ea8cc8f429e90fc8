"""Who a reconstruction is taken for: two-way and n-way identification, rank and distance, from correlations.

Everything here is computed from one matrix for each repeat, r_ij = corr(seen_i, recon_j), so that none of the scores
needs the features again; it is also what pairings other than the given one are tested by.
"""

from collections.abc import Callable, Iterator

import numpy as np

from napari_neuraldiffuser.core.evaluation.metrics import correlations, standardise
from napari_neuraldiffuser.core.evaluation.stack import Stack

WAYS = 50
"""Candidates of n-way identification; all stimuli, where there are fewer."""

Matrices = np.ndarray
"""Correlations (repeats, n seen, n reconstructions) float32; NaN where one has no value."""
Network = Callable[[np.ndarray], dict[str, np.ndarray]]
"""uint8 images (m, H, W, 3) to features (m, d) of each of its layers."""


def matrices(features: np.ndarray, seen: np.ndarray) -> Matrices:
    """Correlations of features (n, repeats, d) of reconstructions with those (n, 1, d) of the seen images."""
    return np.stack([correlations(seen[:, 0], features[:, k], np.float32) for k in range(features.shape[1])])


def network_matrices(
    images: Stack, seen: Stack, network: Network, batch_size: int, told: Callable[[int], None]
) -> dict[str, Matrices]:
    """The same by layer of a network, whose features of reconstructions are held one batch at a time.

    AlexNet's second layer has 184,512 features: of 982 x 5 pictures they would take 3.6 GB.

    Parameters
    ----------
    images, seen : Stack
        Of n stimuli each.
    network : callable
    batch_size : int
    told : callable
        Called with the number of pictures that were encoded.
    """
    rows: dict[str, np.ndarray] = {}
    n, done = len(seen), 0
    for found in _encoded(seen, network, batch_size):
        for layer, features in found.items():
            part = standardise(features, np.float32)
            rows.setdefault(layer, np.empty((n, part.shape[1]), np.float32))[done : done + len(part)] = part
        done += len(next(iter(found.values())))
        told(done)
    r = {layer: np.empty((n * images.repeats, n), np.float32) for layer in rows}
    for found in _encoded(images, network, batch_size):
        first = done - n
        for layer, features in found.items():
            r[layer][first : first + len(features)] = standardise(features, np.float32) @ rows[layer].T
        done += len(next(iter(found.values())))
        told(done)
    # (stimulus and repeat, seen) to (repeat, seen, stimulus)
    return {layer: one.reshape(n, images.repeats, n).transpose(1, 2, 0) for layer, one in r.items()}


def _encoded(pictures: Stack, network: Network, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    return (network(batch) for batch in pictures.batches(batch_size))


def paired_with(r: Matrices, others: np.ndarray) -> Matrices:
    """The matrices of reconstructions that stand for other stimuli: `others` (n, repeats') says whose each is."""
    return np.stack([r[k][:, others[:, k]] for k in range(others.shape[1])])


def two_way(r: Matrices) -> np.ndarray:
    """Share of the other seen images that a reconstruction correlates less with than with its own, (n, repeats)."""
    below, of = _beaten(r)
    return _ratio(below, of)


def n_way(r: Matrices, ways: int = WAYS) -> np.ndarray:
    """Probability that the own image is the best of `ways` that are drawn at random with it, (n, repeats).

    Exact, and not drawn: of M others, of which L correlate less, `ways` - 1 are drawn without replacement, so it is
    C(L, ways - 1) / C(M, ways - 1).  Where there are fewer others, all are taken.
    """
    below, of = _beaten(r)
    drawn = np.minimum(ways - 1, of)
    result = np.where(np.isnan(below) | (of < 1), np.nan, 1.0)
    for k in range(int(drawn.max(initial=0))):
        left = np.where(k < drawn, np.clip(below - k, 0, None) / np.maximum(of - k, 1), 1.0)
        result = result * left
    return result


def rank(r: Matrices) -> np.ndarray:
    """Place of the own image among all, by correlation with the reconstruction, (n, repeats): 1 is best.

    Others that correlate equally stand before it, as they do in `two_way`.
    """
    below, of = _beaten(r)
    return np.where(of > 0, 1 + of - below, np.nan)


def distance(r: Matrices) -> np.ndarray:
    """1 - correlation with the own image, (n, repeats)."""
    return 1 - np.diagonal(r, axis1=1, axis2=2).T.astype(np.float64)


def _beaten(r: Matrices) -> tuple[np.ndarray, np.ndarray]:
    """(n, repeats): others that correlate less with it than its own image (NaN: undefined), and of how many."""
    own = np.diagonal(r, axis1=1, axis2=2)
    comparable = np.isfinite(r) & ~np.eye(r.shape[1], dtype=bool)
    below = ((r < own[:, None]) & comparable).sum(axis=1).astype(np.float64)
    return np.where(np.isfinite(own), below, np.nan).T, comparable.sum(axis=1).T


def _ratio(below: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.divide(below, of, out=np.full(below.shape, np.nan), where=of > 0)
