"""NIfTI volumes as napari layers, placed in millimetres."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity
from nibabel.orientations import OrientationError
from nibabel.spaces import vox2out_vox
from nibabel.spatialimages import SpatialImage

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.nsd.reading.images import (
    DAMAGED,
    SUFFIXES,
    cause,
    is_oriented,
    stem_of,
    step_of,
    whole_numbers,
)
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, open_volume
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, about_file, reversed_axes
from napari_neuraldiffuser.widgets.files.view import prepare_current_viewer
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import dask.array

AXIS_LABELS = ("S", "A", "R")
"""napari's axes after the transpose: superior, anterior and right are the positive directions."""

SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
"""In NIfTI's units of time: second, millisecond and microsecond."""
LAZY_BYTES = 2**28
"""Of a 4D file as it would be shown: above this one volume at a time is read, when it is looked at."""
MAX_LABELS = 512
MOST_VOXELS = 2**28
"""Of one resampled volume: a gigabyte."""
OBLIQUE_RADIANS = 1e-3


class ReadError(UserError):
    """A file cannot be shown as a volume; the message names the file and what is wrong with it."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """napari's reader hook: the reading function for names of NIfTI and MGH volumes, None for others."""
    paths = [path] if isinstance(path, (str, Path)) else path
    if not all(str(p).lower().endswith(SUFFIXES) for p in paths):
        return None
    return read_volumes


def read_volumes(path: str | list[str]) -> list[LayerData]:
    """Read one layer for each path."""
    paths = [path] if isinstance(path, (str, Path)) else path
    layers = [read_volume(p) for p in paths]
    prepare_current_viewer()
    return layers


def read_volume(path: str | Path) -> LayerData:
    """Read a 3D or 4D NIfTI or MGH file as (data, layer keywords, layer type).

    Returns
    -------
    data : ndarray, (Z, Y, X) or (T, Z, Y, X)
        Closest-canonical (RAS+) axes, reversed, so that napari's first axis runs towards superior.  A dask array of one
        volume per chunk where a 4D file is large.
    keywords : dict
        name, affine (mm, permuted alike), units, axis_labels, metadata (path, the file's affine, notes, what the
        writer needs, and what the panels are told).
    kind : "image" or "labels"
        Labels for piecewise-constant volumes of few integers (ROIs, masks).

    Raises
    ------
    ReadError
        If the file is missing, truncated, or no volume or series of volumes of real numbers.
    """
    return volume_layer(_open(path), path)


def volume_layer(image: SpatialImage, path: str | Path) -> LayerData:
    """A 3D or 4D image that was opened from `path` as (data, layer keywords, layer type), as `read_volume` gives it."""
    if image.ndim == 4 and 4 * math.prod(image.shape) > LAZY_BYTES:
        return _lazy_layer(image, path)
    canonical = _canonical(image, path)
    data = _values(canonical.dataobj, path)
    labels = label_values(image, data)
    kind = "image" if labels is None else "labels"
    data = data if labels is None else labels
    shown, affine, notes = _shown(data, canonical.affine, kind, path)
    if kind == "labels":
        shown = np.maximum(shown, 0).astype(np.int32)
        if (data < 0).any():
            notes.append("Negative labels (NSD: not this hemisphere's cortex) are shown as background.")
    keywords = _keywords(image, path, affine, notes)
    if kind == "labels" and notes:
        # what was not shown as it is must not be lost when the layer is saved
        stored = np.asanyarray(image.dataobj)
        keywords["metadata"]["nifti"]["stored"] = whole_numbers(stored, step_of(image))
    return shown.transpose(), keywords, kind


