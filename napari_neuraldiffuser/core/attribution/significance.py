"""Significance of regions: what their figures would be had the stimuli been dealt out anew.

Each method declares what it deals out; the statistic of the real order counts among the permuted ones, so that p is
exact where the orders are exchangeable (Phipson and Smyth 2010).  Per target, over its regions: the Benjamini-Hochberg
adjusted p, and p of the largest statistic of any region, each measured in its own permuted standard deviations.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.params import ContributionParams

ROUNDING = 1e-9
"""A permuted statistic this close below the observed one, as a share of their spread, counts as equal."""


@dataclass(frozen=True)
class Null:
    """A statistic of every ROI: `observed` (rois,), and with stimuli dealt out anew `permuted` (permutations, rois);
    NaN where an ROI was not tested."""

    observed: np.ndarray
    permuted: np.ndarray


def orders(m: int, params: ContributionParams, purpose: int = 0) -> np.ndarray:
    """Random orders (permutations, m) of m stimuli; other ones for another `purpose`."""
    rng = np.random.default_rng([params.seed, 1, purpose])
    return np.array([rng.permutation(m) for _ in range(params.roi_permutations)], dtype=np.intp).reshape(-1, m)


def of_labels(agreements: Iterable[np.ndarray], dealt: np.ndarray) -> Null:
    """Null of statistics Σ_i agreement[i, i] when true targets are dealt out anew: Σ_i agreement[order_i, i].

    Parameters
    ----------
    agreements : iterable of ndarray (m, m)
        Per ROI, inner products of true target i with the prediction for stimulus j.
    dealt : ndarray (permutations, m)
        Of `orders`.
    """
    observed, permuted = [], []
    for agreement in agreements:
        observed.append(float(np.trace(agreement, dtype=np.float64)))
        permuted.append(agreement[dealt, np.arange(len(agreement))].sum(1, dtype=np.float64))
    return Null(np.array(observed), np.stack(permuted, axis=1))


def p_values(null: Null, regions: np.ndarray) -> dict[str, np.ndarray]:
    """Columns p, p_fdr and p_max (rois,); the last two over `regions` (rois,) bool, NaN for the others.

    An ROI whose statistic never changes, such as one without voxels, was not tested: NaN.
    """
    every = np.vstack([null.observed, null.permuted])
    spread = every.std(0)
    tested = np.isfinite(spread) & (spread > 0)
    scale = np.where(tested, spread, np.nan)
    score = (every - every.mean(0)) / scale
    p = _exceeding(score)
    one_of = tested & regions
    adjusted, largest = np.full(p.shape, np.nan), np.full(p.shape, np.nan)
    if one_of.any():
        adjusted[one_of] = false_discovery(p[one_of])
        most = score[:, one_of].max(1)
        largest[one_of] = [_exceeding(np.append(own, most[1:])[:, None])[0] for own in score[0, one_of]]
    return {"p": np.where(tested, p, np.nan), "p_fdr": adjusted, "p_max": largest}


def _exceeding(scores: np.ndarray) -> np.ndarray:
    """Share of rows, the first among them, that are no smaller than the first, (columns,)."""
    return (scores >= scores[0] - ROUNDING).mean(0)


def false_discovery(p: np.ndarray) -> np.ndarray:
    """p (k,) adjusted for the false discovery rate (Benjamini and Hochberg 1995)."""
    order = np.argsort(p)
    raised = p[order] * len(p) / np.arange(1, len(p) + 1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return out
