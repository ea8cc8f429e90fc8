"""Image-agreement measures as pure functions of arrays (NumPy, SciPy and scikit-image only).

Everything here follows the protocol of MindEye2 (Scotti et al. 2024, `Final_Evaluations.ipynb`): PixCorr and
SSIM after a bilinear resize, and Pearson correlations of features.  A correlation
with a constant image has no value: it is NaN here, never a silent 0.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_neuraldiffuser.core.base.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SSIM_SIGMA, SSIM_TRUNCATE = 1.5, 3.5
LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
"""Shares of red, green and blue (ITU-R BT.709 as scikit-image rounds it)."""
HOG_SIZE, HOG_VALUES = 128, 8100
HOG_ORIENTATIONS, HOG_CELL, HOG_BLOCK = 9, 8, 2
HOG_CLIP, HOG_EPS = 0.2, 1e-5
# A row whose spread is below this share of its largest value is constant but for rounding.
CONSTANT = 1e-6


class MetricError(UserError):
    """Arrays that cannot be scored; the message names the array, the rule and the shape."""


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, antialiased resize to a square.

    The weights are those of Pillow and of ``torch.nn.functional.interpolate(mode="bilinear",
    antialias=True)``; when enlarging they are plain bilinear interpolation.

    Parameters
    ----------
    images : array (n, H, W) or (n, H, W, channels)
    size : int
        Side of the result, pixels.

    Returns
    -------
    array (n, size, size[, channels]) float64
    """
    images = np.asarray(images, dtype=np.float64)
    if images.shape[1:3] == (size, size):
        return images
    rows, columns = _triangle_weights(images.shape[1], size), _triangle_weights(images.shape[2], size)
    resized = np.empty((len(images), size, size, *images.shape[3:]))
    for image, place in zip(images, resized, strict=True):
        # (H, W, channels) to (W, size, channels) to (size, size, channels)
        turned = np.swapaxes((rows @ image.reshape(len(image), -1)).reshape(size, *image.shape[1:]), 0, 1)
        done = columns @ np.ascontiguousarray(turned).reshape(len(turned), -1)
        place[:] = np.swapaxes(done.reshape(size, *turned.shape[1:]), 0, 1)
    return resized


@lru_cache(maxsize=16)
def _triangle_weights(n_in: int, n_out: int) -> "csr_array":
    """(n_out, n_in) weights of the triangle filter, widened when the image shrinks; nearly all are 0."""
    from scipy.sparse import csr_array

    scale = n_in / n_out
    centre = (np.arange(n_out) + 0.5) * scale
    distance = (np.arange(n_in) + 0.5)[None, :] - centre[:, None]
    weights = np.clip(1 - np.abs(distance) / max(scale, 1.0), 0, None)
    return csr_array(weights / weights.sum(axis=1, keepdims=True))


def grey(images: np.ndarray) -> np.ndarray:
    """Luminance in [0, 1] of colour images (..., H, W, 3), uint8 or in [0, 1], as ``skimage.color.rgb2gray``."""
    images = np.asarray(images)
    return images @ (LUMINANCE / 255 if images.dtype == np.uint8 else LUMINANCE)


