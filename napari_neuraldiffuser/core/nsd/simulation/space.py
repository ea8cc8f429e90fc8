"""How large the files of a simulated subject are, told before they are written."""

import shutil
from functools import lru_cache
from pathlib import Path

from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.design import TRIALS_PER_SESSION
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.nsd.simulation.brain import n_grey
from napari_neuraldiffuser.core.nsd.simulation.experiment import make_experiment
from napari_neuraldiffuser.core.params import SimulationParams

GB = 1e9
LARGE = 1e9
"""Bytes of which the command line tells before it writes them."""
INDEX = 90
"""Bytes that HDF5 keeps of a chunk beside its values, measured."""
IMAGE = 0.5
"""Of a drawn image's pixels, compressed: scenes keep less."""


def session_size(grid: str) -> int:
    """Bytes of a session's file of betas: NSD's layout has a chunk of 750 values for every grey voxel."""
    return _grey(grid) * (2 * TRIALS_PER_SESSION + INDEX)


def needed_bytes(params: SimulationParams) -> int:
    """Bytes of the betas and images of all subjects, a little more than will be written."""
    design = make_experiment(params)
    images = len({int(one) for k in range(1, params.n_subjects + 1) for one in design.shown(k)})
    pictures = int(images * 3 * params.image_size**2 * IMAGE)
    return params.n_subjects * params.n_sessions * session_size(params.grid) + pictures


def session_bytes(layout: Layout) -> int:
    """Bytes of the sessions that a subject has already, which are written over."""
    return sum(path.stat().st_size for path in layout.beta_folder.glob("betas_session*.hdf5"))


def check_space(folder: Path, needed: int, there: int = 0) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    NSDError
        If `needed` bytes, less those that are `there` already, are more than are free.
    """
    free = shutil.disk_usage(folder).free + there
    if needed > free:
        raise NSDError(
            f"{folder} must have {needed / GB:.1f} GB free for the simulated data, got {free / GB:.1f}. Lower "
            "n_sessions or n_subjects, or give a folder on another disk."
        )


@lru_cache(maxsize=2)
def _grey(grid: str) -> int:
    return n_grey(grid)
