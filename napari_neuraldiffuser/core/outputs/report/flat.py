"""Pictures of contribution maps on fsaverage: both hemispheres cut open and laid flat (matplotlib, no display).

nilearn brings fsaverage5's surfaces with it.  The first vertices of a finer fsaverage are fsaverage5's, as each finer
sphere halves the edges of the coarser one and numbers the new vertices after the old, so that a map is drawn by leaving
out the others.
"""

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.core.base.registry import HEMISPHERES
from napari_neuraldiffuser.core.outputs.report.slices import (
    BACKGROUND,
    Scene,
    SliceError,
    SliceStyle,
    area_of,
    colour_bar,
    colours_of,
    legend,
    limit_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.tri import Triangulation

    from napari_neuraldiffuser.core.nsd import Rois

MESH = "fsaverage5"
DRAWN = 10242
"""Vertices of a hemisphere of the mesh."""
SIDES = ("left", "right")
MARGIN_MM = 15.0
"""Around the vertices that have a share."""
STYLE = SliceStyle()
HEIGHT = 4.6
"""Inches."""
DRAWN_AS = f"maps are drawn on {MESH}, with {DRAWN:,} of the {{n:,}} vertices of each hemisphere"
NOT_DRAWN = f"maps are not drawn: that takes the {DRAWN:,} vertices of {MESH} in each hemisphere, these have {{n:,}}"


def mesh(kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Vertices (n, 3) in mm and triangles (m, 3) of both hemispheres, "flat" or "inflated", from nilearn's package."""
    from nilearn.datasets import load_fsaverage

    surfaces = load_fsaverage(MESH)[kind].parts
    return [(np.asarray(surfaces[side].coordinates), np.asarray(surfaces[side].faces)) for side in SIDES]


@cache
def depth() -> tuple[np.ndarray, ...]:
    """Sulcal depth of the vertices of both hemispheres, (n,)."""
    from nilearn.datasets import load_fsaverage_data

    parts = load_fsaverage_data(mesh=MESH, data_type="sulcal").data.parts
    return tuple(np.asarray(parts[side]).ravel() for side in SIDES)


def flat_maps(
    values: np.ndarray, outlines: "Rois | None" = None, style: SliceStyle = STYLE, limit: float | None = None
) -> bytes:
    """Both hemispheres laid flat, around where the contribution is.

    Parameters
    ----------
    values : (2, vertices)
        Contribution per vertex, 0 or NaN outside the mask; at least `DRAWN` vertices.
    outlines : Rois, optional
        ROIs of the same surface to outline.  Dorsal and ventral parts (V1d, V1v) are joined.
    style : SliceStyle
    limit : float, optional
        Share at the end of the colours, as of another picture of the same map; `limit_of` these values where not given.

    Returns
    -------
    bytes
        PNG.

    Raises
    ------
    SliceError
        If the vertices are too few, or none has a finite value other than 0.
    """
    values = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 2 or values.shape[1] < DRAWN or not values[:, :DRAWN].any():
        raise SliceError(
            f"map must have {DRAWN:,} vertices of each hemisphere and a value other than 0 among them, got shape "
            f"{values.shape}. Check the mask that the map was made with."
        )
    shown = values[:, :DRAWN]
    limit = limit or limit_of(shown)
    regions = _regions(outlines)
    none = np.eye(4)
    scene = Scene(shown, none, None, [(name, mask, none) for name, mask in regions], np.zeros((3, 2)), limit, style)
    return _draw(scene)


def _regions(outlines: "Rois | None") -> list[tuple[str, np.ndarray]]:
    """(name, mask (2, DRAWN)) of every area."""
    masks: dict[str, np.ndarray] = {}
    if outlines is None:
        return []
    for label, name in outlines.names.items():
        mask = outlines.labels[:, :DRAWN] == label
        if label > 0 and mask.any():
            masks[area_of(name)] = masks.get(area_of(name), np.zeros_like(mask)) | mask
    return list(masks.items())


def _draw(scene: Scene) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = scene.style
    figure = Figure(figsize=(style.width, HEIGHT), dpi=style.dpi, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    image = None
    for hemisphere, surface in enumerate(mesh("flat")):
        axes = figure.add_axes((0.005 + 0.45 * hemisphere, 0.1, 0.44, 0.84))
        image = _draw_hemisphere(axes, scene, hemisphere, surface) or image
    if image is not None:
        colour_bar(figure, scene, image, (0.92, 0.18, 0.011, 0.64))
    legend(figure, scene)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=BACKGROUND, pil_kwargs={"optimize": True})
    return stream.getvalue()


def _draw_hemisphere(axes: "Axes", scene: Scene, hemisphere: int, surface: tuple[np.ndarray, np.ndarray]) -> Any:
    """Folds in grey, shares above the threshold, outlines; what has the colours, None where there is no share."""
    from matplotlib.tri import Triangulation

    (vertices, triangles), values = surface, scene.values[hemisphere]
    flat = Triangulation(vertices[:, 0], vertices[:, 1], triangles)
    axes.set_axis_off()
    axes.set_aspect("equal", anchor="EW"[hemisphere])
    axes.set_title(list(HEMISPHERES.values())[hemisphere], color=scene.style.ink, fontsize=8.5, pad=4)
    axes.tripcolor(flat, -depth()[hemisphere], cmap="gray", vmin=-3.5, vmax=3.5, shading="gouraud")
    image = _shares(axes, scene, values, flat)
    for (_, mask, _), colour in zip(scene.rois, scene.colours, strict=True):
        if mask[hemisphere][triangles].any():
            axes.tricontour(flat, mask[hemisphere].astype(float), levels=[0.5], colors=[colour], linewidths=1.1)
    near = vertices[np.unique(triangles[(values[triangles] != 0).any(axis=1)])] if values.any() else vertices
    if len(near):
        (left, low, _), (right, high, _) = near.min(axis=0) - MARGIN_MM, near.max(axis=0) + MARGIN_MM
        axes.set(xlim=(left, right), ylim=(low, high))
    return image


def _shares(axes: "Axes", scene: Scene, values: np.ndarray, flat: "Triangulation") -> Any:
    """Triangles whose mean share is above the threshold, in the colours of slices."""
    from matplotlib.tri import Triangulation

    means = values[flat.triangles].mean(axis=1)
    low, high = scene.ends
    signs = ((means > 0) | (low < 0)) & ((means < 0) | (high > 0))
    above = (np.abs(means) >= scene.style.threshold * scene.limit) & signs
    if not above.any():
        return None
    part = Triangulation(flat.x, flat.y, flat.triangles[above])
    return axes.tripcolor(part, facecolors=means[above], cmap=colours_of(scene), vmin=low, vmax=high)
