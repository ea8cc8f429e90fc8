"""Which image was seen in which row of a further session's betas: NSD-synthetic's design, or the user's table."""

from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.base.tables import read_table, text_column, whole_column
from napari_neuraldiffuser.core.nsd.further.files import FIRST_ID, N_SYNTHETIC, TRIALS, FurtherFiles
from napari_neuraldiffuser.core.nsd.reading.design import read_order
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

TABLE = ("trial", "stimulus")
HOW_IMAGERY = (
    "Write a tab-separated table of trial (0-based row of the betas) and stimulus (name of its picture) from the NSD "
    "data manual and your copy of the behavioural files, for the rows that are to be decoded (--trials FILE --images "
    "DIR)"
)


def shown(files: FurtherFiles, source: Source) -> tuple[pd.DataFrame, list[str]]:
    """Rows of a further session that are test trials, and the labels of their images.

    Returns
    -------
    trials : pandas.DataFrame
        Columns as of `BrainSource.trials`; `trial` is the 0-based row of the session's betas.
    names : list of str
        Label of image k, whose id is `FIRST_ID` + k; empty for NSD-synthetic, whose images have numbers.

    Raises
    ------
    NSDError
        If the design or table is missing, damaged, or names rows or images that are not there.
    """
    if files.test_set == "synthetic":
        images = read_order(files.design, TRIALS["synthetic"], N_SYNTHETIC) - 1
        return _table(files, np.arange(len(images)), images), []
    rows, labels = _users_table(source)
    names = sorted(set(labels))
    images = np.array([names.index(label) for label in labels], dtype=np.int64)
    return _table(files, rows, images), names


def _users_table(source: Source) -> tuple[np.ndarray, list[str]]:
    """Rows (n,) in order and their labels of the table for NSD-imagery."""
    missing = [f"--{name}" for name in ("trials", "images") if not getattr(source, name)]
    if missing:
        raise NSDError(
            "NSD-imagery must have a table of which row of its betas is of which picture, as no file of NSD that is "
            f"read here says so, got no {' and '.join(missing)}. {HOW_IMAGERY}."
        )
    path = Path(source.trials)
    table = read_table(path, TABLE, error=NSDError)
    rows, labels = whole_column(table, "trial", path, NSDError), text_column(table, "stimulus", path, NSDError).tolist()
    n = TRIALS["imagery"]
    outside = rows[(rows < 0) | (rows >= n)]
    if len(outside):
        raise NSDError(
            f"{path} must have rows 0 ... {n - 1} of NSD-imagery's betas in the column trial, got {int(outside[0])}. "
            "Count rows from 0, attention runs with two rows a trial."
        )
    numbers, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        raise NSDError(f"{path} must name each row once, got row {numbers[counts > 1][0]} again. Remove one.")
    order = np.argsort(rows, kind="stable")
    return rows[order], [labels[k] for k in order]


def _table(files: FurtherFiles, rows: np.ndarray, images: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "trial": rows,
            "session": files.session,
            "trial_in_session": rows,
            "stimulus_id": images + FIRST_ID[files.test_set],
            "shared": True,
        }
    )
    return table.assign(repeat=table.groupby("stimulus_id").cumcount())
