"""Own scans: betas in a NIfTI or of GLMsingle, a mask, and a table that says which image each trial belongs to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import DESIGN_NAMES, OWN_SPACE, design_beside
from napari_neuraldiffuser.core.base.tables import (
    add_flags,
    column_names,
    flag_column,
    read_table,
    text_column,
    whole_column,
)
from napari_neuraldiffuser.core.nsd.assemble import Session, assemble
from napari_neuraldiffuser.core.nsd.betas import Betas, mask_voxels
from napari_neuraldiffuser.core.nsd.by_ceiling import resolved
from napari_neuraldiffuser.core.nsd.glmsingle import design_trials, disagreement, read_design
from napari_neuraldiffuser.core.nsd.reading.series import ListedSeries, Series, open_series
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, check_grid, read_inside
from napari_neuraldiffuser.core.nsd.selection import chosen_sessions, listed
from napari_neuraldiffuser.core.params import BetasParams

COLUMNS = ("trial", "stimulus", "session")
TEST_COLUMNS = ("test", "shared")


class Trials(NamedTuple):
    """Table of trials, the labels that its `stimulus_id` indexes, and what is to be said of it."""

    table: pd.DataFrame
    names: list[str]
    notes: list[str]


def user_betas(
    betas_file: str | Path,
    mask: str | Path,
    trials_tsv: str | Path = "",
    params: BetasParams | None = None,
    progress: Progress | None = None,
) -> Betas:
    """Read betas of any experiment.

    Parameters
    ----------
    betas_file : path
        4-D image (x, y, z, trial), or an output of GLMsingle (.npy, .hdf5, .mat); values as they are.
    mask : path
        3-D image on the same grid; voxels above 0 are used.
    trials_tsv : path
        Separated by tabs or commas: `trial` (0-based volume), `stimulus` (any label), `session`, optional `repeat`
        (not needed: counted from the order) and optional `test` or `shared` (0/1, true/false) that marks test
        images, each in all its rows. Volumes without a row are left out; `n/a` and empty cells are missing. With
        GLMsingle's DESIGNINFO beside the betas a table of `condition`, `stimulus` and `test` will do, or none.
    params : BetasParams, optional
        `sessions`, `zscore`, `average_repeats` and the choice of voxels are used.

    Returns
    -------
    Betas
        `space` is "native"; `stimulus_ids` index `stimulus_names`.

    Raises
    ------
    NSDError
        For unreadable or mismatched files, an empty mask, or a table that does not fit the image.
    """
    series, inside = on_grid(open_series(betas_file), mask)
    trials = trials_of(trials_tsv, series)
    params = resolved(params or BetasParams(), own=True)
    return assemble_betas(series, mask_voxels(inside), trials, params, progress)


def on_grid(series: Series, mask: str | Path) -> tuple[Series, np.ndarray]:
    """The betas on the mask's grid, and which voxels are in the mask, (X, Y, Z) bool.

    GLMsingle's files say no place: that of the mask is theirs.  Where they list voxels, these are the mask's.

    Raises
    ------
    NSDError
        If the mask is unreadable, or of another grid.
    """
    inside, affine = read_inside(mask, "mask")
    if series.affine is None and series.shape[1:3] == (1, 1) and inside.shape != series.shape[:3]:
        series = ListedSeries(series, inside)
    check_grid("mask", (inside.shape, affine), (series.shape[:3], series.affine), mask)
    if series.affine is None:
        series.affine = affine
    return series, inside


def assemble_betas(
    series: Series,
    voxels: np.ndarray,
    trials: Trials,
    params: BetasParams,
    progress: Progress | None = None,
) -> Betas:
    """Betas of the chosen sessions at `voxels` (n, 3), from what `on_grid` and `trials_of` gave."""
    whole = trials.table
    table, notes = _chosen_trials(whole, params.sessions)
    x, y, z, n_volumes = series.shape
    notes = [*trials.notes, *notes, *filter(None, [series.note])]
    if unnamed := n_volumes - len(whole):
        notes.append(f"{unnamed} volumes without a row in the trials table left out")
    about = {"affine": series.affine, "shape": (x, y, z), "space": OWN_SPACE, "notes": notes}
    return assemble(
        _readers(series, voxels, table), table, voxels, params, progress, **about, stimulus_names=trials.names
    )


def _chosen_trials(table: pd.DataFrame, sessions: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows of the sessions that are read, and a note on the others."""
    labels = sorted(table["session"].unique())
    chosen = chosen_sessions(sessions, labels)
    left = [label for label in labels if label not in chosen]
    notes = [f"sessions left out by choice: {listed(left)}"] if left else []
    return table[table["session"].isin(chosen)], notes


