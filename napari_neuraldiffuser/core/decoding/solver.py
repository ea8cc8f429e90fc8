"""Ridge regression in dual form: one eigendecomposition serves every penalty, target and left-out stimulus.

Pure functions of arrays.  Notation, with n training rows, p voxels and T target columns:

X (n, p), Y (n, T)      betas and targets minus their training means, so that the intercept is not penalised
K = X Xᵀ = U S Uᵀ       centred Gram matrix, kept as U (n, r) and s (r,) with r its rank
A = (K + αI)⁻¹ Y        dual coefficients; the weights would be W = Xᵀ A (p, T) and are never formed

Only products XᵀA occur, and the columns of Y outside the span of U vanish in them, so U S Uᵀ may stay thin:
XᵀA = Xᵀ U (S + αI)⁻¹ Uᵀ Y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import threadpool_limits

from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.products import product

VOXELS_AT_ONCE = 2048
STIMULI_AT_ONCE = 512
RELATIVE_RANK = 1e-12


@dataclass(frozen=True)
class Spectrum:
    """Thin eigendecomposition of a centred Gram matrix: `u` (n, r) orthonormal, `s` (r,) > 0, float64."""

    u: np.ndarray
    s: np.ndarray

    @property
    def full(self) -> bool:
        """Whether U spans every centred vector, so that nothing of a centred Y lies outside it."""
        return len(self.s) == len(self.u) - 1


def decompose(x: np.ndarray, device: str = "cpu") -> Spectrum:
    """Eigendecomposition of X Xᵀ (method.md eq. 9) for centred X (n, p), by the smaller of X Xᵀ and XᵀX.

    It runs in float64 on `device`; `u` has the type of x.

    Raises
    ------
    DecodingError
        If X has no variance at all.
    """
    n, p = x.shape
    if n <= p:
        return decompose_gram(gram(x), x.dtype, device)
    s, vectors = _leading(gram(x.T), 0, device)
    return Spectrum(np.ascontiguousarray(x @ vectors / np.sqrt(s), dtype=x.dtype), s)


def decompose_gram(products: np.ndarray, dtype: npt.DTypeLike, device: str = "cpu") -> Spectrum:
    """Eigendecomposition of the inner products X Xᵀ (n, n) float64 of centred betas, which are overwritten.

    Raises
    ------
    DecodingError
        If X has no variance at all.
    """
    # centring takes one dimension, and rounding must not give it back
    s, vectors = _leading(products, 1, device)
    return Spectrum(np.ascontiguousarray(vectors, dtype=dtype), s)


def _leading(products: np.ndarray, lost: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues above rounding, ascending, and their vectors, without the `lost` smallest."""
    s, vectors = _eigh(products) if device == "cpu" else _eigh_torch(products, device)
    first = max(int(np.searchsorted(s, max(s[-1], 0.0) * RELATIVE_RANK, "right")), lost)
    if first == len(s):
        raise DecodingError("betas must vary between stimuli, got constant betas. Check the beta files and the mask.")
    return np.ascontiguousarray(s[first:]), vectors[:, first:]


