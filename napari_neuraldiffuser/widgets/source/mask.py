"""Masks that are painted in the viewer: an empty layer on the betas' grid, and its way into a file there."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation, ornt_transform

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.widgets.files.reader import volume_layer
from napari_neuraldiffuser.widgets.files.writer import layer_to_nifti

if TYPE_CHECKING:
    import napari

GRID_TOLERANCE_MM = 1e-2
"""As `core.nsd.volumes` compares grids."""
DIGITS = 8
NEW = "New mask layer"


class MaskError(UserError):
    """A layer cannot be used as a mask; the message says what it must be and how to get such a one."""


def new_mask_layer(viewer: "napari.Viewer", described: dict[str, Any], name: str = "mask") -> Any:
    """Add an empty Labels layer on the betas' grid, selected, with the brush in hand.

    Parameters
    ----------
    viewer : napari.Viewer
    described : dict
        `shape` (X, Y, Z) and `affine` (4, 4; voxel to mm) of the betas.
    """
    image = nib.Nifti1Image(np.zeros(described["shape"], dtype=np.uint8), np.asarray(described["affine"], dtype=float))
    image.header.set_intent("label")
    data, keywords, _ = volume_layer(image, f"{name}.nii.gz")
    viewer.dims.ndisplay = 2
    layer = viewer.add_labels(data, **{**keywords, "opacity": 0.6})
    viewer.layers.selection = {layer}
    layer.selected_label = 1
    layer.brush_size = 3
    layer.mode = "paint"
    return layer


def mask_on_grid(layer: Any, described: dict[str, Any]) -> np.ndarray:
    """Voxels (X, Y, Z) bool of the betas' grid that a Labels layer marks.

    The layer may hold its axes in another order or direction; its voxels must be those of the betas.

    Raises
    ------
    MaskError
        If nothing is marked, or the layer has another grid.
    """
    image = layer_to_nifti(layer)
    shape, affine = tuple(described["shape"]), np.asarray(described["affine"], dtype=float)
    if image.ndim != 3:
        raise MaskError(f"{_name(layer)} must have three axes, got {image.ndim}. Press {NEW!r} and draw on that.")
    turn = ornt_transform(io_orientation(image.affine), io_orientation(affine))
    turned = image.as_reoriented(turn)
    same = turned.shape == shape and np.allclose(turned.affine, affine, atol=GRID_TOLERANCE_MM)
    if not same:
        raise MaskError(
            f"{_name(layer)} must lie on the betas' grid ({_grid(shape, affine)}), "
            f"got {_grid(turned.shape, turned.affine)}. Press {NEW!r} and draw on that."
        )
    mask = np.asanyarray(turned.dataobj) > 0
    if not mask.any():
        raise MaskError(f"{_name(layer)} must have painted voxels, got none. Paint with a label above 0.")
    return mask


def write_mask(layer: Any, described: dict[str, Any], folder: Path) -> tuple[Path, int]:
    """Write the marked voxels as NIfTI; the same voxels of the same name always give the same file.

    Returns
    -------
    path : Path
        FOLDER/NAME-DIGEST.nii.gz
    n_voxels : int
    """
    mask = mask_on_grid(layer, described)
    affine = np.asarray(described["affine"], dtype=float)
    digest = hashlib.sha256(np.packbits(mask).tobytes() + repr((mask.shape, affine.tolist())).encode()).hexdigest()
    stem = re.sub(r"[^0-9A-Za-z]+", "-", _name(layer)).strip("-") or "mask"
    path = Path(folder) / f"{stem}-{digest[:DIGITS]}.nii.gz"
    if not path.is_file():
        image = nib.Nifti1Image(mask.astype(np.uint8), affine)
        image.header.set_xyzt_units("mm")
        with atomic_path(path) as temporary:
            nib.save(image, temporary)
    return path, int(mask.sum())


def _name(layer: Any) -> str:
    return layer[1].get("name", "mask") if isinstance(layer, tuple) else layer.name


def _grid(shape: tuple[int, ...], affine: np.ndarray) -> str:
    sizes = " x ".join(f"{s:.3g}" for s in nib.affines.voxel_sizes(affine))
    return f"{' x '.join(map(str, shape))} voxels of {sizes} mm from {np.round(affine[:3, 3], 1).tolist()}"