def trials_of(path: str | Path, series: Series, images: str = "") -> Trials:
    """Trials of betas: of a table, of GLMsingle's design with a table of conditions, or of that design alone.

    Parameters
    ----------
    path : path or ""
    series : Series
        The betas; their design is looked for beside them.
    images : str
        Folder of the images, whose names may be the numbers of conditions.

    Raises
    ------
    NSDError
        If the table does not fit the betas, or there is neither table nor design.
    """
    beside = design_beside(series.path)
    design = read_design(beside, series.shape[3]) if beside else None
    by_condition = bool(path) and _is_of_conditions(path)
    if path and not by_condition:
        table, names = read_user_trials(path, series.shape[3])
        doubt = disagreement(design, table) if design else ""
        return Trials(table, names, [doubt] if doubt else [])
    if design is None:
        raise NSDError(
            f"trials must be said by a table or by {' or '.join(DESIGN_NAMES)} beside the betas, got "
            f"{'a table of conditions without a design' if path else 'neither'}. Give a table of trials (--trials)."
        )
    rows, notes = design_trials(design, path, images)
    return Trials(*_ordered(rows, rows["test"].to_numpy(), design.path), notes)


def _is_of_conditions(path: str | Path) -> bool:
    names = [name.lower() for name in column_names(path, ("condition",), NSDError)]
    return "condition" in names and "trial" not in names


def read_user_trials(path: str | Path, n_volumes: int) -> tuple[pd.DataFrame, list[str]]:
    """Trials table ordered by session and trial, with `stimulus_id` and `shared`, and the stimulus labels."""
    table = read_table(path, COLUMNS, TEST_COLUMNS, NSDError)
    table["trial"] = whole_column(table, "trial", path, NSDError)
    _check_volumes(table["trial"], n_volumes, path)
    for column in ("stimulus", "session"):
        table[column] = text_column(table, column, path, NSDError)
    return _ordered(table, _test_column(table, path), path)


def _ordered(table: pd.DataFrame, test: np.ndarray, path: str | Path) -> tuple[pd.DataFrame, list[str]]:
    names = sorted(table["stimulus"].unique())
    table["stimulus_id"] = table["stimulus"].map({name: k for k, name in enumerate(names)}).astype(np.int64)
    table["shared"] = test
    small = table.groupby("session").size()
    if small.min() < 2:
        raise NSDError(f"trials must have at least two trials in every session, got {small.to_dict()} in {path}.")
    return table.sort_values(["session", "trial"], kind="stable").reset_index(drop=True), names


def _check_volumes(trial: pd.Series, n_volumes: int, path: str | Path) -> None:
    if trial.min() < 0 or trial.max() >= n_volumes or trial.duplicated().any():
        raise NSDError(
            f"trials must name each volume 0 ... {n_volumes - 1} at most once in column trial, "
            f"got {trial.min()} ... {trial.max()} ({int(trial.duplicated().sum())} doubled) in {path}."
        )


def _test_column(table: pd.DataFrame, path: str | Path) -> np.ndarray:
    """(n,) bool from the optional columns `test` and `shared`: of a stimulus that one row marks, all rows are test.

    A missing cell and a missing column mark nothing.
    """
    told: dict[str, bool] = {}
    for name in TEST_COLUMNS:
        if name in table.columns:
            add_flags(told, table["stimulus"], flag_column(table, name, path, NSDError), path, NSDError)
    return table["stimulus"].map(lambda label: told.get(label, False)).to_numpy(dtype=bool)


def _readers(series: Series, voxels: np.ndarray, table: pd.DataFrame) -> list[Callable[[], Session]]:
    """One reader per session, in order."""
    sessions = [rows["trial"].to_numpy() for _, rows in table.groupby("session", sort=True)]
    return [partial(_read_session, series, voxels, trials) for trials in sessions]


def _read_session(series: Series, voxels: np.ndarray, trials: np.ndarray) -> Session:
    return series.read(voxels, trials), None
