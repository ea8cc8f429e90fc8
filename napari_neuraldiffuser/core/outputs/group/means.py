"""Means over subjects, with two errors: over subjects, and over the stimuli that were shown to these subjects.

Labs have four to eight subjects and hundreds of stimuli.  An error over subjects is of people in general, and of four
it is itself hardly known; an error over stimuli holds for these subjects alone.  Neither is the error of all subjects'
stimuli thrown together: subjects see the same images, and what is hard to draw is hard for all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.metric import lower_is_better


def mean_and_se(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, its standard error and number of the values there are; None where there are too few."""
    known = np.array([v for v in values if v is not None], dtype=float)
    n = len(known)
    return {
        "mean": float(known.mean()) if n else None,
        "se": float(known.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "n": n,
    }


def over_stimuli(subjects: Sequence[pd.Series]) -> dict[str, Any]:
    """Standard error, over stimuli, of the mean of the subjects' means.

    A stimulus that several subjects saw is drawn once for all of them: its values count together.  With one subject it
    is the standard error over its stimuli; with stimuli that all have in common, that of the means over subjects; with
    none in common, that of independent samples.  Formula and source: the documentation's page on the method, Scores.

    Parameters
    ----------
    subjects : sequence of Series
        One value for each stimulus of a subject, by the stimulus's name; those that are NaN are left out.

    Returns
    -------
    dict
        "se_stimuli", None with fewer than two stimuli; "n_stimuli", different ones.
    """
    known = [values for s in subjects if len(values := s.dropna())]
    if not known:
        return {"se_stimuli": None, "n_stimuli": 0}
    parts = [(values - values.mean()) / (len(values) * len(known)) for values in known]
    influence = pd.concat(parts).groupby(level=0).sum()
    n = len(influence)
    return {"se_stimuli": float(np.sqrt((influence**2).sum() * n / (n - 1))) if n > 1 else None, "n_stimuli": n}


def per_stimulus(scores: pd.DataFrame | None, arm: str, metric: str) -> pd.Series | None:
    """Mean over repeats of every stimulus of an arm; None where the table has no such column.

    Stimuli of own scans are numbered anew in every subject, so their labels name them.
    """
    if scores is None or metric not in scores:
        return None
    rows = scores[scores.arm == arm]
    return rows.groupby("stimulus" if "stimulus" in rows else "stim")[metric].mean()


def arm_over_stimuli(tables: Sequence[pd.DataFrame | None], arm: str, metric: str) -> dict[str, Any]:
    """`over_stimuli` of one arm's score."""
    return over_stimuli([values for t in tables if (values := per_stimulus(t, arm, metric)) is not None])


def difference_over_stimuli(tables: Sequence[pd.DataFrame | None], metric: str) -> dict[str, Any]:
    """`over_stimuli` of guided minus unguided, paired by stimulus within each subject."""
    found = []
    for table in tables:
        guided, unguided = (per_stimulus(table, arm, metric) for arm in ("guided", "unguided"))
        if guided is not None and unguided is not None:
            found.append(guided - unguided)
    return over_stimuli(found)


def paired(summaries: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Guided minus unguided over subjects, from their summaries.

    Returns
    -------
    dict
        mean, se and n over subjects; "n_worse": subjects whose guided score is worse, which of some scores is higher;
        "n_better_clear" and "n_worse_clear": subjects in which, by themselves, the difference is clear
        (`differences.CLEAR`).
    """
    each = [Difference.of_summary(s.get("paired", {}).get(metric, {})) for s in summaries]
    each = [d for d in each if isinstance(d.mean, (int, float)) and np.isfinite(d.mean)]
    sign = -1 if lower_is_better(metric) else 1
    gains = [sign * (d.mean or 0) for d in each]
    clear = [gain for gain, d in zip(gains, each, strict=True) if d.clear]
    return mean_and_se([d.mean for d in each]) | {
        "n_worse": sum(gain < 0 for gain in gains),
        "n_better_clear": sum(gain > 0 for gain in clear),
        "n_worse_clear": sum(gain < 0 for gain in clear),
    }
