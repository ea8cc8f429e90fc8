"""What was shown when: trials, events that are modelled without betas, and trials that cannot be used."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.tables import flag_column, spelled
from napari_neuraldiffuser.core.bold.runs import BoldError, Run
from napari_neuraldiffuser.core.bold.tables import listed, numbers, read_whole
from napari_neuraldiffuser.core.params import BoldParams

STIMULUS_COLUMNS = ("stim_file", "stimulus")
"""Columns that name what was seen, the first that is there."""


@dataclass
class Events:
    """Events of one run.

    Attributes
    ----------
    trials : DataFrame
        row (1-based, of the table), onset and duration (s), stimulus (label), test (True, False, or None where the
        table does not say).
    others : DataFrame
        onset, duration, trial_type of events that are modelled without betas.
    dropped : list of dict
        row, onset, stimulus and reason of trials without betas.
    notes : list of str
    n_left : int
        Events that are no trials: they name no stimulus, or are of another type.
    types : frozenset of str
        Values of column trial_type.
    """

    trials: pd.DataFrame
    others: pd.DataFrame
    dropped: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_left: int = 0
    types: frozenset[str] = frozenset()


def read_events(run: Run, params: BoldParams, end: float) -> Events:
    """Events of a run that ends at `end` s.

    Raises
    ------
    BoldError
        If columns or stimuli are missing, or two trials start at once.
    """
    table = read_whole(run.events, ("onset", "duration"))
    what = f"events of {run.name}"
    column = stimulus_column(table, params, run)
    events = pd.DataFrame(
        {
            "row": np.arange(1, len(table) + 1),
            "onset": numbers(table, "onset", what, run.events),
            "duration": numbers(table, "duration", what, run.events),
            "stimulus": table[column].map(spelled, na_action="ignore"),
            "test": _flags(table, params, run),
            "trial_type": table["trial_type"].str.strip() if "trial_type" in table else None,
        }
    )
    is_trial = events["stimulus"].notna() & ~events["trial_type"].isin(listed(params.other_types))
    if params.trial_types:
        is_trial &= events["trial_type"].isin(listed(params.trial_types))
    types = frozenset(events["trial_type"].dropna())
    if not is_trial.any():
        if params.trial_types and types.isdisjoint(listed(params.trial_types)):
            raise unknown_types(listed(params.trial_types), types, run.events)
        raise BoldError(f"{what} must have trials that name a stimulus in column {column}, got none in {run.events}.")
    others = events[events["trial_type"].isin(listed(params.other_types))]
    found = _usable(events[is_trial], others.dropna(subset=["onset"]), run, end, int((~is_trial).sum()))
    return replace(found, types=types)


def stimulus_column(table: pd.DataFrame, params: BoldParams, run: Run) -> str:
    """Name of the column that says what was seen."""
    wanted = [params.stimulus_column] if params.stimulus_column else list(STIMULUS_COLUMNS)
    column = next((name for name in wanted if name in table.columns and table[name].notna().any()), None)
    if column is None:
        raise BoldError(
            f"events of {run.name} must name what was seen in column {' or '.join(wanted)}, got columns "
            f"{list(table.columns)} in {run.events}. Choose the column with --stimulus-column."
        )
    return column


def check_types(known: Iterable[str], params: BoldParams, runs: Sequence[Run]) -> None:
    """Types that are asked for must occur in some run, or a misspelt one would be taken for none."""
    wanted = listed(params.trial_types) + listed(params.other_types)
    if unknown := [name for name in wanted if name not in set(known)]:
        others = f" and {len(runs) - 1} other tables" if len(runs) > 1 else ""
        raise unknown_types(unknown, known, f"{runs[0].events}{others}")


def unknown_types(unknown: Sequence[str], known: Iterable[str], where: str) -> BoldError:
    """The error for types of events that do not occur."""
    return BoldError(f"trial_type must have the values {unknown}, got {sorted(known)} in {where}. Correct the choice.")


def _flags(table: pd.DataFrame, params: BoldParams, run: Run) -> pd.Series:
    """True, False or None from the column of held-out stimuli, where it is there and asked for."""
    name = params.test_column
    if name not in table.columns or params.test_rule in ("repeats", "none"):
        if params.test_rule == "column":
            raise BoldError(
                f"events of {run.name} must have column {name} with 1 for held-out stimuli, got {list(table.columns)} "
                f"in {run.events}. Choose it with --test-column, or --test-rule repeats."
            )
        return pd.Series([None] * len(table), dtype=object)
    return pd.Series(flag_column(table, name, run.events, BoldError), dtype=object)


def _usable(trials: pd.DataFrame, others: pd.DataFrame, run: Run, end: float, n_left: int) -> Events:
    reasons = pd.Series("", index=trials.index)
    reasons[trials["onset"].isna()] = "onset is n/a"
    reasons[trials["onset"] >= end] = f"onset after the end of the run ({end:g} s)"
    dropped = [
        {"row": int(row), "onset": None if np.isnan(onset) else float(onset), "stimulus": stimulus, "reason": reason}
        for row, onset, stimulus, reason in zip(
            trials["row"], trials["onset"], trials["stimulus"], reasons, strict=True
        )
        if reason
    ]
    if reasons.ne("").all():
        raise BoldError(
            f"events of {run.name} must have trials in its {end:g} s, got none: row {dropped[0]['row']} of "
            f"{run.events} has {dropped[0]['reason']}. Check that times are in seconds from the first volume."
        )
    kept = trials[reasons == ""].sort_values("onset", kind="stable").reset_index(drop=True)
    notes = _durations(kept, run)
    _check_onsets(kept, run)
    kept["duration"], others = kept["duration"].fillna(0.0), others.assign(duration=others["duration"].fillna(0.0))
    return Events(kept.drop(columns="trial_type"), others[["onset", "duration", "trial_type"]], dropped, notes, n_left)


def _durations(trials: pd.DataFrame, run: Run) -> list[str]:
    if (trials["duration"] < 0).any():
        row = trials["row"][trials["duration"] < 0].iloc[0]
        raise BoldError(f"durations must be 0 s or more, got less in row {row} of {run.events}. Correct it.")
    notes = []
    if trials["duration"].isna().any():
        n = int(trials["duration"].isna().sum())
        notes.append(f"{n} trials of {run.name} have no duration: they are modelled as instants")
    overlaps = int(
        (trials["onset"].to_numpy()[1:] < (trials["onset"] + trials["duration"]).to_numpy()[:-1] - 1e-6).sum()
    )
    if overlaps:
        notes.append(f"{overlaps} trials of {run.name} begin before the one before has ended")
    return notes


def _check_onsets(trials: pd.DataFrame, run: Run) -> None:
    double = trials[trials["onset"].duplicated(keep=False)]
    if len(double):
        rows = ", ".join(map(str, double["row"].head(2)))
        raise BoldError(
            f"trials of {run.name} must start one after another, got rows {rows} at {double['onset'].iloc[0]:g} s in "
            f"{run.events}. Remove one, or choose the trials by --trial-types."
        )
