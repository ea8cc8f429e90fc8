"""One figure for a paper or a talk: the brain as a mosaic of slices or of views, beside it what was seen and decoded.

The slices are those of the report (`slices`); matplotlib draws without a display.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.outputs.report.slices import (
    Scene,
    choose_planes,
    colour_bar,
    colours_of,
    draw_plane,
    legend,
    plane_points,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf")
PLANES = {"sagittal": (0,), "coronal": (1,), "axial": (2,), "all three": (0, 1, 2)}
"""Plane to the axes of the world (x, y, z) that its slices lie across."""
TOP, BOTTOM, TITLES, BAR = 0.45, 0.62, 0.22, 0.75
"""Inches of title, legend and caption, title of a slice or picture, and colour bar."""
PICTURES_SHARE = 0.34
"""Of the width, for the pictures."""
Views = Sequence[tuple[str, np.ndarray]]
"""Title and image (H, W, 3) uint8 of each view of the brain."""


class FigureError(UserError):
    """A figure cannot be drawn or written; the message says why, and what would do."""


@dataclass(frozen=True)
class FigureStyle:
    """What the figure has."""

    title: str = ""
    plane: str = "axial"
    """One of PLANES."""
    n_slices: int = 6
    """In all, or of each plane where all three are shown."""
    columns: int = 3
    width: float = 10.0
    """Inches."""
    dpi: int = 300
    picture_title: str = ""
    """Above the pictures, such as the stimulus."""


def write_figure(
    path: str | Path, scene: Scene, pictures: dict[str, np.ndarray], style: FigureStyle, views: Views = ()
) -> Path:
    """Draw a figure and write it; arguments as of `draw_figure`.

    Parameters
    ----------
    path : path
        Ends with .png, or with .pdf, whose letters stay letters.

    Raises
    ------
    FigureError
        For another ending, another plane, or no slice.
    OutputError
        If the folder cannot be written.
    """
    import matplotlib

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FigureError(f"A figure's name must end with .png or .pdf, got {path.name}. Give it such a name.")
    figure = draw_figure(scene, pictures, style, views)
    with matplotlib.rc_context({"pdf.fonttype": 42}), atomic_path(path) as temporary:
        kind = path.suffix.lower().removeprefix(".")
        figure.savefig(temporary, format=kind, dpi=style.dpi, facecolor=scene.style.ground)
    return path


def draw_figure(scene: Scene, pictures: dict[str, np.ndarray], style: FigureStyle, views: Views = ()) -> "Figure":
    """Draw the brain at the left, the colour bar, the pictures at the right, title, legend and threshold.

    Parameters
    ----------
    scene : Scene
        Map, anatomy, regions, limits and threshold.
    pictures : dict
        Name to image (H, W, 3) uint8, in this order; may be empty.
    style : FigureStyle
    views : sequence of (title, image)
        Of the brain, such as surfaces from several sides, instead of slices.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if style.plane not in PLANES:
        raise FigureError(f"plane must be one of {list(PLANES)}, got {style.plane!r}.")
    if style.n_slices < 1:
        raise FigureError(f"A figure must have at least 1 slice, got {style.n_slices}.")
    planes = [] if views else _planes(scene, style)
    n = len(views or planes)
    columns = min(style.columns, n)
    rows = math.ceil(n / columns)
    brain = style.width * (1 - PICTURES_SHARE * bool(pictures)) - BAR
    cell = brain / columns, brain / columns * _aspect(scene, planes, views)
    height = max(rows * (cell[1] + TITLES), 2.0) + TOP + BOTTOM
    figure = Figure(figsize=(style.width, height), facecolor=scene.style.ground)
    FigureCanvasAgg(figure)
    mappable = None
    for k in range(n):
        row, column = divmod(k, columns)
        left, bottom = column * cell[0], height - TOP - (row + 1) * (cell[1] + TITLES)
        axes = figure.add_axes((left / style.width, bottom / height, 0.97 * cell[0] / style.width, cell[1] / height))
        if views:
            _show(axes, *views[k], scene)
        else:
            mappable = draw_plane(axes, scene, *planes[k])
    at, long = ((brain + 0.1) / style.width, (BOTTOM + 0.3) / height), height - TOP - BOTTOM - 0.6
    bar = (*at, 0.11 / style.width, long / height)
    colour_bar(figure, scene, mappable if mappable is not None else _mappable(scene), bar)
    _pictures(figure, pictures, (brain + BAR, style.width), height, style, scene)
    _words(figure, scene, style, height, bool(views))
    legend(figure, scene)
    return figure


