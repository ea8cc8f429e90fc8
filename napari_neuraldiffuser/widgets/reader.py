"""NIfTI volumes as napari layers, placed in millimetres.  Needs neither Qt nor napari."""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.processing import resample_to_output
from nibabel.spaces import vox2out_vox
from nibabel.spatialimages import HeaderDataError, ImageDataError

AXIS_LABELS = ("S", "A", "R")
"""napari's axes after the transpose: superior, anterior and right are the positive directions."""

LayerData = tuple[np.ndarray, dict[str, Any], str]
MAX_LABELS = 512
MOST_VOXELS = 2**28
"""Of one resampled volume: a gigabyte."""
OBLIQUE_RADIANS = 1e-3
DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, zlib.error),
    *(ImageFileError, HeaderDataError, ImageDataError),
)
"""What nibabel and the layers below it raise on damaged files, found by damaging them (test_fuzz_reader)."""


class ReadError(ValueError):
    """A file cannot be shown as a volume; the message names the file and what is wrong with it."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """napari's reader hook: the reading function for NIfTI names, None for others."""
    paths = [path] if isinstance(path, (str, Path)) else path
    if not all(str(p).endswith((".nii", ".nii.gz")) for p in paths):
        return None
    return read_volumes


def read_volumes(path: str | list[str]) -> list[LayerData]:
    """One layer for each path."""
    paths = [path] if isinstance(path, (str, Path)) else path
    return [read_volume(p) for p in paths]


def read_volume(path: str | Path) -> LayerData:
    """Read a 3D or 4D NIfTI file as (data, layer keywords, layer type).

    Returns
    -------
    data : ndarray, (Z, Y, X) or (T, Z, Y, X)
        Closest-canonical (RAS+) axes, reversed, so that napari's first axis runs towards superior.
    keywords : dict
        name, affine (mm, permuted alike), units, axis_labels, metadata (path, the file's affine, notes).
    kind : "image" or "labels"
        Labels for piecewise-constant volumes of few integers (ROIs, masks).

    Raises
    ------
    ReadError
        If the file is missing, truncated, not NIfTI or not 3D or 4D.
    """
    return volume_layer(_open(path), path)


def volume_layer(image: nib.spatialimages.SpatialImage, path: str | Path) -> LayerData:
    """A 3D or 4D image that was opened from `path` as (data, layer keywords, layer type), as `read_volume` gives it."""
    notes: list[str] = []
    canonical = _canonical(image, path)
    data = _values(canonical, path)
    kind = "labels" if is_label_volume(image, data) else "image"
    affine = canonical.affine
    if obliquity(affine).max() > OBLIQUE_RADIANS:
        _check_resampled_size(data.shape, affine, path)
        data, affine = _axis_aligned(data, affine, order=0 if kind == "labels" else 1)
        notes.append("The volume is oblique: resampled to an axis-aligned grid for display.")
    if kind == "labels":
        data, negative = np.maximum(data, 0).astype(np.int32), bool((data < 0).any())
        if negative:
            notes.append("Negative labels (NSD: not this hemisphere's cortex) are shown as background.")
    keywords = _keywords(Path(path), affine, data.ndim)
    keywords["metadata"] = {"path": str(path), "affine": image.affine, "notes": notes}
    return data.transpose(), keywords, kind


def _open(path: str | Path) -> nib.spatialimages.SpatialImage:
    try:
        image = nib.load(path)
    except DAMAGED as error:
        raise ReadError(f"{path} must be a NIfTI file, got: {error}. Check the path and the file.") from error
    if not hasattr(image, "affine") or image.ndim not in (3, 4) or 0 in image.shape:
        raise ReadError(f"{path} must be a 3D or 4D volume, got shape {getattr(image, 'shape', None)}.")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise ReadError(f"{path} must have an invertible affine, got {image.affine.tolist()}.")
    return image


def _canonical(image, path):
    try:
        return nib.as_closest_canonical(image)
    except OrientationError as error:
        raise ReadError(f"{path} must have three distinct axes, got: {error}. Repair its header.") from error
    except DAMAGED as error:
        raise ReadError(f"{path} must be complete, got: {error}. Copy or download it again.") from error


def _values(image, path) -> np.ndarray:
    """Voxel values in the stored dtype; scaled or double data as float32, which is what a screen needs."""
    try:
        data = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise ReadError(f"{path} must be complete, got: {error}. Copy or download it again.") from error
    if data.dtype.kind not in "iuf":
        raise ReadError(f"{path} must hold real numbers, got {data.dtype}.")
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    return data.astype(np.float32) if data.dtype.kind == "f" and data.dtype.itemsize != 4 else data


def is_label_volume(image, data: np.ndarray) -> bool:
    """Whether `data` (X, Y, Z) holds labels: few integers in patches, or the header's intent says so.

    Anatomy is often stored as integers too, but neighbouring voxels of an anatomy rarely have equal values.
    """
    if data.ndim != 3:
        return False
    if image.header.get("intent_code", 0) == 1002:  # NIFTI_INTENT_LABEL
        return True
    if data.dtype.kind == "f" and not np.array_equal(data, np.rint(data)):
        return False
    if len(np.unique(data)) > MAX_LABELS or not data.any():
        return False
    inside = (data[1:] > 0) & (data[:-1] > 0)
    equal = (data[1:] == data[:-1])[inside]
    return bool(equal.size == 0 or equal.mean() > 0.5)


def _check_resampled_size(shape: tuple[int, ...], affine: np.ndarray, path: Any) -> None:
    """A damaged affine can ask for terabytes; refuse before they are allocated."""
    try:
        grid, _ = vox2out_vox((shape[:3], affine), tuple(nib.affines.voxel_sizes(affine)))
        n_voxels = math.prod(int(n) for n in grid)
    except DAMAGED as error:
        raise ReadError(f"{path} must have a usable affine, got: {error}. Repair its header.") from error
    if n_voxels > MOST_VOXELS:
        raise ReadError(
            f"{path} must fit {MOST_VOXELS} voxels when resampled for display, got {n_voxels}. Repair its affine."
        )


def _axis_aligned(data: np.ndarray, affine: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """`data` (X, Y, Z[, T]) resampled to the world's axes at its own voxel sizes."""
    sizes = tuple(nib.affines.voxel_sizes(affine))
    volumes = data[..., None] if data.ndim == 3 else data
    resampled = [
        resample_to_output(nib.Nifti1Image(volumes[..., t].astype(np.float32), affine), sizes, order=order)
        for t in range(volumes.shape[3])
    ]
    stacked = np.stack([np.asanyarray(r.dataobj, dtype=np.float32) for r in resampled], axis=3)
    return (stacked[..., 0] if data.ndim == 3 else stacked), resampled[0].affine


def _keywords(path: Path, affine: np.ndarray, ndim: int) -> dict[str, Any]:
    """Layer keywords that place data transposed to (.., Z, Y, X) with an (X, Y, Z) `affine` in mm."""
    reverse = [2, 1, 0, 3]
    placed = np.eye(ndim + 1)
    placed[-4:, -4:] = affine[np.ix_(reverse, reverse)]
    # time keeps volume numbers; every spatial axis has the same unit in all layers, or napari drops units
    extra = ndim - 3
    return {
        "name": path.name.removesuffix(".gz").removesuffix(".nii"),
        "affine": placed,
        "units": ("pixel",) * extra + ("mm",) * 3,
        "axis_labels": ("volume",) * extra + AXIS_LABELS,
    }
