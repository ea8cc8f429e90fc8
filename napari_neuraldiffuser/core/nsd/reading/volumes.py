"""Opening NIfTI volumes with clear errors, and comparing their grids; what all readers raise."""

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError

READ_ERRORS = (OSError, EOFError, zlib.error, ValueError, nib.filebasedimages.ImageFileError)
"""What nibabel, gzip and h5py raise for a truncated or foreign file."""

AFFINE_TOLERANCE_MM = 1e-2

Grid = tuple[tuple[int, ...], np.ndarray | None]
"""Shape, and 4x4 voxel to mm; HDF5 files carry no affine."""


class NSDError(UserError):
    """A file, folder or option of the scan data is not what it must be; the message names it, the rule and
    the remedy."""


def open_volume(path: str | Path, name: str = "volume", **options: Any) -> nib.spatialimages.SpatialImage:
    """Open an image without reading its data.

    Raises
    ------
    NSDError
        If the file is missing or not an image.
    """
    try:
        image = nib.load(path, **options)
    except FileNotFoundError as error:
        raise NSDError(f"{name} must be an existing file, got {path}. Check the path.") from error
    except READ_ERRORS as error:
        raise unreadable(path, name, error) from error
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise NSDError(f"{name} must be an image of volumes, got {type(image).__name__} in {path}.")
    return image


def read_volume(path: str | Path, name: str = "volume") -> tuple[np.ndarray, np.ndarray]:
    """Values (X, Y, Z) as stored after header scaling, and the 4x4 voxel-to-mm affine."""
    image = open_volume(path, name)
    try:
        values = np.asanyarray(image.dataobj)
    except READ_ERRORS as error:
        raise unreadable(path, name, error) from error
    if values.ndim > 3 and np.prod(values.shape[3:]) == 1:
        values = values.reshape(values.shape[:3])
    if values.ndim != 3:
        raise NSDError(f"{name} must have three axes, got shape {values.shape} in {path}.")
    return values, image.affine


def unreadable(path: str | Path, name: str, error: Exception) -> NSDError:
    """The error for a file that is truncated or not of its format."""
    return NSDError(
        f"{name} must be a complete file of its format, got {path} ({type(error).__name__}: {error}). "
        "It may be truncated: compare its size with the source and download or write it again."
    )


def check_grid(name: str, grid: Grid, reference: Grid) -> None:
    """Raise NSDError unless `grid` is the reference's; an affine of None is not compared."""
    (shape, affine), (wanted_shape, wanted_affine) = grid, reference
    if tuple(shape) != tuple(wanted_shape):
        raise NSDError(
            f"{name} must have the betas' shape {tuple(wanted_shape)}, got {tuple(shape)}. "
            "Use the file of the same space as the betas, or resample it to them."
        )
    if affine is None or wanted_affine is None:
        return
    if not np.allclose(affine, wanted_affine, atol=AFFINE_TOLERANCE_MM):
        raise NSDError(
            f"{name} must have the betas' affine {np.round(wanted_affine, 3).tolist()}, "
            f"got {np.round(affine, 3).tolist()}. Resample it to the betas (nilearn.image.resample_to_img)."
        )
