"""How well stimuli that were left out are decoded: R², correlation, two-way identification and what it is by chance."""

from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.decoding.targets import is_constant
from napari_neuraldiffuser.core.decoding.worth import figures

NULL_TEXT = (
    "Stimuli are exchanged at random within their fold (and within their category, for the comparison within a "
    "category), the decoded patterns stay; no decoder is fitted again. p is the share of such assignments, the true "
    "one counted among them, that are identified as well. It tests whether a decoded pattern says which of the stimuli "
    "of its fold was seen."
)
PERMUTATIONS_AT_ONCE = 200


@dataclass(frozen=True)
class TwoWay:
    """Two-way identification.

    Attributes
    ----------
    value : float
        Mean over rows of the share of other stimuli of the fold that the decoded pattern correlates less with than
        with its own; ties count half.  NaN where no row has another stimulus to be compared with.
    n : int
        Rows that have one.
    p : float
        See `NULL_TEXT`; NaN without permutations.
    folds : tuple of float
        The value of every fold.
    """

    value: float
    n: int
    p: float
    folds: tuple[float, ...]


@dataclass(frozen=True)
class TargetScore:
    """Scores of one target over all folds.

    Attributes
    ----------
    r2 : float
        1 - Σ(y - ŷ)² / Σ(y - m)², pooled over rows and columns; m is the training mean of the row's fold.  NaN of a
        target that does not vary, as is all else.
    r2_folds : tuple of float
        The same of every fold.
    r : float
        Mean over columns of the correlation over rows between y - m and ŷ - m; columns without variance are left out.
    two_way, within : TwoWay
        Among all stimuli of a fold, and among those of one category; None without categories.
    """

    r2: float
    r2_folds: tuple[float, ...]
    r: float
    two_way: TwoWay
    within: TwoWay | None


def score_target(
    truth: np.ndarray,
    decoded: np.ndarray,
    stimuli: np.ndarray,
    folds: np.ndarray,
    categories: np.ndarray | None = None,
    permutations: int = 0,
    seed: int = 0,
) -> TargetScore:
    """Scores of one target.

    Parameters
    ----------
    truth, decoded : ndarray (n, T)
        Targets of every row, and what was decoded without its fold.
    stimuli, folds : ndarray (n,) int
        Stimulus of every row, and its fold from 0.
    categories : ndarray (n,), optional
        Category of every row's stimulus.
    permutations, seed : int
        As in CrossvalParams.
    """
    if is_constant(float(np.square(truth - truth.mean(0), dtype=np.float64).sum()), truth.mean(0), len(truth)):
        return _nothing(folds, categories)
    y, y_hat = deviations(truth, decoded, folds)
    of_fold = [folds == k for k in range(folds.max() + 1)]
    similarity = [np.nan_to_num(figures.pattern_agreement(y[rows], y_hat[rows])) for rows in of_fold]
    more = (permutations, seed)
    return TargetScore(
        _r2(y, y_hat),
        tuple(_r2(y[rows], y_hat[rows]) for rows in of_fold),
        figures.column_correlation(y, y_hat),
        _two_way(similarity, of_fold, stimuli, np.zeros(len(stimuli)), *more),
        None if categories is None else _two_way(similarity, of_fold, stimuli, categories, *more),
    )


def _nothing(folds: np.ndarray, categories: np.ndarray | None) -> TargetScore:
    nan = float("nan")
    each = (nan,) * int(folds.max() + 1)
    two_way = TwoWay(nan, 0, nan, each)
    return TargetScore(nan, each, nan, two_way, None if categories is None else two_way)


def deviations(truth: np.ndarray, decoded: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Truth and decoded (n, T) minus the mean of the truth over the rows that their fold's decoder was fitted to.

    A decoder that knows nothing gives that mean, which is the lower, the higher the left-out stimuli are: over folds
    the decoded values alone would correlate negatively with the truth.
    """
    y, y_hat = truth.astype(np.float32), decoded.astype(np.float32)
    for k in range(folds.max() + 1):
        mean = truth[folds != k].mean(0, dtype=np.float64).astype(np.float32)
        y[folds == k] -= mean
        y_hat[folds == k] -= mean
    return y, y_hat


def _r2(y: np.ndarray, y_hat: np.ndarray) -> float:
    total = float(figures.row_energies(y).sum())
    return 1.0 - float(figures.row_energies(y - y_hat).sum()) / total if total else float("nan")


def _two_way(
    similarity: list[np.ndarray],
    of_fold: list[np.ndarray],
    stimuli: np.ndarray,
    categories: np.ndarray,
    permutations: int,
    seed: int,
) -> TwoWay:
    groups = [_group(*one, stimuli, categories) for one in zip(similarity, of_fold, strict=True)]
    wins = [np.concatenate([won[own, np.arange(len(own))] for won, own in fold] or [np.empty(0)]) for fold in groups]
    each = tuple(float(fold.mean()) if fold.size else float("nan") for fold in wins)
    every = np.concatenate(wins)
    if not every.size:
        return TwoWay(float("nan"), 0, float("nan"), each)
    value, flat = float(every.mean()), [group for fold in groups for group in fold]
    return TwoWay(value, every.size, _p_value(value, every.size, flat, permutations, seed), each)


def _group(
    similarity: np.ndarray, rows: np.ndarray, stimuli: np.ndarray, categories: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every category of a fold with two stimuli or more: (share won (s, m), own stimulus of every row (m,)).

    `won[i, j]` is the share of the group's other stimuli that decoded row j correlates less with than with stimulus i.
    """
    places, found = np.flatnonzero(rows), []
    for category in np.unique(categories[places]):
        inside = np.flatnonzero(categories[places] == category)
        _, first, own = np.unique(stimuli[places[inside]], return_index=True, return_inverse=True)
        if len(first) > 1:
            # stimuli of one target, as of one caption, are ties whatever the rounding
            r = similarity[np.ix_(inside[first], inside)].round(6)
            found.append((figures.shares_below(r), own))
    return found


def _p_value(value: float, n: int, groups: list[tuple[np.ndarray, np.ndarray]], permutations: int, seed: int) -> float:
    if not permutations:
        return float("nan")
    rng, as_good = np.random.default_rng(seed), 0
    for start in range(0, permutations, PERMUTATIONS_AT_ONCE):
        many = min(PERMUTATIONS_AT_ONCE, permutations - start)
        total = np.zeros(many)
        for won, own in groups:
            dealt = rng.permuted(np.tile(np.arange(len(won)), (many, 1)), axis=1)
            total += won[dealt[:, own], np.arange(len(own))].sum(1)
        # equal assignments must count as equal whatever the rounding of their sums
        as_good += int(np.count_nonzero(total / n >= value - 1e-9))
    return (1 + as_good) / (1 + permutations)
