"""Surface files: FreeSurfer's MGH and MGZ with values of every vertex of a hemisphere, and GIfTI to write.

A hemisphere of fsaverage has 163,842 vertices, its coarser versions 40,962, 10,242 ...; the first vertices of a finer
one are those of the coarser.  Files are (vertices, 1, 1) or, with several values per vertex, (vertices, 1, 1, n).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.gifti.gifti import GiftiDataArray, GiftiMetaData
from nibabel.spatialimages import SpatialImage

from napari_neuraldiffuser.core.base.registry import HEMISPHERES
from napari_neuraldiffuser.core.nsd.reading.images import missing_bytes
from napari_neuraldiffuser.core.nsd.reading.volumes import (
    NSDError,
    labels_of,
    open_image,
    values_of,
)

SESSION = "surface betas"
BLOCK_BYTES = 64 * 2**20
ORDERS = range(8)
STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}
"""What GIfTI calls a hemisphere."""


def is_fsaverage(n_vertices: int) -> bool:
    """Whether a hemisphere of fsaverage or of a coarser version of it has that many vertices."""
    return n_vertices in {10 * 4**order + 2 for order in ORDERS}


def open_vertices(path: str | Path, name: str, series: bool = False) -> SpatialImage:
    """Open values of a hemisphere's vertices without reading them.

    Parameters
    ----------
    path : path
    name : str
        What it is, for the message.
    series : bool
        Whether there are several values per vertex.

    Returns
    -------
    SpatialImage
        (vertices, 1, 1), or (vertices, 1, 1, n).

    Raises
    ------
    NSDError
        If the file is missing, damaged, cut off, or of another shape.
    """
    # kept open: a gzip stream is then unpacked once, front to back
    image = open_image(path, name, keep_file_open=True) if _mgh(path) else open_image(path, name)
    shape = tuple(int(n) for n in getattr(image, "shape", ()))
    wanted = "(vertices, 1, 1, trials)" if series else "(vertices, 1, 1)"
    if len(shape) != 3 + series or shape[1:3] != (1, 1) or 0 in shape:
        raise NSDError(f"{name} must have shape {wanted}, got {shape} in {path}. Choose a surface file in MGH.")
    if lacking := missing_bytes(image):
        raise NSDError(f"{name} {path} must be a complete file of its format, got {lacking}")
    return image


def _mgh(path: str | Path) -> bool:
    return Path(path).suffix.lower() in (".mgh", ".mgz")


def read_vertex_labels(path: str | Path, name: str = "ROI surface") -> np.ndarray:
    """Labels (vertices,) int32, in whatever type they are stored; NSDError as of `open_vertices` and `labels_of`."""
    return labels_of(open_vertices(path, name), path, name)[:, 0, 0]


def read_vertices(path: str | Path, name: str) -> np.ndarray:
    """Values (vertices,) of a hemisphere; NSDError as of `open_vertices`."""
    return np.asarray(values_of(open_vertices(path, name), path, name))[:, 0, 0]


def read_surface_inside(path: str | Path, n_vertices: int) -> np.ndarray:
    """Which vertices a mask of one hemisphere has above 0, (2, n_vertices) bool; the other hemisphere has none.

    Raises
    ------
    NSDError
        If its name does not begin with lh. or rh., or it has other vertices.
    """
    hemisphere = hemisphere_of(path)
    if hemisphere is None:
        raise NSDError(
            f"ROI mask must be a surface file whose name begins with lh. or rh., as the betas are of a surface, got "
            f"{path}. Rename it, and join both hemispheres by ' + '."
        )
    values = read_vertices(path, "ROI mask")
    if len(values) != n_vertices:
        raise NSDError(
            f"ROI mask must have the betas' {n_vertices:,} vertices, got {len(values):,} in {path}. "
            "Use a mask on fsaverage and not on the subject's own surface."
        )
    inside = np.zeros((len(HEMISPHERES), n_vertices), dtype=bool)
    inside[hemisphere] = values > 0
    return inside


def both_hemispheres(left: np.ndarray, right: np.ndarray, name: str, n_vertices: int | None = None) -> np.ndarray:
    """Values (2, vertices) of both hemispheres.

    Raises
    ------
    NSDError
        If they have not equally many vertices, or others than `n_vertices`.
    """
    got = [len(left), len(right)]
    if got != [n_vertices or got[0]] * 2:
        wanted = f"the betas' {n_vertices:,}" if n_vertices else "equally many"
        raise NSDError(
            f"{name} must have {wanted} vertices in each hemisphere, got {got[0]:,} (lh) and {got[1]:,} (rh). "
            "Use files of fsaverage and not of the subject's own surface."
        )
    return np.stack([left, right])


def read_surface_session(path: str | Path, vertices: np.ndarray | None = None) -> np.ndarray:
    """fsaverage betas of one hemisphere and session, `[lh,rh].betas_sessionNN.mgh`.

    Read trial by trial in blocks, as they lie in the file: memory is the result and `BLOCK_BYTES`.

    Parameters
    ----------
    path : path
    vertices : (n,) int, optional
        Which vertices; all where None.

    Returns
    -------
    (n_trials, n_vertices) float32
        Percent signal change: the file is (163842, 1, 1, 750) float32 and, unlike the volumes, not times 300.

    Raises
    ------
    NSDError
        As of `open_vertices`.
    """
    image = open_vertices(path, SESSION, series=True)
    n_vertices, *_, n_trials = image.shape
    chosen: Any = slice(None) if vertices is None else vertices
    data = np.empty((n_trials, n_vertices if vertices is None else len(vertices)), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (n_vertices * np.dtype(np.float32).itemsize))
    for start in range(0, n_trials, step):
        block = values_of(image, path, SESSION, np.s_[..., start : start + step])
        data[start : start + step] = block[chosen, 0, 0, :].T
    return data


def read_masked_session(paths: Sequence[Path], positions: np.ndarray, n_trials: int, n_vertices: int) -> np.ndarray:
    """Betas of one session at some vertices of both hemispheres.

    Parameters
    ----------
    paths : sequence of Path
        The left and the right hemisphere's file.
    positions : (n, 2) int
        (hemisphere, vertex), all of the left before those of the right.
    n_trials, n_vertices : int
        Trials of the session, and vertices of a hemisphere, that the files must have.

    Returns
    -------
    (n_trials, n) float32
        Percent signal change.

    Raises
    ------
    NSDError
        If a file is damaged, or has other numbers of vertices or trials.
    """
    for path in paths:
        check_session(path, n_trials, n_vertices)
    data = np.empty((n_trials, len(positions)), dtype=np.float32)
    for hemisphere, path in enumerate(paths):
        columns = positions[:, 0] == hemisphere
        if columns.any():
            data[:, columns] = read_surface_session(path, positions[columns, 1])
    return data


def check_session(path: Path, n_trials: int, n_vertices: int) -> None:
    """Raise NSDError unless a session's file has these trials and vertices; no data are read."""
    vertices, *_, trials = open_vertices(path, SESSION, series=True).shape
    if vertices != n_vertices:
        raise NSDError(
            f"{path} must have {n_vertices:,} vertices as the first session's left hemisphere, got {vertices:,}. "
            "Download the fsaverage betas of this session again."
        )
    if trials != n_trials:
        raise NSDError(
            f"{path} must hold {n_trials} trials, got {trials}. "
            "The file is incomplete or not a single session; download or write it again."
        )


def gifti(values: np.ndarray, hemi: str, intent: str, dtype: Any) -> nib.GiftiImage:
    """A GIfTI image of a hemisphere's values.

    Parameters
    ----------
    values : (n, vertices)
        A data array each.
    hemi : str
        "L" or "R".
    intent, dtype
        NIfTI's intent, such as "NIFTI_INTENT_SHAPE", and the type that is stored.
    """
    meta = GiftiMetaData({"AnatomicalStructurePrimary": STRUCTURES[hemi]})
    arrays = [GiftiDataArray(np.asarray(row, dtype=dtype), intent=intent, meta=meta) for row in values]
    return nib.GiftiImage(meta=meta, darrays=arrays)


def hemisphere_of(path: str | Path) -> int | None:
    """Place in `HEMISPHERES` of the hemisphere that a file's name begins with, None where it says none."""
    start = Path(path).name.partition(".")[0]
    return list(HEMISPHERES).index(start) if start in HEMISPHERES else None
