"""Small betas, targets and brute-force references for decoding and contribution tests."""

import numpy as np

from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.rois import Rois

AFFINE = np.array([[-1.8, 0, 0, 80.0], [0, 1.8, 0, -90.0], [0, 0, 1.8, -60.0], [0, 0, 0, 1]])
SHAPE = (7, 6, 5)


def make_betas(data, stimulus_ids=None):
    """Betas with p voxels at scattered places of a 7 x 6 x 5 grid."""
    n, p = data.shape
    chosen = np.sort(np.random.default_rng(5).permutation(np.prod(SHAPE))[:p])
    voxels = np.stack(np.unravel_index(chosen, SHAPE), axis=1)
    ids = np.arange(n) if stimulus_ids is None else np.asarray(stimulus_ids)
    ones = np.ones(n, dtype=int)
    return Betas(data, ids, ones.astype(bool), ones, voxels, AFFINE, SHAPE, "func1pt8mm")


def make_targets(y, stimulus_ids=None, layers=("g02",)):
    """Embeddings whose groups take the columns of y (n, T) in turn: z 8, c 6, layers the rest."""
    n = len(y)
    ids = np.arange(n) if stimulus_ids is None else np.asarray(stimulus_ids)
    rest = np.split(y[:, 14:], len(layers), axis=1)
    g = {layer: part.reshape(n, 1, -1) for layer, part in zip(layers, rest, strict=True)}
    return Embeddings(y[:, :8].reshape(n, 2, 2, 2), y[:, 8:14].reshape(n, 2, 3), g, ids)


def without_c(targets):
    """The same targets of images that have no captions."""

    class Lacking(Embeddings):
        def __iter__(self):
            return (name for name in super().__iter__() if name != "c")

    attrs = {**targets.attrs, "without": "the images have no captions"}
    return Lacking(targets.z, targets.c, targets.g, targets.stimulus_ids, attrs)


def linear_data(n, p, t=22, m=9, noise=1.0, seed=0):
    """Linearly related betas and targets, far from zero mean: training x, y, then test x, y."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((p, t)) / np.sqrt(p)
    x = rng.standard_normal((n + m, p)) + rng.standard_normal(p)
    y = x @ w + noise * rng.standard_normal((n + m, t)) + 3 * rng.standard_normal(t)
    return x[:n], y[:n], x[n:], y[n:]


def primal_ridge(x, y, alpha):
    """Weights (p, T) and intercept (T,) of the normal equations with an unpenalised intercept, in float64."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    xc = x - x_mean
    weights = np.linalg.solve(xc.T @ xc + alpha * np.eye(x.shape[1]), xc.T @ (y - y_mean))
    return weights, y_mean - x_mean @ weights


def make_rois(name, labels_of_voxels, names, betas):
    """A family of ROIs from one label per voxel."""
    volume = np.full(SHAPE, -1)
    volume[tuple(betas.voxels.T)] = labels_of_voxels
    return Rois(name, volume, names, AFFINE)
