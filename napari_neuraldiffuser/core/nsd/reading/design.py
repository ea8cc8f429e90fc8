"""Reads which image was shown in which trial from nsd_expdesign.mat and responses.tsv."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io

from napari_neuraldiffuser.core.base.files import file_trouble
from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.base.tables import read_table, whole_column
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.images import DAMAGED
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, unreadable

TRIALS_PER_SESSION = 750
N_SHARED = 1000
N_STIMULI = 73000
SESSIONS_RUN = (40, 40, 32, 30, 40, 32, 40, 30)
"""Sessions that NSD's subjects 1-8 completed (NSD data manual)."""
RESPONSES = ("SESSION", "RUN", "TRIAL", "73KID")
DESIGN = ("masterordering", "subjectim")
ORDER = ("masterordering",)


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
    """Read masterordering (30000,) and subjectim (8, 10000), both 1-based, as any version of MATLAB saves them."""
    order, images = _read_mat(path, DESIGN)
    # of any shape that holds what it must: MATLAB's rows and columns differ with who saved it
    order = order.ravel()
    fits = images.ndim == 2 and len(images) == len(SESSIONS_RUN) and order.size and order.min() >= 1
    if not fits or order.max() > images.shape[1] or images.min() < 1 or images.max() > N_STIMULI:
        raise NSDError(
            f"{path} must hold subjectim (ids 1 ... {N_STIMULI} of {len(SESSIONS_RUN)} subjects) and masterordering, "
            f"its columns, got shapes {images.shape} and {order.shape} or other numbers. Download it again."
        )
    return order, images


def read_order(path: Path, n_trials: int, n_images: int) -> np.ndarray:
    """Which image, 1-based, each trial of a further session showed, (n_trials,) int64; as any version of MATLAB saves
    it.

    Raises
    ------
    NSDError
        If the file is missing or damaged, or has another number of trials or other images.
    """
    (order,) = _read_mat(path, ORDER)
    order = order.ravel()
    if order.size != n_trials or order.min() < 1 or order.max() > n_images:
        got = f"{order.size} numbers" + (f" of {order.min()} ... {order.max()}" if order.size else "")
        raise NSDError(
            f"{path} must have in masterordering {n_trials} numbers of images 1 ... {n_images}, got {got}. "
            "Download it again."
        )
    return order


def _read_mat(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of whole numbers of a design file by name."""
    if trouble := file_trouble(path):
        raise NSDError(f"{path} must be NSD's design, got {trouble}")
    return (_mat_hdf5 if h5py.is_hdf5(path) else _mat_file)(path, names)


def _mat_file(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of a file of MATLAB's versions 4 to 7."""
    try:
        design = scipy.io.loadmat(path, variable_names=names)
        return [design[name].astype(np.int64) for name in names]
    except KeyError as error:
        raise NSDError(f"{path} must hold {' and '.join(names)}, got no {error}.") from error
    except (*DAMAGED, IndexError, AttributeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise unreadable(path, path.name, error) from error


def _mat_hdf5(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of a file of MATLAB 7.3, which is HDF5 and shows MATLAB's axes in reverse."""
    with reading_hdf5(path, "NSD's design", NSDError) as file:
        arrays = [dataset_of(file, name, ("column", "row"), "the design", NSDError)[...] for name in names]
    return [np.asarray(array, dtype=np.int64).T for array in arrays]


def _sessions_run(layout: Layout) -> tuple[int, pd.DataFrame | None]:
    """Sessions the subject was scanned in: from the responses where they are there, else NSD's own counts."""
    if not layout.responses.is_file():
        return SESSIONS_RUN[layout.number - 1], None
    texts = read_table(layout.responses, RESPONSES, error=NSDError, wide=True)
    responses = pd.DataFrame({name: whole_column(texts, name, layout.responses, NSDError) for name in RESPONSES})
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
