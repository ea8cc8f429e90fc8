"""Output-dimension collapse: what of the true targets lies in the span of the training targets at all.

A linear prediction is a weighted sum of training targets, ŷ' = k (K + αI)⁻¹ Y: with n training stimuli and d > n
columns it cannot leave the span of the n rows of Y, whatever the scans say (arXiv 2509.15832).  The projection of true
targets on that span is the best that any linear decoder of these training stimuli can give; it costs one Gram matrix.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.decoding.errors import DecodingError

COLUMNS_AT_ONCE = 8192
JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)
"""Of the mean energy of a training target: below the first, half precision's rounding is all there is."""


def operations(n: int, m: int, d: int) -> float:
    """Multiplications and additions that `project` takes."""
    return float(n) * n * d + 4.0 * n * m * d + n**3 / 3


def project(
    train: np.ndarray, mean: np.ndarray, test: np.ndarray, progress: Callable[[int, int], None] = lambda done, n: None
) -> np.ndarray:
    """Projection of deviations `test` (m, d) on the span of the rows of `train` (n, d) minus `mean` (d,): (m, d).

    Solves (Y Yᵀ + εI) bᵀ = Y y'ᵀ and takes b Y (method.md eq. 59); columns run in blocks, in the type of `test`.
    """
    n, dtype = len(train), test.dtype
    gram, cross = np.zeros((n, n)), np.zeros((n, len(test)))
    spans = [slice(start, start + COLUMNS_AT_ONCE) for start in range(0, train.shape[1], COLUMNS_AT_ONCE)]
    for k, part in enumerate(spans):
        progress(k, 2 * len(spans))
        y = _deviations(train, mean, part, dtype)
        gram += y @ y.T
        cross += y @ test[:, part].T
    weights, out = _solve(gram, cross).T.astype(dtype), np.empty_like(test)
    for k, part in enumerate(spans, len(spans)):
        progress(k, 2 * len(spans))
        out[:, part] = weights @ _deviations(train, mean, part, dtype)
    return out


def _solve(gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """(gram + εI)⁻¹ cross; ε is as much larger as products in single precision need to be positive definite."""
    energy = max(float(np.trace(gram)) / len(gram), np.finfo(np.float64).tiny)
    diagonal, own = np.diag_indices(len(gram)), gram.diagonal().copy()
    for jitter in JITTERS:
        gram[diagonal] = own + jitter * energy
        with suppress(np.linalg.LinAlgError), threadpool_limits(1):
            factor = scipy.linalg.cho_factor(gram, lower=True, check_finite=False)
            return scipy.linalg.cho_solve(factor, cross, check_finite=False)
    raise DecodingError("training targets must be finite to be projected on, got others. Extract the targets again.")


def _deviations(train: np.ndarray, mean: np.ndarray, part: slice, dtype: np.dtype) -> np.ndarray:
    return train[:, part].astype(dtype) - mean[part].astype(dtype)
