"""Reads which image was shown in which trial from nsd_expdesign.mat and responses.tsv."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io

from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.volumes import READ_ERRORS, NSDError, unreadable

TRIALS_PER_SESSION = 750
N_SHARED = 1000
N_STIMULI = 73000
SESSIONS_RUN = (40, 40, 32, 30, 40, 32, 40, 30)
"""Sessions that NSD's subjects 1-8 completed (NSD data manual)."""


def read_trials(layout: Layout) -> pd.DataFrame:
    """Trials table of a subject over all its sessions.

    Returns
    -------
    pandas.DataFrame
        One row per trial: `trial` (0-based over the experiment), `session` (1-based), `trial_in_session`
        (0-based), `stimulus_id` (0-based 73k id), `shared` (one of the shared 1000, the test images) and
        `repeat` (0-based showing of that image).

    Raises
    ------
    NSDError
        If the design is unreadable, or responses.tsv names other images than the design.

    Notes
    -----
    With NSD's 1-based fields, the image of trial t is `subjectim[s, masterordering[t] - 1] - 1`, and the
    first 1000 images of every subject are the shared ones (NSD data manual, nsd_expdesign.mat).
    """
    order, images = _read_design(layout.design)
    sessions, responses = _sessions_run(layout)
    n = min(sessions * TRIALS_PER_SESSION, len(order))
    trial = np.arange(n)
    table = pd.DataFrame(
        {
            "trial": trial,
            "session": trial // TRIALS_PER_SESSION + 1,
            "trial_in_session": trial % TRIALS_PER_SESSION,
            "stimulus_id": images[layout.number - 1, order[:n] - 1] - 1,
            "shared": order[:n] <= N_SHARED,
        }
    )
    table["repeat"] = table.groupby("stimulus_id").cumcount()
    if responses is not None:
        _check_responses(table, responses, layout.responses)
    return table


def _read_design(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read masterordering (30000,) and subjectim (8, 10000), both 1-based."""
    try:
        design = scipy.io.loadmat(path, variable_names=["masterordering", "subjectim"])
        return design["masterordering"].ravel().astype(np.int64), design["subjectim"].astype(np.int64)
    except KeyError as error:
        raise NSDError(f"{path} must hold masterordering and subjectim, got no {error}.") from error
    except (*READ_ERRORS, TypeError, IndexError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise unreadable(path, "nsd_expdesign.mat", error) from error


def _sessions_run(layout: Layout) -> tuple[int, pd.DataFrame | None]:
    """Sessions the subject was scanned in: from the responses where they are there, else NSD's own counts."""
    if not layout.responses.is_file():
        return SESSIONS_RUN[layout.number - 1], None
    responses = pd.read_csv(layout.responses, sep="\t")
    missing = {"SESSION", "RUN", "TRIAL", "73KID"} - set(responses.columns)
    if missing:
        raise NSDError(f"{layout.responses} must have SESSION, RUN, TRIAL, 73KID, got no {sorted(missing)}.")
    return int(responses["SESSION"].max()), responses


def _check_responses(table: pd.DataFrame, responses: pd.DataFrame, path: Path) -> None:
    """A label that is off by one is worse than no label: the two records of the experiment must agree."""
    complete = responses.groupby("SESSION")["73KID"].transform("size") == TRIALS_PER_SESSION
    rows = responses[complete].sort_values(["SESSION", "RUN", "TRIAL"])
    trial = (rows["SESSION"] - 1) * TRIALS_PER_SESSION + rows.groupby("SESSION").cumcount()
    wrong = table["stimulus_id"].to_numpy()[trial] != rows["73KID"].to_numpy() - 1
    if wrong.any():
        raise NSDError(
            f"{path} must name the same images as nsd_expdesign.mat, got {int(wrong.sum())} trials differ "
            f"(first: trial {int(trial.to_numpy()[wrong][0])}). The two files are of different data releases."
        )
