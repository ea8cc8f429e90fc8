"""Contribution maps on fsaverage as napari layers: both hemispheres inflated, side by side, from nilearn's mesh."""

from pathlib import Path

import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.base.registry import HEMISPHERES, TARGETS
from napari_neuraldiffuser.core.outputs.report.flat import DRAWN, depth, mesh
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, about
from napari_neuraldiffuser.widgets.files.layers import THRESHOLD, rgba
from napari_neuraldiffuser.widgets.files.reader import ReadError
from napari_neuraldiffuser.widgets.session.state import KEY

GAP_MM = 10.0
"""Between the hemispheres."""
PLACED = {"units": ("mm",) * 3, "axis_labels": ("S", "A", "R")}


def surface_layers(surfaces: dict[str, dict[str, Path]], output: Path) -> list[LayerData]:
    """A Surface layer of the last target in the project's order, its folds grey where the share is small.

    Parameters
    ----------
    surfaces : dict
        Target to hemisphere to GIfTI file.
    output : Path
        The output folder.

    Raises
    ------
    ReadError
        If a hemisphere is missing or damaged, or has fewer vertices than fsaverage5.
    """
    targets = sorted(surfaces, key=lambda t: TARGETS.index(t) if t in TARGETS else len(TARGETS))
    return [surface_layer(surfaces[target], target, output) for target in targets[-1:]]


def surface_layer(files: dict[str, Path], target: str, output: Path) -> LayerData:
    """One target's map on both inflated hemispheres; errors as of `surface_layers`."""
    values = np.concatenate([_values(files, hemi) for hemi in HEMISPHERES.values()])
    vertices, faces = _both_sides()
    told = {KEY: about("contribution", output=output, target=target), "values": values}
    look = {"vertex_colors": colours(values), "shading": "none", "name": f"contribution {target}, fsaverage5"}
    return (vertices[:, ::-1], faces), {**PLACED, **look, "metadata": told}, "surface"


def _values(files: dict[str, Path], hemi: str) -> np.ndarray:
    """Shares (DRAWN,) of a hemisphere."""
    if hemi not in files:
        raise ReadError(f"map must have both hemispheres, got none of hemi-{hemi}. Run the job again.")
    try:
        values = nib.GiftiImage.from_filename(files[hemi]).darrays[0].data
    except Exception as error:  # the parser of GIfTI raises what expat, zlib and base64 do
        raise ReadError(f"{files[hemi]} must be a complete GIfTI file, got: {error}. Run the job again.") from error
    if values.ndim != 1 or len(values) < DRAWN:
        raise ReadError(f"{files[hemi]} must have {DRAWN:,} vertices or more to be shown, got shape {values.shape}.")
    return np.nan_to_num(np.asarray(values[:DRAWN], dtype=np.float32))


def _both_sides() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (2 n, 3) in (R, A, S) mm and faces of both hemispheres, the left one on the left."""
    (left, left_faces), (right, right_faces) = mesh("inflated")
    left, right = left.copy(), right.copy()
    left[:, 0] -= left[:, 0].max() + GAP_MM / 2
    right[:, 0] -= right[:, 0].min() - GAP_MM / 2
    return np.concatenate([left, right]), np.concatenate([left_faces, right_faces + len(left)])


def colours(values: np.ndarray) -> np.ndarray:
    """RGBA (n, 4) of shares: folds in grey, the page's colours from the threshold on."""
    from napari_neuraldiffuser.core.outputs.report.slices import POSITIVE

    grey = np.interp(-np.concatenate(depth()), (-1.5, 1.5), (0.3, 0.7))
    shown = np.stack([grey, grey, grey, np.ones_like(grey)], axis=1)
    largest = float(values.max(initial=0.0))
    above = values >= max(THRESHOLD * largest, np.finfo(np.float32).tiny)
    steps = np.linspace(THRESHOLD * largest, largest, len(POSITIVE))
    palette = rgba(POSITIVE)
    for channel in range(3):
        shown[above, channel] = np.interp(values[above], steps, palette[:, channel])
    return shown
