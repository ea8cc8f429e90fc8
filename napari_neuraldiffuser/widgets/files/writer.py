"""Layers as NIfTI files: back on the grid of the file they came from, or placed by their own transform."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, reversed_axes

if TYPE_CHECKING:
    import napari

SUFFIXES = (".nii.gz", ".nii")
SPATIAL_TOLERANCE = 1e-6
SCANNER = 1
INTEGERS = (np.uint8, np.int16, np.int32)
FLOATS = (np.float32, np.float64)


Layer = Union["napari.layers.Layer", LayerData]
Like = Union["napari.layers.Layer", nib.spatialimages.SpatialImage]


class WriteError(UserError):
    """A layer cannot be a NIfTI file; the message names the layer, the rule and the remedy."""


def write_image(path: str, data: npt.ArrayLike, meta: dict[str, Any]) -> list[str]:
    """napari's writer hook for one Image layer."""
    return write(path, (data, meta, "image"))


def write_labels(path: str, data: npt.ArrayLike, meta: dict[str, Any]) -> list[str]:
    """napari's writer hook for one Labels layer."""
    return write(path, (data, meta, "labels"))


def write(path: str | Path, layer: Layer, like: Like | None = None) -> list[str]:
    """Write one layer; `like` as in `layer_to_nifti`.  Returns the path as napari wants it.

    Raises
    ------
    WriteError
        If the layer has no place in space, or the name is not one of a NIfTI file.
    OutputError
        If the folder cannot be written.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise WriteError(f"path must end with .nii or .nii.gz, got {path}. Give the file such a name.")
    image = layer_to_nifti(layer, like)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
    return [str(path)]


def layer_to_nifti(layer: Layer, like: Like | None = None) -> nib.Nifti1Image:
    """An Image or Labels layer as a NIfTI image.

    A layer that this plugin read, and whose transform nobody changed, goes back to its file's own grid: same affine,
    same orientation, same header.  What was drawn on an oblique file, which was shown resampled, is brought back by
    nearest neighbour (labels) or linearly (images); voxels that were not edited have the value they had.  Any other
    layer is placed by its own transform, in its own units.

    Parameters
    ----------
    layer : napari Layer or (data, keywords, type)
    like : napari Layer or nibabel image, optional
        Put the result on this one's grid (that of its file, if it is a layer of ours), by nearest neighbour for labels
        and linearly for images: a mask drawn beside the betas must have their grid.

    Returns
    -------
    nibabel.Nifti1Image
        (X, Y, Z[, T]); world space is (right, anterior, superior) in mm.

    Raises
    ------
    WriteError
        For RGB, complex or fewer than three axes, units that are no lengths, or time mixed with space.
    """
    data, meta, kind = layer if isinstance(layer, tuple) else layer.as_layer_data_tuple()
    values = _checked(data, meta, kind)
    way_back = meta.get("metadata", {}).get("nifti")
    if way_back is not None and _unmoved(values, meta, way_back):
        image = _to_file_grid(values, way_back, kind, meta["metadata"].get("path", ""))
    else:
        image = _placed_by_transform(values, meta, kind)
    return image if like is None else _on_grid(image, grid_of(like), kind)


def grid_of(like: Like) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (X, Y, Z) and affine of a nibabel image, or of the file that a layer of ours was read from."""
    if isinstance(like, nib.spatialimages.SpatialImage):
        return like.shape[:3], like.affine
    way_back = like.metadata.get("nifti")
    if way_back is None:
        reference = layer_to_nifti(like)
        return reference.shape[:3], reference.affine
    return way_back["shape"][:3], way_back["affine"]


def _checked(data: Any, meta: dict[str, Any], kind: str) -> np.ndarray:
    name = meta.get("name", "layer")
    if kind not in ("image", "labels"):
        raise WriteError(f"{name} must be an Image or Labels layer, got {kind}. Save it in napari's own format.")
    if meta.get("rgb"):
        raise WriteError(f"{name} must have one value per voxel, got RGB. Save it as PNG or TIFF.")
    if meta.get("multiscale"):
        data = data[0]
    values = np.asarray(data)
    if values.ndim not in (3, 4):
        raise WriteError(f"{name} must have three axes of space, and one of time at most, got shape {values.shape}.")
    if values.dtype.kind not in "biuf":
        raise WriteError(f"{name} must hold real numbers, got {values.dtype}. Save its magnitude.")
    return values


def _unmoved(values: np.ndarray, meta: dict[str, Any], way_back: dict[str, Any]) -> bool:
    """Whether the layer still lies where the reader put it."""
    placed = way_back["placed"]
    if len(placed) != values.ndim + 1:
        return False
    if not np.allclose(_transform(meta, values.ndim), placed, rtol=0, atol=SPATIAL_TOLERANCE):
        return False
    return way_back["resampled"] or _canonical_shape(way_back) == values.transpose().shape