def _shown(
    data: np.ndarray, affine: np.ndarray, kind: str, path: str | Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Canonical data (X, Y, Z[, T]) on a grid that napari can show, its affine, and a note if that is another grid."""
    if obliquity(affine).max() <= OBLIQUE_RADIANS:
        return data, affine, []
    _check_resampled_size(data.shape, affine, path)
    shown, affine = axis_aligned(data, affine, order=0 if kind == "labels" else 1)
    return shown, affine, ["The volume is oblique: resampled to an axis-aligned grid for display."]


def _lazy_layer(image: SpatialImage, path: str | Path) -> LayerData:
    """A large 4D file: nothing but the first volume is read now."""
    compressed = str(path).lower().endswith((".gz", ".mgz"))
    if compressed:
        image = _open(path, keep_file_open=True)  # or stepping forward unpacks from the start every time
    else:
        _values_of(lambda: image.dataobj[-1:, -1:, -1:, -1:], path)  # the last voxel: is the file complete?
    shown, affine, notes = _one_volume(image, path, 0)
    notes.append("Volumes are read when they are shown.")
    if compressed:
        notes.append("Going back in a compressed file unpacks it from the start: gunzip it to step quickly.")
    data = lazy_volumes(lambda t: _one_volume(image, path, t)[0].transpose(), image.shape[3], shown.transpose())
    keywords = _keywords(image, path, affine, notes)
    low, high = (float(q) for q in np.nanquantile(shown, (0.01, 0.995)))
    if high > low:
        keywords["contrast_limits"] = (low, high)
    return data, keywords, "image"


def lazy_volumes(read: Callable[[int], np.ndarray], n: int, like: np.ndarray) -> "dask.array.Array":
    """A dask array (n, Z, Y, X) whose chunk `t` is `read(t)`.

    Parameters
    ----------
    read : callable
        Volume number to array (Z, Y, X).
    n : int
        Number of volumes.
    like : ndarray (Z, Y, X)
        Has the shape and dtype of every volume.
    """
    import dask.array as da

    def block(block_info: dict | None = None) -> np.ndarray:
        return read(block_info[None]["chunk-location"][0])[None]

    chunks = ((1,) * n, *((size,) for size in like.shape))
    return da.map_blocks(block, chunks=chunks, dtype=like.dtype, meta=np.empty((0,) * 4, like.dtype))


def _one_volume(image: SpatialImage, path: str | Path, t: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Volume `t` of a 4D file as `_shown` gives it."""
    values = _values_of(lambda: image.dataobj[..., t], path)
    canonical = _canonical(nib.Nifti1Image(values, image.affine), path)
    return _shown(np.asanyarray(canonical.dataobj), canonical.affine, "image", path)


def read_file(path: str | Path) -> SpatialImage:
    """The image of a file, none of its data read; ReadError as of `read_volume`."""
    return _open(path)


def _open(path: str | Path, **options: Any) -> SpatialImage:
    try:
        return open_volume(path, "file", **options)
    except NSDError as error:
        raise ReadError(str(error)) from error


def _canonical(image: SpatialImage, path: str | Path) -> SpatialImage:
    try:
        return nib.as_closest_canonical(image)
    except OrientationError as error:
        raise ReadError(f"{path} must have three distinct axes, got: {error}. Repair its header.") from error
    except DAMAGED as error:
        raise _incomplete(path, error) from error


def _values(dataobj: Any, path: str | Path) -> np.ndarray:
    """Voxel values in the stored dtype; scaled or double data as float32, which is what a screen needs."""
    return _values_of(lambda: dataobj, path)


def _values_of(read: Callable[[], Any], path: str | Path) -> np.ndarray:
    try:
        data = np.asanyarray(read())
    except DAMAGED as error:
        raise _incomplete(path, error) from error
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    return data.astype(np.float32) if data.dtype.kind == "f" and data.dtype.itemsize != 4 else data


def _incomplete(path: str | Path, error: Exception) -> ReadError:
    return ReadError(f"{path} must be complete, got {cause(path, error)}")


def label_values(image: SpatialImage, data: np.ndarray) -> np.ndarray | None:
    """The labels of `data` (X, Y, Z), None where it holds none: few whole numbers in patches, or the header's intent.

    Anatomy is often stored as integers too, but neighbouring voxels of an anatomy rarely have equal values.
    """
    labels = whole_numbers(data, step_of(image)) if data.ndim == 3 else None
    if labels is None:
        return None
    header: Any = image.header
    if header.get("intent_code", 0) == 1002:  # NIFTI_INTENT_LABEL
        return labels
    if len(np.unique(labels)) > MAX_LABELS or not labels.any():
        return None
    pairs, equal = np.sum([_neighbours(np.moveaxis(labels, axis, 0)) for axis in range(3)], axis=0)
    return labels if equal > pairs / 2 or not pairs else None


def _neighbours(labels: np.ndarray) -> tuple[int, int]:
    """How many pairs of neighbours along the first axis are above 0, and how many of these are equal."""
    inside = (labels[1:] > 0) & (labels[:-1] > 0)
    return int(inside.sum()), int((inside & (labels[1:] == labels[:-1])).sum())


def _check_resampled_size(shape: tuple[int, ...], affine: np.ndarray, path: str | Path) -> None:
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


def axis_aligned(data: np.ndarray, affine: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """`data` (X, Y, Z[, T]) resampled to the world's axes at its own voxel sizes."""
    from nibabel.processing import resample_to_output  # imports scipy.ndimage: half of the time the dock takes

    sizes = tuple(nib.affines.voxel_sizes(affine))
    volumes = data[..., None] if data.ndim == 3 else data
    resampled = [
        resample_to_output(nib.Nifti1Image(volumes[..., t].astype(np.float32), affine), sizes, order=order)
        for t in range(volumes.shape[3])
    ]
    stacked = np.stack([np.asanyarray(r.dataobj, dtype=np.float32) for r in resampled], axis=3)
    return (stacked[..., 0] if data.ndim == 3 else stacked), resampled[0].affine


def time_step(image: SpatialImage) -> float:
    """Seconds from one volume of a series to the next; 0 where the header does not say."""
    header: Any = image.header
    zooms = header.get_zooms()
    if len(zooms) < 4 or not np.isfinite(zooms[3]) or zooms[3] <= 0:
        return 0.0
    if isinstance(image, nib.freesurfer.mghformat.MGHImage):
        return float(zooms[3]) * SECONDS[16]
    units = int(header["xyzt_units"]) & 0b111000 if hasattr(header, "get_xyzt_units") else 0
    return float(zooms[3]) * SECONDS.get(units, 0.0)


def _keywords(image: SpatialImage, path: str | Path, affine: np.ndarray, notes: list[str]) -> dict[str, Any]:
    """Layer keywords of data transposed to ([T,] Z, Y, X) whose (X, Y, Z) grid has `affine` in mm.

    `metadata["nifti"]` has what the way back to the file's own grid needs.
    """
    placed = np.eye(image.ndim + 1)
    placed[-4:, -4:] = reversed_axes(affine)
    # every spatial axis has the same unit in all layers, or napari drops units
    extra, told = image.ndim - 3, about_file(path, image.ndim)
    step = time_step(image) if extra and told["kind"] != "betas" else 0.0  # NSD's betas are trials
    if step:
        placed[0, 0] = step
    series = ("second" if step else "pixel", "time" if step else "volume")
    way_back = {
        "header": image.header.copy(),
        "shape": tuple(int(n) for n in image.shape),
        "affine": image.affine,
        "placed": placed,
        "resampled": obliquity(image.affine).max() > OBLIQUE_RADIANS,
        "oriented": is_oriented(image),
    }
    if not way_back["oriented"]:
        notes = [*notes, "The file has neither sform nor qform: left and right cannot be told."]
    metadata = {"path": str(path), "affine": image.affine, "notes": notes, "nifti": way_back}
    return {
        "name": stem_of(path),
        "affine": placed,
        "units": series[:1] * extra + ("mm",) * 3,
        "axis_labels": series[1:] * extra + AXIS_LABELS,
        "metadata": {**metadata, KEY: told},
    }
