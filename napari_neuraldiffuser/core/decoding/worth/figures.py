"""Figures of one target's decoded values (m, T) against the true ones; pure functions of arrays.

Both are minus the training mean, and before alignment: correlations hardly see it, squared errors do.
"""

from dataclasses import dataclass

import numpy as np

COLUMNS_AT_ONCE = 8192


@dataclass(frozen=True)
class TwoWay:
    """Two-way identification: mean and standard error over stimuli, and p of a permutation test."""

    mean: float
    se: float
    p: float


def column_correlation(truth: np.ndarray, decoded: np.ndarray) -> float:
    """Mean over columns of the correlation over stimuli (method.md eq. 55); NaN where no column varies in both."""
    if len(truth) < 2:
        return float("nan")
    total, count = 0.0, 0
    for start in range(0, truth.shape[1], COLUMNS_AT_ONCE):
        part = slice(start, start + COLUMNS_AT_ONCE)
        a, b = (values[:, part] - values[:, part].mean(0, dtype=np.float64) for values in (truth, decoded))
        norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
        varies = _varies(a, truth[:, part]) & _varies(b, decoded[:, part])
        total += float(((a * b).sum(0)[varies] / norm[varies]).sum())
        count += int(varies.sum())
    return total / count if count else float("nan")


def _varies(centred: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Columns that vary by more than rounding."""
    return np.abs(centred).max(0) > 1e-6 * np.maximum(np.abs(values).max(0), 1e-30)


def pattern_agreement(truth: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Correlation (m, m) over columns of true pattern i with decoded pattern j; NaN where one is constant."""
    a, b = (_standard(values) for values in (truth, decoded))
    return a @ b.T


def _standard(values: np.ndarray) -> np.ndarray:
    out = values - values.mean(1, keepdims=True, dtype=np.float64).astype(values.dtype)
    norm = np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))[:, None]
    constant = norm <= 1e-6 * np.abs(values).max(1, keepdims=True)
    return np.where(constant, np.nan, out / np.where(constant, 1.0, norm)).astype(values.dtype)


def two_way(agreement: np.ndarray, permutations: int, seed: int) -> TwoWay:
    """Two-way identification (method.md eq. 56) from agreement (m, m) of true i with decoded j.

    p is (1 + permutations as good as the real pairing) / (1 + permutations), decoded patterns being dealt out anew.
    """
    n = len(agreement)
    if n < 2 or not np.isfinite(agreement).all():
        return TwoWay(float("nan"), float("nan"), float("nan"))
    below = shares_below(agreement)
    own = below.diagonal()
    rng, places, mean = np.random.default_rng(seed), np.arange(n), float(own.mean())
    as_good = sum(below[rng.permutation(n), places].mean() >= mean - 1e-12 for _ in range(permutations))
    return TwoWay(mean, float(own.std(ddof=1) / np.sqrt(n)), (1 + int(as_good)) / (1 + permutations))


def shares_below(agreement: np.ndarray) -> np.ndarray:
    """Share of i ≠ t with agreement[i, j] < agreement[t, j], ties half, for every t, j: (m, m)."""
    from scipy.stats import rankdata

    return (rankdata(agreement, axis=0) - 1) / (len(agreement) - 1)


def explained(truth: np.ndarray, decoded: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """R² = 1 − Σ‖y − ŷ‖² / Σ‖y‖² (method.md eq. 57) and its standard error by bootstrap over stimuli."""
    errors, whole = row_energies(truth - decoded), row_energies(truth)
    if not whole.sum() > 0:
        return float("nan"), float("nan")
    n = len(whole)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=samples)
    totals = counts @ whole
    drawn = 1 - (counts @ errors)[totals > 0] / totals[totals > 0]
    return float(1 - errors.sum() / whole.sum()), float(drawn.std(ddof=1)) if n > 1 else float("nan")


def row_energies(values: np.ndarray) -> np.ndarray:
    """‖row‖² of values (m, T), (m,) float64."""
    return np.einsum("ij,ij->i", values, values, dtype=np.float64)
