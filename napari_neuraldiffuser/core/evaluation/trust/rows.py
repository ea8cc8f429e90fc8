"""Rows of the trust sheet: scores of a baseline, ceiling or selection beside those of the run, paired by stimulus."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.evaluation.metrics import nanmean_rows
from napari_neuraldiffuser.core.evaluation.scores import difference_of, mean_of

Values = Mapping[str, np.ndarray]
"""Metric -> scores (n, repeats), NaN where there is none."""


def values_of(table: pd.DataFrame, arm: str, stimulus_ids: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Scores of one arm of `scores_table`, metric -> (n, repeats), in the order of the stimuli; none of an unknown arm.

    A metric that the arm has no value of is left out.
    """
    own = table[table["arm"] == arm]
    if own.empty:
        return {}
    found = {}
    for metric in [c for c in table.columns if c not in ("stim", "stimulus", "rep", "arm")]:
        wide = own.pivot(index="stim", columns="rep", values=metric).reindex(list(map(int, stimulus_ids)))
        values = wide.to_numpy(dtype=float)
        if np.isfinite(values).any():
            found[metric] = values
    return found


def figures(values: Values) -> dict[str, dict[str, Any]]:
    """Mean, standard error and number of every score over stimuli, each the mean of its repeats."""
    return {metric: mean_of(nanmean_rows(scores)) for metric, scores in values.items()}


def paired(first: Values, second: Values) -> dict[str, dict[str, Any]]:
    """`first` minus `second` of every score that both have, paired by stimulus."""
    return {m: difference_of(nanmean_rows(first[m]) - nanmean_rows(second[m])) for m in first if m in second}


def row(name: str, guided: Values, own: Values, rows: Sequence[int] | np.ndarray | None = None) -> dict[str, Any]:
    """Scores of a baseline, and the guided ones minus them over the same stimuli.

    Parameters
    ----------
    name : str
        Of `sources.SOURCES`.
    guided : mapping of metric to (n, repeats)
    own : mapping of metric to (m, repeats')
    rows : sequence of int (m,), optional
        Of which of the n stimuli `own` is; all where None.
    """
    of_run = guided if rows is None else at_rows(guided, rows)
    n = len(next(iter(own.values()))) if own else 0
    return {"name": name, "n": n, "scores": figures(own), "paired": paired(of_run, own)}


def at_rows(values: Values, rows: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """The scores of some stimuli."""
    return {metric: scores[np.asarray(rows, dtype=int)] for metric, scores in values.items()}


def far_minus_near(near: Values, far: Values) -> dict[str, dict[str, Any]]:
    """Mean of other stimuli minus that of the first ones: mean, standard error and the smaller number.

    The two are of different stimuli, so that their errors add up as squares.
    """
    found = {}
    for metric in near:
        if metric not in far:
            continue
        a, b = (mean_of(nanmean_rows(values[metric])) for values in (near, far))
        known = a["mean"] is not None and b["mean"] is not None
        errors = known and a["se"] is not None and b["se"] is not None
        found[metric] = {
            "mean": b["mean"] - a["mean"] if known else None,  # type: ignore[operator]
            "se": float(np.hypot(a["se"], b["se"])) if errors else None,  # type: ignore[arg-type]
            "n": min(int(a["n"] or 0), int(b["n"] or 0)),
        }
    return found