def _planes(scene: Scene, style: FigureStyle) -> list[tuple[int, float]]:
    """(world axis, mm) of the slices: where the contribution is, from one end to the other."""
    chosen = choose_planes(scene.values, scene.affine, style.n_slices)
    return [(axis, mm) for axis, mm in chosen if axis in PLANES[style.plane]]


def _aspect(scene: Scene, planes: list[tuple[int, float]], views: Views) -> float:
    """Height over width of the largest slice or view."""
    if views:
        return max(image.shape[0] / image.shape[1] for _, image in views)
    extents = [plane_points(scene.box, axis, mm, 8.0)[1] for axis, mm in planes]
    return max(e[3] - e[2] for e in extents) / max(e[1] - e[0] for e in extents)


def _show(axes: Any, title: str, image: np.ndarray, scene: Scene) -> None:
    axes.set_axis_off()
    axes.imshow(image)
    axes.set_title(title, color=scene.style.ink, fontsize=8.5, pad=4)


def _mappable(scene: Scene) -> Any:
    """What the colour bar shows where there are no slices."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(*scene.ends), colours_of(scene))


def _pictures(
    figure: "Figure",
    pictures: dict[str, np.ndarray],
    span: tuple[float, float],
    height: float,
    style: FigureStyle,
    scene: Scene,
) -> None:
    """Two by two at the right, as large as fits between title and legend."""
    if not pictures:
        return
    columns = 1 if len(pictures) < 3 else 2
    rows = math.ceil(len(pictures) / columns)
    side = min((span[1] - span[0] - 0.1) / columns, (height - TOP - BOTTOM) / rows - TITLES)
    top = height - TOP - (TITLES if style.picture_title else 0)
    side = min(side, (top - BOTTOM) / rows - TITLES)
    if style.picture_title:
        at = span[0] / style.width, (top + 0.06) / height
        figure.text(*at, style.picture_title, color=scene.style.ink, fontsize=9, weight="bold")
    for k, (name, image) in enumerate(pictures.items()):
        row, column = divmod(k, columns)
        left, bottom = span[0] + column * side, top - (row + 1) * (side + TITLES)
        axes = figure.add_axes((left / style.width, bottom / height, 0.96 * side / style.width, 0.96 * side / height))
        _show(axes, name, image, scene)


def threshold_text(scene: Scene) -> str:
    """What is shown of the map."""
    share, fraction = scene.style.threshold * scene.limit, 100 * scene.style.threshold
    what = {"positive": f"shares from {share:.2g}", "negative": f"shares to -{share:.2g}"}
    shown = what.get(scene.style.sign or "", f"shares beyond ±{share:.2g}")
    return f"{shown} ({fraction:.3g} % of the largest)"


def _words(figure: "Figure", scene: Scene, style: FigureStyle, height: float, turned: bool) -> None:
    ink = scene.style.ink
    figure.text(0.012, 1 - 0.27 / height, style.title, color=ink, fontsize=12, weight="bold")
    view = "radiological: right is left" if scene.style.mirrored else "neurological: left is left"
    text = "; ".join([scene.style.label, threshold_text(scene), *([] if turned else [view])])
    figure.text(0.012, 0.36 / height, text, color=ink, fontsize=8)