def standardise(rows: np.ndarray, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    """Centre each row and scale it to unit length, so that inner products are Pearson correlations.

    Parameters
    ----------
    rows : array (n, d)

    Returns
    -------
    array (n, d)
        A constant or non-finite row is all NaN.
    """
    rows = np.asarray(rows, dtype=dtype)
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(dtype)
    length = np.sqrt([[row @ row] for row in centred], dtype=dtype)
    peak = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
    defined = length > CONSTANT * peak * np.sqrt(rows.shape[1])  # False for NaN too
    np.divide(centred, length, out=centred, where=defined)
    centred[~defined[:, 0]] = np.nan
    return centred


def correlations(a: np.ndarray, b: np.ndarray, dtype: npt.DTypeLike = np.float64) -> np.ndarray:
    """Pearson correlation of every row of `a` (n, d) with every row of `b` (m, d): (n, m), NaN if undefined."""
    left = standardise(a, dtype)
    return left @ (left if b is a else standardise(b, dtype)).T


def pixcorr_matrix(images: np.ndarray) -> np.ndarray:
    """PixCorr between all pairs of images (m, H, W, 3): Pearson over pixels and channels, (m, m) (method.md eq. 43)."""
    flat = images.reshape(len(images), -1)
    return correlations(flat, flat)


def ssim_matrix(greys: np.ndarray) -> np.ndarray:
    """Structural similarity between all pairs of images (Wang et al. 2004).

    Equal to ``skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)``; each image's local mean and variance are computed once and
    shared by its pairs, which is what makes all pairs of repeats affordable at 425 px.

    Parameters
    ----------
    greys : array (m, H, W)
        Grey images in [0, 1].

    Returns
    -------
    array (m, m)
    """
    n = len(greys)
    means = [_blur(x) for x in greys]
    # two images need the sum of their squares alone
    squares = [_blur(x * x) for x in greys] if n > 2 else []
    matrix = np.eye(n)
    for i in range(n):
        for j in range(i):
            energy = squares[i] + squares[j] if squares else _blur(greys[i] ** 2 + greys[j] ** 2)
            matrix[i, j] = matrix[j, i] = _ssim(means[i], means[j], energy, _blur(greys[i] * greys[j]))
    return matrix


def _blur(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, SSIM_SIGMA, truncate=SSIM_TRUNCATE)


def _ssim(mean_a: np.ndarray, mean_b: np.ndarray, energy: np.ndarray, both: np.ndarray) -> float:
    """Mean of the SSIM map (method.md eq. 44) without the border where the window leaves the image.

    Parameters
    ----------
    mean_a, mean_b : array (H, W)
        Local means.
    energy, both : array (H, W)
        Local means of a² + b², and of a b.
    """
    c1, c2 = 0.01**2, 0.03**2
    edge = int(SSIM_TRUNCATE * SSIM_SIGMA + 0.5)
    mean_a, mean_b, energy, both = (x[edge:-edge, edge:-edge] for x in (mean_a, mean_b, energy, both))
    product, means = mean_a * mean_b, mean_a**2 + mean_b**2
    numerator = (2 * product + c1) * (2 * (both - product) + c2)
    return float((numerator / ((means + c1) * (energy - means + c2))).mean())


def hog_edges(images: np.ndarray) -> np.ndarray:
    """HOG features (Dalal and Triggs 2005): edges and layout without colour (method.md eq. 45).

    Parameters
    ----------
    images : uint8 array (n, H, W, 3)

    Returns
    -------
    array (n, HOG_VALUES) float32
        ``skimage.feature.hog`` of the grey image at `HOG_SIZE`: 9 orientations, cells of 8 x 8 px, blocks of 2 x 2
        cells, L2-Hys.  Its loop over blocks takes most of its time, so here they are computed at once.
    """
    small = resize(grey(images), HOG_SIZE)
    # resizing leaves rounding noise on flat areas, which block normalisation would blow up into edges
    return np.stack([_blocks(_cells(np.round(x, 9))) for x in small]).astype(np.float32)


def _cells(image: np.ndarray) -> np.ndarray:
    """Mean gradient of each orientation in the cells of a grey image: (rows, columns, HOG_ORIENTATIONS)."""
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[1:-1], right[:, 1:-1] = image[2:] - image[:-2], image[:, 2:] - image[:, :-2]
    degrees = np.rad2deg(np.arctan2(down, right)) % 180
    which = (degrees // (180 / HOG_ORIENTATIONS)).astype(int)
    n = np.array(image.shape) // HOG_CELL
    rows, columns = (np.arange(side) // HOG_CELL for side in image.shape)
    place = (rows[:, None] * n[1] + columns) * HOG_ORIENTATIONS + which
    known = which < HOG_ORIENTATIONS  # rounding can give 180, which scikit-image counts nowhere
    strength = np.hypot(right, down)
    total = np.bincount(place[known], strength[known], n[0] * n[1] * HOG_ORIENTATIONS)
    return total.reshape(*n, HOG_ORIENTATIONS) / HOG_CELL**2


def _blocks(cells: np.ndarray) -> np.ndarray:
    """Overlapping blocks of cells, normalised, clipped and normalised again: (d,)."""
    windows = np.lib.stride_tricks.sliding_window_view(cells, (HOG_BLOCK, HOG_BLOCK), axis=(0, 1))
    blocks = np.moveaxis(windows, 2, -1).reshape(-1, HOG_BLOCK**2 * HOG_ORIENTATIONS)  # (blocks, cells and directions)

    def normalised(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).sum(axis=1, keepdims=True) + HOG_EPS**2)

    return normalised(np.minimum(normalised(blocks), HOG_CLIP)).ravel()


def repeat_agreement(features: np.ndarray) -> np.ndarray:
    """Mean correlation of features (n, repeats, d) of each repeat with the others of its stimulus, (n, repeats)."""
    # the first row stands where with_first_and_between expects the seen image; that half is not used
    stacks = (np.concatenate([f[:1], f]) for f in features)
    return np.stack([with_first_and_between(correlations(s, s))[1] for s in stacks])


def repeat_identification(features: np.ndarray) -> np.ndarray:
    """Are two repeats of a stimulus closer to each other than to those of other stimuli (method.md eq. 48)?

    A decoder that always gives the same picture has perfectly consistent repeats; this is what it fails.

    Parameters
    ----------
    features : array (n, repeats, d)

    Returns
    -------
    array (n, repeats)
        For repeat k of stimulus i: the share of (l, j, m) with l != k and j != i for which
        corr(i_k, i_l) > corr(i_k, j_m).  NaN with one stimulus, one repeat or an undefined correlation.
    """
    n, repeats, _ = features.shape
    rows = standardise(features.reshape(n * repeats, -1), np.float32)
    owner = np.repeat(np.arange(n), repeats)
    scores = np.full((n, repeats), np.nan)
    if n < 2 or repeats < 2:
        return scores
    for i in range(n):
        r = rows[owner == i] @ rows.T  # (repeats, n * repeats)
        for k in range(repeats):
            own = np.delete(r[k, owner == i], k)
            scores[i, k] = _share_below(own, r[k, owner != i])
    return scores


def _share_below(own: np.ndarray, others: np.ndarray) -> float:
    """Share of pairs with other < own, over the defined values; NaN without any."""
    own, others = own[np.isfinite(own)], np.sort(others[np.isfinite(others)])
    if not own.size or not others.size:
        return np.nan
    return float(np.searchsorted(others, own, side="left").mean() / others.size)


def with_first_and_between(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split an (1 + repeats)-square agreement matrix whose first row is the seen image (method.md eq. 47).

    Returns
    -------
    seen : array (repeats,)
        Agreement of each repeat with the seen image.
    between : array (repeats,)
        Mean agreement of each repeat with the other repeats; its mean over repeats is the mean over pairs.
        NaN with a single repeat.
    """
    seen, between = matrix[0, 1:], matrix[1:, 1:]
    n = len(between)
    if n < 2:
        return seen, np.full(n, np.nan)
    off_diagonal = between[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    return seen, nanmean_rows(off_diagonal)


def nanmean_rows(values: np.ndarray) -> np.ndarray:
    """Mean of the defined values of each row, NaN where none is."""
    defined = np.isfinite(values)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.divide(total, defined.sum(axis=1), out=np.full(len(values), np.nan), where=defined.any(axis=1))