def _eigh(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # several threads made this many times slower on a busy machine than one
    with threadpool_limits(1):
        s, vectors = scipy.linalg.eigh(products, overwrite_a=True, check_finite=False, driver="evd")
    return s, vectors


def _eigh_torch(products: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    import torch

    s, vectors = torch.linalg.eigh(torch.from_numpy(products).to(device))
    return s.cpu().numpy(), vectors.cpu().numpy()


def gram(x: np.ndarray) -> np.ndarray:
    """x xᵀ (n, n) in float64, a block of columns at a time so that x is never copied whole."""
    total = np.zeros((len(x), len(x)))
    for start in range(0, x.shape[1], VOXELS_AT_ONCE):
        block = x[:, start : start + VOXELS_AT_ONCE].astype(np.float64)
        total += block @ block.T
    return total


def apply_inverse(spectrum: Spectrum, alpha: float, right: np.ndarray) -> np.ndarray:
    """U (S + αI)⁻¹ Uᵀ right, (n, k) for right (n, k): all of (K + αI)⁻¹ that Xᵀ leaves (method.md eq. 10)."""
    return apply_inverses(spectrum, [alpha], right)[0]


def apply_inverses(
    spectrum: Spectrum, alphas: Sequence[float], right: np.ndarray, device: str = "cpu"
) -> list[np.ndarray]:
    """`apply_inverse` at several penalties, with one pass over U for all of them where `right` is narrow."""
    u = spectrum.u.astype(right.dtype, copy=False)
    inside, k = product(u.T, right, device), right.shape[1]
    scaled = [inside / (spectrum.s + alpha)[:, None].astype(right.dtype) for alpha in alphas]
    if k * len(alphas) > STIMULI_AT_ONCE:
        return [product(u, each, device) for each in scaled]
    return np.split(product(u, np.concatenate(scaled, 1), device), len(alphas), 1)


def stimulus_groups(stimulus_ids: np.ndarray) -> list[np.ndarray]:
    """Row indices of each stimulus, as one (stimuli, k) array per number k of rows that a stimulus has."""
    _, inverse, counts = np.unique(stimulus_ids, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.cumsum(counts) - counts
    return [order[starts[counts == k][:, None] + np.arange(k)] for k in np.unique(counts)]


@dataclass(frozen=True)
class LeaveOut:
    """What turns training residuals at one penalty into those of stimuli left out of the fit.

    `blocks` holds (rows (g, k), inverse (g, k, k)) per group size k, inverse being (I - H_GG)⁻¹ of one
    stimulus' block of the hat matrix H = 11ᵀ/n + U S(S + αI)⁻¹ Uᵀ.
    """

    alpha: float
    blocks: list[tuple[np.ndarray, np.ndarray]]


def leave_out(spectrum: Spectrum, groups: list[np.ndarray], alpha: float) -> LeaveOut:
    """Exact leave-one-stimulus-out (method.md eq. 11; PRESS, Allen 1974, by blocks).

    With one row per stimulus this is leave-one-out.  Repeats of an image are left out together, because a
    repeat in training would give its image away.
    """
    return LeaveOut(alpha, [(rows, np.linalg.inv(_remainder(spectrum, rows, alpha))) for rows in groups])


def _remainder(spectrum: Spectrum, rows: np.ndarray, alpha: float) -> np.ndarray:
    """(I - H)_GG of stimuli with rows (g, k), as U α(S + αI)⁻¹ Uᵀ plus what is outside U: (g, k, k).

    Written so that nothing cancels for small α.
    """
    g, k = rows.shape
    out = np.empty((g, k, k))
    weight = alpha / (spectrum.s + alpha)
    for start in range(0, g, STIMULI_AT_ONCE):
        u = spectrum.u[rows[start : start + STIMULI_AT_ONCE]]  # (stimuli, k, r)
        part = (u * weight) @ u.swapaxes(1, 2)
        if not spectrum.full:
            part += np.eye(k) - 1.0 / len(spectrum.u) - u @ u.swapaxes(1, 2)
        out[start : start + STIMULI_AT_ONCE] = part
    return out


@dataclass(frozen=True)
class Rotated:
    """Centred targets in the eigenbasis: `inside` UᵀY (r, t) and `outside` Y - U UᵀY (n, t), None if zero."""

    u: np.ndarray
    inside: np.ndarray
    outside: np.ndarray | None


def rotate(spectrum: Spectrum, y: np.ndarray) -> Rotated:
    """Prepare centred targets (n, t) once for all penalties; products run in y's dtype."""
    u = spectrum.u.astype(y.dtype, copy=False)
    inside = u.T @ y
    return Rotated(u, inside, None if spectrum.full else y - u @ inside)


def leave_out_residuals(spectrum: Spectrum, rotated: Rotated, left: LeaveOut) -> np.ndarray:
    """y minus its prediction without its own stimulus, (n, t), at the penalty of `left`."""
    shrink = (left.alpha / (spectrum.s + left.alpha)).astype(rotated.inside.dtype)
    residuals = rotated.u @ (shrink[:, None] * rotated.inside)
    if rotated.outside is not None:
        residuals += rotated.outside
    out = np.empty_like(residuals)
    for rows, inverse in left.blocks:
        if rows.shape[1] == 1:
            out[rows[:, 0]] = residuals[rows[:, 0]] * inverse[:, 0].astype(residuals.dtype)
        else:
            out[rows] = inverse.astype(residuals.dtype) @ residuals[rows]
    return out


def energy(values: np.ndarray) -> float:
    """Sum of squares, rows in the values' own dtype and their sum in float64."""
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))
