"""Colours of one slice of a viewer's layers on a grid in millimetres: what the linked views draw.

Places are (S, A, R) in mm, as the layers' world has them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine

if TYPE_CHECKING:
    import napari

MOST = 400
"""Pixels along the longer side of a slice."""
OUTLINE = 2
"""Pixels of the outline of labels that napari shows as contours."""
STEPS = 256
"""Colours of a colormap."""
Span = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a slice lie."""

    fixed: int
    """The axis that all of them share: 0 (S), 1 (A) or 2 (R)."""
    up: int
    across: int
    at: float
    """Place on the fixed axis."""
    rows: np.ndarray
    """Place of each row on the axis `up`, top first."""
    columns: np.ndarray
    """Place of each column on the axis `across`, left first."""
    step: float
    """Size of a pixel."""


def grid_of(plane: tuple[int, int, int], place: tuple[float, ...], box: list[Span], step: float) -> Grid:
    """The slice of a box (S, A, R) through a place, with pixels of `step` mm or, in a large box, larger ones."""
    fixed, up, across = plane
    longest = max(box[axis][1] - box[axis][0] for axis in (up, across))
    step = max(step, longest / MOST)
    rows, columns = (_centres(*box[axis], step) for axis in (up, across))
    return Grid(fixed, up, across, float(place[fixed]), rows[::-1], columns, step)


def _centres(low: float, high: float, step: float) -> np.ndarray:
    """Centres of pixels between two places; the middle where a box is thinner than one pixel."""
    return np.arange(low + step / 2, high, step) if high - low > step else np.array([(low + high) / 2])


def volumes(layers: Iterable["napari.layers.Layer"]) -> list["napari.layers.Layer"]:
    """The images and labels among layers that have three axes of space."""
    from napari.layers import Image, Labels

    return [layer for layer in layers if isinstance(layer, (Image, Labels)) and layer.ndim >= 3]


def box_of(layers: list["napari.layers.Layer"]) -> list[Span]:
    """Ends of all layers along S, A and R in mm, the voxels' halves included."""
    found = []
    for layer in layers:
        high = np.array(layer.extent.data[1][-3:]) + 0.5
        corners = np.array([np.where(pick, high, -0.5) for pick in np.ndindex(2, 2, 2)])
        found.append(apply_affine(to_world(layer), corners))
    places = np.concatenate(found)
    return [(float(low), float(high)) for low, high in zip(places.min(0), places.max(0), strict=True)]


def to_world(layer: "napari.layers.Layer") -> np.ndarray:
    """(4, 4), from a layer's index on its last three axes to (S, A, R) in mm."""
    return np.linalg.inv(_to_index(layer, (0.0,) * (layer.ndim - 3)))


def _to_index(layer: "napari.layers.Layer", extra: tuple[float, ...]) -> np.ndarray:
    """(4, 4), from (S, A, R) in mm to a layer's index on its last three axes, where its other axes stand at `extra`."""
    origin = np.array(layer.world_to_data((*extra, 0.0, 0.0, 0.0)))[-3:]
    matrix = np.eye(4)
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(layer.world_to_data((*extra, *unit)))[-3:] - origin
    matrix[:3, 3] = origin
    return matrix


def values_at(layer: "napari.layers.Layer", grid: Grid, extra: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Nearest voxels of a slice (rows, columns[, channels]), and which pixels lie inside the layer (rows, columns)."""
    extra = extra[len(extra) - (layer.ndim - 3) :]
    matrix = _to_index(layer, extra)
    own = np.rint(np.array(layer.world_to_data((*extra, 0.0, 0.0, 0.0)))[: layer.ndim - 3]).astype(int)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    shape = data.shape[layer.ndim - 3 : layer.ndim]
    inside = np.ones((len(grid.rows), len(grid.columns)), dtype=bool)
    picked: list[Any] = []
    for axis, n in enumerate(shape):
        along = matrix[axis, grid.up] * grid.rows[:, None] + matrix[axis, grid.across] * grid.columns[None, :]
        index = np.rint(along + matrix[axis, grid.fixed] * grid.at + matrix[axis, 3]).astype(int)
        inside &= (index >= 0) & (index < n)
        index = np.clip(index, 0, n - 1)
        # one number where the whole slice has it: then a file that is read on demand gives that slice alone
        picked.append(int(index[0, 0]) if not np.ptp(index) else index)
    for k, n in zip(own, data.shape, strict=False):
        data = data[int(np.clip(k, 0, n - 1))]
    scalars = tuple(p if isinstance(p, int) else slice(None) for p in picked)
    values = np.asarray(data[scalars])[tuple(p for p in picked if not isinstance(p, int))]
    return np.broadcast_to(values, (*inside.shape, *values.shape[inside.ndim :])), inside


def colours_of(layer: "napari.layers.Layer", values: np.ndarray) -> np.ndarray:
    """RGBA (rows, columns, 4), 0 ... 1, of a slice's values as the layer shows them."""
    from napari.layers import Labels

    if isinstance(layer, Labels):
        shown = outlines(values) if layer.contour else values
        if layer.show_selected_label:
            shown = np.where(shown == layer.selected_label, shown, 0)
        return np.asarray(layer.colormap.map(shown))
    if layer.rgb:
        colours = values / 255 if values.dtype == np.uint8 else values
        return np.concatenate([colours[..., :3], np.ones_like(colours[..., :1])], axis=-1)
    low, high = layer.contrast_limits
    position = np.nan_to_num(np.clip((values.astype(float) - low) / (high - low), 0, 1)) ** layer.gamma
    palette = layer.colormap.map(np.linspace(0, 1, STEPS))
    # the ends have colours of their own, such as transparent below a threshold: only what is at an end has them
    middle = np.clip(np.rint(position * (STEPS - 1)).astype(int), 1, STEPS - 2)
    return palette[np.where(position <= 0, 0, np.where(position >= 1, STEPS - 1, middle))]


def outlines(labels: np.ndarray, width: int = OUTLINE) -> np.ndarray:
    """Labels (rows, columns) where another one is nearer than `width` pixels, else 0."""
    edge = np.zeros(labels.shape, dtype=bool)
    padded = np.pad(labels, width, mode="edge")
    for axis in (0, 1):
        for by in (*range(-width, 0), *range(1, width + 1)):
            moved = np.roll(padded, by, axis)[width:-width, width:-width]
            edge |= moved != labels
    return np.where(edge, labels, 0)


def drawn(layers: Iterable["napari.layers.Layer"], grid: Grid, extra: tuple[float, ...] = ()) -> np.ndarray:
    """RGB (rows, columns, 3) uint8: the visible volumes over each other, as their opacity and blending say.

    Parameters
    ----------
    layers : iterable of napari layers
        Lowest first.
    grid : Grid
    extra : tuple of float
        Where the sliders of other axes than space stand, such as time.
    """
    canvas = np.zeros((len(grid.rows), len(grid.columns), 3))
    for layer in volumes(layers):
        if not layer.visible:
            continue
        values, inside = values_at(layer, grid, extra)
        colours = colours_of(layer, values)
        alpha = (colours[..., 3] * layer.opacity * inside)[..., None]
        if layer.blending == "additive":
            canvas = canvas + colours[..., :3] * alpha
        else:
            canvas = canvas * (1 - alpha) + colours[..., :3] * alpha
    return np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
