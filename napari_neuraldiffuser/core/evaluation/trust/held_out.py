"""Fewer numbers of the voxels, kinds of images, and how well decoded patterns agree with true ones."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.scores import difference_of
from napari_neuraldiffuser.core.evaluation.trust.nearest import unit_rows

NUMBERS = (1, 5, 10, 30, 50, 100)
"""How many numbers the voxels are reduced to."""
KINDS = 5
"""Clusters of the text embeddings of the training images."""
TINY = 1e-10


def components(train: np.ndarray, test: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """First `most` principal components of training betas (n, p), and those of test betas (m, p).

    Returns
    -------
    (n, k), (m, k)
        k is `most`, or fewer where the training betas vary in fewer directions; highest variance first.  They are found
        from the smaller of both sides, X Xᵀ or Xᵀ X.
    """
    mean = train.mean(axis=0, dtype=np.float64)
    x, x_test = train - mean, test - mean
    n, p = x.shape
    gram = x @ x.T if n <= p else x.T @ x
    size = len(gram)
    with threadpool_limits(1):
        values, vectors = scipy.linalg.eigh(gram, subset_by_index=(max(size - most, 0), size - 1))
    kept = np.flatnonzero(values > TINY * max(values[-1], 0))[::-1]
    values, vectors = values[kept], vectors[:, kept]
    axes = x.T @ vectors / np.sqrt(values) if n <= p else vectors
    return x @ axes, x_test @ axes


def kinds(values: np.ndarray, k: int = KINDS, seed: int = 0) -> np.ndarray:
    """Cluster (n,) of every pattern (n, d) by k-means, numbered from 0 without gaps."""
    from scipy.cluster.vq import kmeans2

    _, labels = kmeans2(np.asarray(values, np.float64), min(k, len(values)), minit="++", rng=seed, missing="warn")
    return np.unique(labels, return_inverse=True)[1]


def dealt(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same labels dealt out at random: parts of the same sizes that are no kinds."""
    return np.random.default_rng(seed).permutation(labels)


def pattern_r(decoded: np.ndarray, true: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Correlation (m,) over columns of every decoded with its true pattern (m, d), both minus the training mean."""
    return np.asarray((unit_rows(decoded - mean) * unit_rows(true - mean)).sum(axis=1))


def enough(curve: Mapping[int, np.ndarray], whole: np.ndarray) -> int | None:
    """The fewest numbers from which on the agreement (m,) is not clearly lower than from all voxels; None if never."""
    found = None
    for numbers in sorted(curve, reverse=True):
        d = Difference.of_summary(difference_of(curve[numbers] - whole))
        if d.clear and (d.mean or 0) < 0:
            break
        found = numbers
    return found


def folds(labels: np.ndarray) -> Sequence[np.ndarray]:
    """Rows of every label."""
    return [np.flatnonzero(labels == one) for one in np.unique(labels)]
