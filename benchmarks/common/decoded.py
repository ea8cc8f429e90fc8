"""Scores of decoded targets over held-out stimuli, with standard errors by resampling these stimuli.

For one target, true values Y and decoded ones Ŷ (m, T), both minus the training mean:

r        mean over columns of the correlation of decoded with true values over stimuli
R²       1 − Σ (Y − Ŷ)² / Σ Y², pooled over columns
two-way  share of other stimuli whose decoded target is less correlated (over columns) with the true one
"""

from collections.abc import Mapping

import numpy as np

SCORES = ("r", "r2", "twoway")
TINY = 1e-12


def scores(true: np.ndarray, decoded: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every score under every row of `weights` (b, m), the number of times that a stimulus counts: (b,) each."""
    weights = weights / weights.sum(1, keepdims=True)
    residual = ((true - decoded) ** 2).sum(1, dtype=np.float64)
    whole = (true**2).sum(1, dtype=np.float64)
    r2 = 1 - (weights @ residual) / (weights @ whole)
    return {"r": _correlation(true, decoded, weights), "r2": r2, "twoway": weights @ two_way(true, decoded)}


def _correlation(true: np.ndarray, decoded: np.ndarray, weights: np.ndarray) -> np.ndarray:
    w = weights.astype(true.dtype)
    mean = w @ true, w @ decoded
    variance = [np.maximum(w @ v**2 - m**2, 0) for v, m in zip((true, decoded), mean, strict=True)]
    size = np.sqrt(variance[0] * variance[1])
    varies = size > TINY
    r = np.where(varies, (w @ (true * decoded) - mean[0] * mean[1]) / np.where(varies, size, 1), 0)
    return r.sum(1, dtype=np.float64) / np.maximum(varies.sum(1), 1)


def two_way(true: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Share of the other stimuli that a stimulus' decoded target is told from by its true one, (m,)."""
    a, b = (_unit(values - values.mean(1, keepdims=True)) for values in (true, decoded))
    r = a @ b.T  # (true, decoded)
    own = np.diag(r)
    below = (r < own[:, None]).sum(1) + 0.5 * ((r == own[:, None]).sum(1) - 1)
    return below / (len(r) - 1)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), TINY)


def resampled(m: int, samples: int, seed: int) -> np.ndarray:
    """Counts of `m` stimuli: all once in the first row, then `samples` draws with replacement."""
    drawn = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=samples)
    return np.concatenate([np.ones((1, m)), drawn])


def compared(found: Mapping[str, np.ndarray], baseline: np.ndarray) -> dict[str, dict[str, float]]:
    """Value, and difference from the baseline, each with its standard error over the resampled stimuli."""
    out = {}
    for name, values in found.items():
        gain = values - baseline
        out[name] = {
            "value": float(values[0]),
            "se": float(values[1:].std(ddof=1)),
            "gain": float(gain[0]),
            "gain_se": float(gain[1:].std(ddof=1)),
        }
    return out
