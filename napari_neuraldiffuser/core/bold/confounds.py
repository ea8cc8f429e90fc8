"""Confounds of a run: which columns are in its model, and which volumes are left out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.bold.runs import BoldError, Run, read_object
from napari_neuraldiffuser.core.bold.tables import listed, matching, numbers, read_whole
from napari_neuraldiffuser.core.params import BoldParams

MOTION = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
EXPANSIONS = ("", "_derivative1", "_power2", "_derivative1_power2")
STRATEGIES = {
    # choice of BoldParams.confounds -> fMRIPrep's columns; compcor's are found by their metadata
    "motion": MOTION,
    "motion24": tuple(name + end for name in MOTION for end in EXPANSIONS),
    "tissue": ("csf", "white_matter"),
    "global": ("global_signal",),
}
DISPLACEMENT, UNSTEADY = "framewise_displacement", "non_steady_state_outlier*"


@dataclass
class Confounds:
    """Confounds of one run.

    Attributes
    ----------
    table : DataFrame
        A column per confound in the model, (n_volumes, k) float64 without NaN.
    keep : (n_volumes,) bool
        Volumes that are fitted.
    displacement : (n_volumes,) float or None
        Framewise displacement, mm; NaN where it is not known.
    notes : list of str
    """

    table: pd.DataFrame
    keep: np.ndarray
    displacement: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def read_confounds(run: Run, params: BoldParams, n_volumes: int) -> Confounds:
    """Confounds that the parameters choose.

    Raises
    ------
    BoldError
        If the table or a column is missing, its rows are not the volumes, or a value is missing in the middle.
    """
    wanted = [name for name in params.confounds if name != "none"]
    if not run.confounds:
        if wanted or params.confound_columns:
            raise BoldError(
                f"confounds of {run.name} must be a table with a row per volume, got none beside {run.bold}. "
                "Give it, or choose --confounds none."
            )
        note = f"{run.name} has no confounds table: no volume is left out for motion"
        return Confounds(pd.DataFrame(index=range(n_volumes)), np.ones(n_volumes, dtype=bool), None, [note])
    table = read_whole(run.confounds, wide=True)
    if len(table) != n_volumes:
        raise BoldError(
            f"confounds of {run.name} must have a row per volume ({n_volumes}), got {len(table)} in {run.confounds}."
        )
    names = list(dict.fromkeys(name for one in wanted for name in _columns(one, table, params, run)))
    names += [name for name in _chosen(table, params, run) if name not in names]
    columns = {name: _filled(table, name, run) for name in names}
    flat = [name for name, values in columns.items() if np.ptp(values) == 0]
    notes = [f"confounds of {run.name} without variation left out: {', '.join(flat)}"] if flat else []
    used = pd.DataFrame({name: values for name, values in columns.items() if name not in flat}, index=range(n_volumes))
    keep, displacement, more = _kept(table, params, run)
    return Confounds(used, keep, displacement, notes + more)


def _columns(strategy: str, table: pd.DataFrame, params: BoldParams, run: Run) -> list[str]:
    names = _compcor(table, params, run) if strategy == "compcor" else list(STRATEGIES[strategy])
    missing = [name for name in names if name not in table.columns]
    if missing or not names:
        lacking = ", ".join(missing[:4]) or "a_comp_cor_00"
        raise BoldError(
            f"confounds of {run.name} must have columns {lacking} for {strategy}, got others in {run.confounds}. "
            "Choose what is there with --confounds or --confound-columns."
        )
    return names


def _compcor(table: pd.DataFrame, params: BoldParams, run: Run) -> list[str]:
    """The first anatomical components; of both tissues together where the metadata tell them apart."""
    names = matching(table.columns, ["a_comp_cor_*"])
    beside = Path(run.confounds).with_suffix(".json")
    about: dict[str, Any] = read_object(beside) if beside.is_file() else {}
    combined = [name for name in names if isinstance(about.get(name), dict) and about[name].get("Mask") == "combined"]
    return (combined or names)[: params.n_compcor]


def _chosen(table: pd.DataFrame, params: BoldParams, run: Run) -> list[str]:
    patterns = listed(params.confound_columns)
    absent = [pattern for pattern in patterns if not matching(table.columns, [pattern])]
    if absent:
        raise BoldError(f"confounds of {run.name} must have columns {absent}, got none such in {run.confounds}.")
    return matching(table.columns, patterns)


def _filled(table: pd.DataFrame, name: str, run: Run) -> np.ndarray:
    """A column whose first rows, which a derivative lacks, have the first value that is known."""
    values = numbers(table, name, f"confounds of {run.name}", run.confounds)
    known = np.flatnonzero(np.isfinite(values))
    if len(known):
        values[: known[0]] = values[known[0]]
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise BoldError(
            f"confounds of {run.name} must have a number in every volume, got none in row {row} of column {name} of "
            f"{run.confounds}. Leave the column out, or fill it."
        )
    return values


def _kept(table: pd.DataFrame, params: BoldParams, run: Run) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    keep, displacement, notes = np.ones(len(table), dtype=bool), None, []
    if DISPLACEMENT in table:
        displacement = numbers(table, DISPLACEMENT, f"confounds of {run.name}", run.confounds)
        if params.fd_threshold:
            keep &= ~(np.nan_to_num(displacement) > params.fd_threshold)
    elif params.fd_threshold:
        notes.append(f"{run.name} has no column {DISPLACEMENT}: no volume is left out for motion")
    for name in matching(table.columns, [UNSTEADY]):
        keep &= ~(_filled(table, name, run) > 0)
    if keep.mean() < 0.5:
        raise BoldError(
            f"volumes of {run.name} must be usable for the most part, got {int((~keep).sum())} of {len(keep)} left out "
            f"for motion above {params.fd_threshold:g} mm. Raise --fd-threshold, or leave the run out."
        )
    return keep, displacement, notes
