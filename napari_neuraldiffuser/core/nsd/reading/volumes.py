"""Opening volumes with clear errors, reading masks and labels as what they mean, and comparing grids."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import file_trouble
from napari_neuraldiffuser.core.nsd.reading.images import (
    DAMAGED,
    HALF,
    cause,
    in_one_shape,
    not_a_volume,
    place_note,
    step_of,
    whole_numbers,
)

AFFINE_TOLERANCE_MM = 1e-2
AXES = {3: "three axes (x, y, z)", 4: "four axes (x, y, z, trial)"}

Grid = tuple[tuple[int, ...], np.ndarray | None]
"""Shape, and 4x4 voxel to mm; HDF5 files carry no affine."""


class NSDError(UserError):
    """A file, folder or option of the scan data is not what it must be; the message names it, the rule and
    the remedy."""


def open_volume(path: str | Path, name: str = "volume", axes: int | None = None, **options: Any) -> SpatialImage:
    """Open a volume or a series of volumes without reading its data.

    Parameters
    ----------
    path : path
    name : str
        What it is, for the message.
    axes : 3 or 4, optional
        Where only a volume, or only a series, will do.
    **options
        As of `nibabel.load`.

    Returns
    -------
    SpatialImage
        (x, y, z) or (x, y, z, n), whatever further axes of one entry the file has; its affine in mm.

    Raises
    ------
    NSDError
        If the file is missing, cut off or damaged, no volume of real numbers, or of other axes.
    """
    image = open_image(path, name, **options)
    if wrong := not_a_volume(image):
        raise NSDError(f"{name} {path} must be a volume of real numbers, got {wrong}")
    shaped = in_one_shape(image, axes == 4, **options)
    if shaped.ndim not in ((axes,) if axes else AXES):
        wanted = AXES[axes] if axes else " or ".join(AXES.values())
        raise NSDError(f"{name} must have {wanted}, got shape {image.shape} in {path}. Choose another file.")
    return shaped


def open_image(path: str | Path, name: str, **options: Any) -> Any:
    """Open a file of any kind that nibabel knows; an NSDError if it is missing, damaged or unknown."""
    if trouble := file_trouble(path):
        raise NSDError(f"{name} {path} must be an image file, got {trouble}")
    try:
        return nib.load(path, **options)
    except DAMAGED as error:
        raise unreadable(path, name, error) from error


def values_of(image: SpatialImage, path: str | Path, name: str, part: Any = ...) -> np.ndarray:
    """Values of an image, or of a part of it such as `np.s_[..., :10]`, after the header's scaling."""
    try:
        return np.asanyarray(image.dataobj if part is ... else image.dataobj[part])
    except DAMAGED as error:
        raise unreadable(path, name, error) from error


def read_volume(path: str | Path, name: str = "volume") -> tuple[np.ndarray, np.ndarray]:
    """Values (X, Y, Z) after the header's scaling, and the 4x4 voxel-to-mm affine; NSDError as of `open_volume`."""
    image = open_volume(path, name, 3)
    return values_of(image, path, name), image.affine


def read_labels(path: str | Path, name: str = "ROI volume") -> tuple[np.ndarray, np.ndarray]:
    """Labels (X, Y, Z) int32 and affine, in whatever type they are stored; residues of scaling are rounded away.

    Raises
    ------
    NSDError
        As of `open_volume`, or if they are no whole numbers.
    """
    image = open_volume(path, name, 3)
    return labels_of(image, path, name), image.affine


def labels_of(image: SpatialImage, path: str | Path, name: str) -> np.ndarray:
    """Labels of an image, int32, residues of scaling rounded away; an NSDError if they are no whole numbers."""
    step = step_of(image)
    labels = whole_numbers(values_of(image, path, name), step)
    if labels is None:
        scaled = f" or saved with a header scaling of steps of {step:.3g}" if step else ""
        raise NSDError(
            f"{name} must hold whole-number labels, got other values in {path}. Was it interpolated{scaled}? "
            "Resample it with nearest neighbours, and save it as whole numbers."
        )
    if np.abs(labels.astype(np.float64)).max() > np.iinfo(np.int32).max:
        raise NSDError(f"{name} must hold labels below 2,147,483,648, got larger ones in {path}. Number them anew.")
    return labels.astype(np.int32)


def read_inside(path: str | Path, name: str = "mask") -> tuple[np.ndarray, np.ndarray]:
    """Which voxels are above 0, (X, Y, Z) bool, and the affine; residues of scaling whole numbers are not above 0."""
    image = open_volume(path, name, 3)
    values, step = values_of(image, path, name), step_of(image)
    whole = whole_numbers(values, step)
    return (values > HALF * step if whole is None else whole > 0), image.affine


def unreadable(path: str | Path, name: str, error: Exception) -> NSDError:
    """The error for a file that is truncated or not of its format."""
    return NSDError(f"{name} {path} must be a complete file of its format, got {cause(path, error)}")


def check_grid(name: str, grid: Grid, reference: Grid, path: str | Path = "", of: str = "betas") -> None:
    """Raise NSDError unless `grid` is the reference's, of the `of`; an affine of None is not compared.

    The file `path`, where given, is looked at again for a reason why its voxels lie elsewhere.
    """
    (shape, affine), (wanted_shape, wanted_affine) = grid, reference
    owner = f"{of}'" if of.endswith("s") else f"{of}'s"
    if tuple(shape) != tuple(wanted_shape):
        raise NSDError(
            f"{name} must have the {owner} shape {tuple(wanted_shape)}, got {tuple(shape)}. "
            f"Use the file of the same space as the {of}, or resample it to them."
        )
    if affine is None or wanted_affine is None:
        return
    if not np.allclose(affine, wanted_affine, atol=AFFINE_TOLERANCE_MM):
        doubt = place_note(open_volume(path, name)) if path else ""
        raise NSDError(
            f"{name} must have the {owner} affine {np.round(wanted_affine, 3).tolist()}, "
            f"got {np.round(affine, 3).tolist()}{f' (its header has {doubt})' if doubt else ''}. "
            f"Resample it to the {of} (nilearn.image.resample_to_img), or correct its header."
        )
