"""MindEye2's prepared betas: all sessions of a subject in one matrix, without voxel positions."""

import io
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import file_trouble
from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.nsd.assemble import Assembler, trial_notes
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.reading.images import DAMAGED
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, unreadable

STIMULUS, TRIAL, SHARED, COLUMNS = 0, 5, 16, 17
"""Columns of behav.npy: 0-based 73k id, global trial (row of the betas), shared flag; -1 is missing."""

BLOCK_TRIALS = 750
SPLITS = ("train", "new_test")
"""Folders of tar files, one per session, in `wds/subjXX`; `test` is of before all sessions were released."""
MEMBER = ".behav.npy"
"""Ending of the rows in a tar file; others are of trials before and after."""


def mindeye_betas(betas_hdf5: str | Path, behaviour: str | Path, *, average_repeats: bool = True) -> Betas:
    """Read `betas_all_subjXX_fp32_renorm.hdf5` with the behaviour that says what was shown.

    Parameters
    ----------
    betas_hdf5 : path
        Dataset `betas` (trials, n_voxels) float32, already z-scored per session.
    behaviour : path
        `behav.npy`, a (..., 17) table of one row per trial; or the folder `wds/subjXX`, whose tar files hold the rows.
    average_repeats : bool
        Average the repeats of an image.

    Returns
    -------
    Betas
        Without geometry: `voxels`, `affine` and `shape` are None.

    Raises
    ------
    NSDError
        If a file is unreadable or the table does not fit the matrix.
    """
    rows = _read_folder(Path(behaviour)) if Path(behaviour).is_dir() else _read_behaviour(behaviour)
    with reading_hdf5(betas_hdf5, "MindEye2's betas", NSDError) as file:
        dataset = dataset_of(file, "betas", ("trial", "voxel"), "MindEye2's betas", NSDError)
        return _assemble(dataset, rows, average_repeats)


def _read_folder(folder: Path) -> np.ndarray:
    """Rows (n, 17) of all tar files of train and new_test; nothing is unpacked to disk."""
    files = {split: sorted((folder / split).glob("*.tar")) for split in SPLITS}
    if not all(files.values()):
        lacking = " and ".join(split for split, found in files.items() if not found)
        raise NSDError(
            f"{folder} must hold tar files in {' and '.join(SPLITS)}, got none in {lacking}. Download them: the folder "
            "test is of an earlier release."
        )
    return np.concatenate([_read_tar(path, split == "new_test") for split in SPLITS for path in files[split]])


def _read_tar(path: Path, test: bool) -> np.ndarray:
    """Rows of one tar file, all of which must be of shared images in `new_test` and of others in `train`."""
    try:
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.isfile() and member.name.endswith(MEMBER)]
            read = [tar.extractfile(member) for member in members]
            rows = [np.load(io.BytesIO(one.read()), allow_pickle=False) for one in read if one is not None]
        table = np.concatenate([row.reshape(-1, COLUMNS) for row in rows])
    except (*DAMAGED, tarfile.TarError) as error:
        raise NSDError(
            f"{path} must be a tar file of MindEye2's behaviour, with rows *{MEMBER} of {COLUMNS} numbers, got another "
            f"({error}). Download it again."
        ) from error
    if wrong := int(((table[:, SHARED] == 1) != test).sum()):
        raise NSDError(
            f"{path} must hold trials of {'shared' if test else 'other than shared'} images, got {wrong} others. "
            "Put the tar files of train and new_test into folders of these names."
        )
    return table


def _read_behaviour(path: str | Path) -> np.ndarray:
    if trouble := file_trouble(path):
        raise NSDError(f"{path} must be behav.npy, got {trouble}")
    try:
        table = np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise unreadable(path, "behav.npy", error) from error
    if table.ndim < 2 or table.shape[-1] != COLUMNS:
        raise NSDError(f"behav.npy must have {COLUMNS} columns, got shape {table.shape} in {path}.")
    return table.reshape(-1, COLUMNS)


def _assemble(dataset: h5py.Dataset, behaviour: np.ndarray, average: bool) -> Betas:
    present = (behaviour[:, STIMULUS] >= 0) & (behaviour[:, TRIAL] >= 0)
    rows = behaviour[present].astype(np.int64)
    rows = rows[np.argsort(rows[:, TRIAL], kind="stable")]
    if not len(rows) or rows[-1, TRIAL] >= len(dataset) or (np.diff(rows[:, TRIAL]) == 0).any():
        raise NSDError(
            f"behav.npy must name each of the {len(dataset)} trials at most once, got {len(rows)} rows "
            f"up to trial {rows[-1, TRIAL] if len(rows) else 'none'}. Use the table of the same subject."
        )
    assembler = Assembler(rows[:, STIMULUS], dataset.shape[1], zscore=False, average=average)
    for start in range(0, len(rows), BLOCK_TRIALS):
        block = rows[start : start + BLOCK_TRIALS, TRIAL]
        assembler.add(dataset[block].astype(np.float32), name=f"of trials {block[0]} ... {block[-1]}")
    data, _, dropped = assembler.finish()
    tests = np.unique(rows[rows[:, SHARED] == 1, STIMULUS])
    trials = pd.DataFrame({"trial": rows[:, TRIAL], "stimulus_id": rows[:, STIMULUS], "shared": rows[:, SHARED] == 1})
    trials["session"] = trials["trial"] // BLOCK_TRIALS + 1
    notes = [f"{int((~present).sum())} missing trials (-1) left out"] if not present.all() else []
    notes += trial_notes(trials, assembler)
    return Betas(
        data,
        assembler.ids,
        np.isin(assembler.ids, tests),
        assembler.repeats,
        space="mindeye2",
        notes=notes,
        dropped=dropped,
        noise_ceiling={"mean": None, "why": "how the betas of these files were scaled is not known"},
    )
