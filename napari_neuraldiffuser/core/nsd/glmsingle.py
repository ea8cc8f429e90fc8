"""Which image each trial of GLMsingle's betas belongs to: its DESIGNINFO, which lies beside the betas."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.base.pictures import picture_files
from napari_neuraldiffuser.core.base.safe_npy import load_dict
from napari_neuraldiffuser.core.base.tables import add_flags, flag_column, read_table, text_column, whole_column
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

WHAT = "GLMsingle's DESIGNINFO"


@dataclass(frozen=True)
class Design:
    """Order of the conditions over the trials of all runs.

    Attributes
    ----------
    path : Path
    conditions : (n_trials,) int
        0-based column of the design matrices.
    sessions : (n_trials,) int
        GLMsingle's session indicator of the run; 1 where it was told none.
    """

    path: Path
    conditions: np.ndarray
    sessions: np.ndarray


def read_design(path: Path, n_trials: int) -> Design:
    """Read DESIGNINFO.npy, or MATLAB's of version 7.3, which counts conditions from 1.

    Raises
    ------
    NSDError
        If it is damaged, or of another number of trials than `n_trials`.
    """
    order, per_run, indicator = (_matlab if path.suffix.lower() == ".mat" else _python)(path)
    if len(order) != n_trials or per_run.sum() != n_trials or order.min() < 0:
        raise NSDError(
            f"{path} must be the design of the {n_trials} trials of the betas, got {len(order)} trials in runs of "
            f"{per_run.tolist()[:10]}. Give the DESIGNINFO that was written with them."
        )
    if len(indicator) != len(per_run):
        indicator = np.ones(len(per_run), dtype=np.int64)
    return Design(path, order, np.repeat(indicator, per_run))


def _python(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = load_dict(path, WHAT, NSDError)
    params = found.get("params")
    session = params.get("sessionindicator", ()) if isinstance(params, dict) else ()
    told = (found.get("stimorder"), found.get("numtrialrun"), session)
    order, per_run, indicator = (_whole(values, path) for values in told)
    return order, per_run, indicator


def _matlab(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with reading_hdf5(path, WHAT, NSDError) as file:
        order, per_run = (
            _whole(dataset_of(file, name, ("column", "row"), WHAT, NSDError)[...], path)
            for name in ("stimorder", "numtrialrun")
        )
        session = file.get("opt/sessionindicator")
        indicator = _whole(session[...] if isinstance(session, h5py.Dataset) else (), path)
    return order - 1, per_run, indicator


def _whole(values: Any, path: Path) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any():
        raise NSDError(f"{path} must be {WHAT} with stimorder and numtrialrun, got others. Copy or write it again.")
    return numbers.astype(np.int64)


def design_trials(design: Design, table: str | Path, images: str) -> tuple[pd.DataFrame, list[str]]:
    """Trials, as `user.read_user_trials` has them before they are sorted, and notes.

    Parameters
    ----------
    design : Design
    table : path or ""
        Table of conditions: `condition` (0-based), `stimulus` and, if wanted, `test`.  Without it the stimuli are
        named by the numbers of their conditions.
    images : str
        Folder of images; names that are those numbers with zeros before them name the stimuli.

    Returns
    -------
    pandas.DataFrame
        trial, stimulus, session as text, test as bool.
    list of str

    Raises
    ------
    NSDError
        If the table lacks a condition that was shown.
    """
    shown = np.unique(design.conditions).tolist()
    label, test, notes = _of_table(table, shown) if table else ({}, None, [])
    if not table:
        label = _of_images(shown, images)
        notes = [f"stimuli are named by the conditions of {design.path.name} (0-based), as there is no trials table"]
    trials = pd.DataFrame({"trial": np.arange(len(design.conditions)), "session": design.sessions.astype(str)})
    trials["stimulus"] = [label[k] for k in design.conditions.tolist()]
    if test is None:
        test, note = _shown_most(trials["stimulus"])
        notes.append(note)
    trials["test"] = trials["stimulus"].isin(test)
    return trials, notes


def _of_table(path: str | Path, shown: list[int]) -> tuple[dict[int, str], set[str] | None, list[str]]:
    """Label of each condition, and which labels are test; None where the table has no such column."""
    table = read_table(path, ("condition", "stimulus"), ("test",), NSDError)
    conditions = whole_column(table, "condition", path, NSDError)
    stimuli = text_column(table, "stimulus", path, NSDError)
    label = dict(zip(map(int, conditions), map(str, stimuli), strict=True))
    missing = [k for k in shown if k not in label]
    if missing or len(label) != len(table):
        got = f"no row for {missing[:10]}" if missing else f"{len(table) - len(label)} conditions twice"
        raise NSDError(
            f"{path} must have one row for each condition (0-based column of the design matrices), got {got}. "
            "Complete it, or write a table of trials."
        )
    if "test" not in table.columns:
        return label, None, []
    told: dict[str, bool] = {}
    add_flags(told, pd.Series(stimuli), flag_column(table, "test", path, NSDError), path, NSDError)
    return label, {name for name, flag in told.items() if flag}, []


def _of_images(shown: list[int], images: str) -> dict[int, str]:
    """The number of each condition, spelled as an image of that number is."""
    files = picture_files(images) if images and Path(images).is_dir() else []
    spelled = {int(path.stem): path.stem for path in files if path.stem.isascii() and path.stem.isdecimal()}
    return {k: spelled.get(k, str(k)) for k in shown}


def _shown_most(stimuli: pd.Series) -> tuple[set[str], str]:
    """Stimuli that were shown more often than the others, which a design without a test column holds out."""
    counts = Counter(stimuli)
    most = max(counts.values())
    test = {label for label, n in counts.items() if n == most}
    if len(test) == len(counts):
        return set(), f"no test stimuli: all were shown {most} times; mark some in a table of conditions or of trials"
    return test, f"test stimuli are the {len(test)} that were shown most often ({most} times)"


def disagreement(design: Design, trials: pd.DataFrame) -> str:
    """How a table of trials contradicts the design that GLMsingle was given; nothing where it does not.

    Trials of one condition are one stimulus there: GLMsingle tuned its denoising by that.
    """
    condition = design.conditions[trials["trial"].to_numpy()]
    pairs = pd.DataFrame({"condition": condition, "stimulus": trials["stimulus"].to_numpy()}).drop_duplicates()
    wrong = int(pairs["condition"].duplicated(keep=False).sum() + pairs["stimulus"].duplicated(keep=False).sum())
    if not wrong:
        return ""
    return f"trials table and {design.path.name} do not match one stimulus to one condition in {wrong} pairs"