def _canonical_shape(way_back: dict[str, Any]) -> tuple[int, ...]:
    shape, orientation = way_back["shape"], io_orientation(way_back["affine"])
    turned = tuple(shape[int(np.flatnonzero(orientation[:, 0] == axis)[0])] for axis in range(3))
    return (*turned, *shape[3:])


def _to_file_grid(values: np.ndarray, way_back: dict[str, Any], kind: str, path: str) -> nib.Nifti1Image:
    """In the voxel order, with the affine and the header of the file."""
    canonical = values.transpose()
    if not way_back["resampled"]:
        canonical_axes = np.column_stack([np.arange(3), np.ones(3)])
        turn = ornt_transform(canonical_axes, io_orientation(way_back["affine"]))
        data = apply_orientation(canonical, turn)
    elif kind == "labels" and values.ndim == 3:
        data = _nearest(canonical, _world(way_back["placed"]), way_back["shape"], way_back["affine"])
    else:
        data = _edits_on_file_grid(canonical, way_back, path)
    if kind == "labels" and (stored := way_back.get("stored")) is not None:
        data = _unedited_as_stored(data, np.asarray(stored), way_back)
    return _image(data, way_back["affine"], kind, way_back["header"])


def _edits_on_file_grid(shown: np.ndarray, way_back: dict[str, Any], path: str) -> np.ndarray:
    """The oblique file's values, and what was changed since they were shown (X, Y, Z[, T]) brought back linearly."""
    from napari_neuraldiffuser.widgets.files.reader import ReadError, axis_aligned, read_file

    affine, shape = way_back["affine"], way_back["shape"]
    try:
        stored = np.asanyarray(read_file(path).dataobj, dtype=np.float32)
    except ReadError as error:
        raise WriteError(f"An oblique volume needs the file that it came from to be saved: {error}") from error
    if stored.shape != tuple(shape):
        raise WriteError(f"{path} must be the file that was opened, got shape {stored.shape}, not {tuple(shape)}.")
    data = stored.copy()
    for t in np.ndindex(shape[3:]):
        canonical = nib.as_closest_canonical(nib.Nifti1Image(stored[(..., *t)], affine))
        there, world = axis_aligned(np.asanyarray(canonical.dataobj), canonical.affine, order=1)
        change = np.nan_to_num(shown[(..., *t)].astype(np.float32) - there)
        if change.any():
            data[(..., *t)] += _nearest(change, world, shape, affine, order=1)
    return data


def _unedited_as_stored(data: np.ndarray, stored: np.ndarray, way_back: dict[str, Any]) -> np.ndarray:
    """`data` with the file's values where nobody edited: negative labels, and what resampling there and back moved."""
    shown = np.maximum(stored, 0).astype(data.dtype)
    if way_back["resampled"]:
        from napari_neuraldiffuser.widgets.files.reader import axis_aligned

        canonical = nib.as_closest_canonical(nib.Nifti1Image(shown, way_back["affine"]))
        there, affine = axis_aligned(np.asanyarray(canonical.dataobj), canonical.affine, order=0)
        shown = _nearest(there, affine, way_back["shape"], way_back["affine"]).astype(data.dtype)
    return np.where(data == shown, stored, data)


def _nearest(data: np.ndarray, affine: np.ndarray, shape: Sequence[int], to: np.ndarray, order: int = 0) -> np.ndarray:
    """`data` (X, Y, Z) at the voxels of another grid; 0 outside."""
    from scipy.ndimage import affine_transform

    to_index = np.linalg.inv(affine) @ to
    return affine_transform(data, to_index[:3, :3], to_index[:3, 3], tuple(shape[:3]), order=order, cval=0)


def _on_grid(image: nib.Nifti1Image, grid: tuple[tuple[int, ...], np.ndarray], kind: str) -> nib.Nifti1Image:
    shape, affine = grid
    if image.shape[:3] == tuple(shape) and np.allclose(image.affine, affine, atol=1e-4):
        return image
    data, order = np.asanyarray(image.dataobj), 0 if kind == "labels" else 1
    volumes = data[..., None] if data.ndim == 3 else data
    moved = [_nearest(volumes[..., t], image.affine, shape, affine, order) for t in range(volumes.shape[3])]
    return _image(moved[0] if data.ndim == 3 else np.stack(moved, axis=3), affine, kind, None)


