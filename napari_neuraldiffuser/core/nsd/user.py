"""Own scans: any NIfTI of betas, a mask, and a table that says which image each volume belongs to."""

from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import OWN_SPACE
from napari_neuraldiffuser.core.base.tables import add_flags, flag_column, read_table, text_column, whole_column
from napari_neuraldiffuser.core.nsd.assemble import Session, assemble
from napari_neuraldiffuser.core.nsd.betas import Betas, mask_voxels
from napari_neuraldiffuser.core.nsd.by_ceiling import resolved
from napari_neuraldiffuser.core.nsd.reading.images import place_note
from napari_neuraldiffuser.core.nsd.reading.sessions import iterate_nifti
from napari_neuraldiffuser.core.nsd.reading.volumes import (
    NSDError,
    check_grid,
    open_volume,
    read_inside,
)
from napari_neuraldiffuser.core.nsd.selection import chosen_sessions, listed
from napari_neuraldiffuser.core.params import BetasParams

COLUMNS = ("trial", "stimulus", "session")
TEST_COLUMNS = ("test", "shared")


def user_betas(
    betas_nifti: str | Path,
    mask: str | Path,
    trials_tsv: str | Path,
    params: BetasParams | None = None,
    progress: Progress | None = None,
) -> Betas:
    """Read betas of any experiment.

    Parameters
    ----------
    betas_nifti : path
        4-D image (x, y, z, trial), values as they are (no scale is assumed).
    mask : path
        3-D image on the same grid; voxels above 0 are used.
    trials_tsv : path
        Separated by tabs or commas: `trial` (0-based volume), `stimulus` (any label), `session`, optional `repeat`
        (not needed: counted from the order) and optional `test` or `shared` (0/1, true/false) that marks test
        images, each in all its rows. Volumes without a row are left out; `n/a` and empty cells are missing.
    params : BetasParams, optional
        `sessions`, `zscore` and `average_repeats` are used.

    Returns
    -------
    Betas
        `space` is "native"; `stimulus_ids` index `stimulus_names`.

    Raises
    ------
    NSDError
        For unreadable or mismatched files, an empty mask, or a table that does not fit the image.
    """
    image = open_betas(betas_nifti)
    voxels = mask_voxels(read_mask(mask, image))
    trials = read_user_trials(trials_tsv, image.shape[3])
    return assemble_betas(image, voxels, trials, resolved(params or BetasParams(), own=True), progress)


def open_betas(path: str | Path) -> nib.spatialimages.SpatialImage:
    """The 4-D image, its data unread; an NSDError for another one."""
    # kept open: a gzip stream is then unpacked once, front to back
    return open_volume(path, "betas", 4, keep_file_open=True)


def read_mask(path: str | Path, image: nib.spatialimages.SpatialImage) -> np.ndarray:
    """Which voxels are in the mask, (X, Y, Z) bool, on the grid of the betas' image."""
    inside, affine = read_inside(path, "mask")
    check_grid("mask", (inside.shape, affine), (image.shape[:3], image.affine), path)
    return inside


def assemble_betas(
    image: nib.spatialimages.SpatialImage,
    voxels: np.ndarray,
    trials: tuple[pd.DataFrame, list[str]],
    params: BetasParams,
    progress: Progress | None = None,
) -> Betas:
    """Betas of the chosen sessions at `voxels` (n, 3), from what `open_betas` and `read_user_trials` gave."""
    whole, names = trials
    table, notes = _chosen_trials(whole, params.sessions)
    *shape, n_volumes = image.shape
    if doubt := place_note(image):
        notes.append(f"{Path(str(image.get_filename())).name} has {doubt}")
    if unnamed := n_volumes - len(whole):
        notes.append(f"{unnamed} volumes without a row in the trials table left out")
    about = {"affine": image.affine, "shape": (shape[0], shape[1], shape[2]), "space": OWN_SPACE, "notes": notes}
    return assemble(_readers(image, voxels, table), table, voxels, params, progress, **about, stimulus_names=names)


def _chosen_trials(table: pd.DataFrame, sessions: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows of the sessions that are read, and a note on the others."""
    labels = sorted(table["session"].unique())
    chosen = chosen_sessions(sessions, labels)
    left = [label for label in labels if label not in chosen]
    notes = [f"sessions left out by choice: {listed(left)}"] if left else []
    return table[table["session"].isin(chosen)], notes


def read_user_trials(path: str | Path, n_volumes: int) -> tuple[pd.DataFrame, list[str]]:
    """Trials table ordered by session and trial, with `stimulus_id` and `shared`, and the stimulus labels."""
    table = read_table(path, COLUMNS, TEST_COLUMNS, NSDError)
    table["trial"] = whole_column(table, "trial", path, NSDError)
    _check_volumes(table["trial"], n_volumes, path)
    for column in ("stimulus", "session"):
        table[column] = text_column(table, column, path, NSDError)
    names = sorted(table["stimulus"].unique())
    table["stimulus_id"] = table["stimulus"].map({name: k for k, name in enumerate(names)}).astype(np.int64)
    table["shared"] = _test_column(table, path)
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


def _readers(image: nib.spatialimages.SpatialImage, voxels: np.ndarray, table: pd.DataFrame) -> list[partial[Session]]:
    """One reader per session, in order."""
    sessions = [rows["trial"].to_numpy() for _, rows in table.groupby("session", sort=True)]
    return [partial(_read_session, image, voxels, trials) for trials in sessions]


def _read_session(image: nib.spatialimages.SpatialImage, voxels: np.ndarray, trials: np.ndarray) -> Session:
    """Masked volumes `trials` (n_trials,), read front to back so that a .nii.gz is not unpacked per volume."""
    row_of = {int(trial): k for k, trial in enumerate(trials)}
    session = np.empty((len(trials), len(voxels)), dtype=np.float32)
    for block, values in iterate_nifti(image, voxels, int(trials.min()), int(trials.max()) + 1):
        for trial, volume in enumerate(values, block.start):
            if trial in row_of:
                session[row_of[trial]] = volume
    return session, None