def _placed_by_transform(values: np.ndarray, meta: dict[str, Any], kind: str) -> nib.Nifti1Image:
    """From napari's (z, y, x) to (x, y, z), by the layer's transform and units."""
    name = meta.get("name", "layer")
    transform = _transform(meta, values.ndim)
    extra = values.ndim - 3
    mixed = np.concatenate([transform[:extra, extra:-1].ravel(), transform[extra:-1, :extra].ravel()])
    if np.abs(mixed).max(initial=0.0) > SPATIAL_TOLERANCE:
        raise WriteError(f"{name} must keep time and space apart, got an affine that mixes them. Reset its affine.")
    factors, known = _millimetres(meta.get("units"), values.ndim, name)
    affine = np.eye(4)
    affine[:3] = factors[:, None] * transform[extra:-1][:, [*range(extra, values.ndim), values.ndim]]
    affine = reversed_axes(affine)
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise WriteError(f"{name} must have an invertible transform, got {transform.tolist()}. Reset its scale.")
    image = _image(values.transpose(), affine, kind, None)
    image.header.set_xyzt_units("mm" if known else "unknown", "unknown")
    if extra and (seconds := _seconds(meta.get("units"))):
        image.header.set_xyzt_units("mm" if known else "unknown", "sec")
        image.header["pixdim"][4] = seconds * transform[0, 0]
    return image


def _seconds(units: Any) -> float:
    """Seconds per unit of the first axis; 0 where that is no time."""
    import pint

    quantity = pint.get_application_registry().Quantity(1.0, str(units[0])) if units else None
    return quantity.to("s").magnitude if quantity is not None and quantity.check("[time]") else 0.0


def _millimetres(units: Any, ndim: int, name: str) -> tuple[np.ndarray, bool]:
    """Millimetres per unit of the three axes of space, and whether they are lengths at all (pixels are taken as mm)."""
    import pint

    registry = pint.get_application_registry()
    factors, known = [], True
    for unit in (units or ("pixel",) * ndim)[-3:]:
        quantity = registry.Quantity(1.0, str(unit))
        if str(quantity.units) == "pixel":
            factors.append(1.0)
            known = False
        elif quantity.check("[length]"):
            factors.append(quantity.to("mm").magnitude)
        else:
            raise WriteError(f"units of {name} must be lengths, got {unit}. Set the layer's units to mm.")
    return np.array(factors), known


def _transform(meta: dict[str, Any], ndim: int) -> np.ndarray:
    """Index to world, (ndim + 1, ndim + 1), of a layer's keywords."""
    from napari.utils.transforms import Affine

    own = Affine(
        scale=meta.get("scale", np.ones(ndim)),
        translate=meta.get("translate", np.zeros(ndim)),
        rotate=meta.get("rotate"),
        shear=meta.get("shear"),
        ndim=ndim,
    ).affine_matrix
    outer = meta.get("affine")
    outer = getattr(outer, "affine_matrix", outer)
    return own if outer is None else np.asarray(outer, dtype=float) @ own


def _world(placed: np.ndarray) -> np.ndarray:
    """(X, Y, Z) affine of what `reader` placed as ([T,] Z, Y, X)."""
    return reversed_axes(placed[-4:, -4:])


def _image(data: np.ndarray, affine: np.ndarray, kind: str, header: Any) -> nib.Nifti1Image:
    """A NIfTI image; with a file's header its codes, units, quaternion and description stay as they were."""
    if isinstance(header, nib.Nifti1Header):
        header = header.copy()
        data = _plain(data, kind, header.get_data_dtype())
        header.set_data_dtype(data.dtype)
        header["scl_slope"], header["scl_inter"] = np.nan, np.nan
        header["cal_min"], header["cal_max"] = 0, 0
        made = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        return made(data, header.get_best_affine(), header)
    data = _plain(data, kind, data.dtype)
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm", "unknown")
    image.set_sform(affine, SCANNER)
    image.set_qform(affine, SCANNER)
    if kind == "labels":
        image.header.set_intent("label")
    return image


def _plain(data: np.ndarray, kind: str, wanted: np.dtype) -> np.ndarray:
    """`data` in the file's number type where that holds it, else in the smallest common one that does."""
    if data.dtype.kind == "f" and kind == "image":
        return data.astype(next((t for t in FLOATS if np.dtype(t).itemsize >= data.dtype.itemsize), np.float64))
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    choices = [wanted.newbyteorder("=")] if wanted.kind in "iu" and wanted.itemsize < 8 else []
    for choice in [*choices, *(np.dtype(t) for t in (*INTEGERS, np.int64))]:
        limits = np.iinfo(choice)
        if limits.min <= low and high <= limits.max:
            return data.astype(choice)
    return data.astype(np.float64)
