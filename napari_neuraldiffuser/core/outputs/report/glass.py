"""A contribution map seen through the brain: along each axis the share of largest magnitude (matplotlib, no display).

In the betas' own space, which need not be MNI's: the outline is that of this brain, and no template is laid over it.
"""

import io
from typing import TYPE_CHECKING

import numpy as np

from napari_neuraldiffuser.core.outputs.report.slices import (
    BACKGROUND,
    Extent,
    Scene,
    SliceStyle,
    bounds,
    checked_values,
    colour_bar,
    colours_of,
    limit_of,
    plane_points,
    sample,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from nibabel.spatialimages import SpatialImage

STYLE = SliceStyle()
VIEWS = ("from the left", "from behind", "from above")
"""Along x, y and z."""
SPACING_MM = 2.0
DEPTH_MM = 2.0
"""Between the points that are looked at along a line of sight."""


def glass_brain(volume: "SpatialImage", background: "SpatialImage | None" = None, style: SliceStyle = STYLE) -> bytes:
    """The whole map in three views.

    Parameters
    ----------
    volume : nibabel image, (X, Y, Z)
        Contribution per voxel, 0 or NaN outside the mask.
    background : nibabel image, optional
        Anatomy in the same world space, whose outline is drawn; without, that of the mask.
    style : SliceStyle

    Returns
    -------
    bytes
        PNG.  Left is on the left.

    Raises
    ------
    SliceError
        If the volume is not three-dimensional or has no finite value other than 0.
    """
    values = checked_values(volume)
    ground = volume if background is None else background
    box = bounds(values if background is None else np.asanyarray(background.dataobj), ground.affine)
    return _draw(Scene(values, volume.affine, background, [], box, limit_of(values), style))


def seen_through(scene: Scene, axis: int) -> tuple[np.ndarray, np.ndarray, Extent]:
    """Share of largest magnitude along an axis (rows, columns), NaN where the line meets no voxel of the mask; whether
    it meets the brain; and the extent in mm."""
    strongest, inside, extent = np.zeros(1), np.zeros(1, bool), (0.0, 0.0, 0.0, 0.0)
    brain, affine = _brain(scene)
    low, high = scene.box[axis]
    for mm in np.arange(low, high, DEPTH_MM):
        points, extent = plane_points(scene.box, axis, float(mm), SPACING_MM)
        here = sample(scene.values, scene.affine, points, order=0)
        strongest = np.where(np.abs(here) > np.abs(strongest), here, strongest)
        inside = inside | (sample(brain, affine, points, order=0) > 0)
    return np.where(strongest == 0, np.nan, strongest), inside, extent


def _brain(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """What is brain, and its affine: the anatomy above the air around it, or the mask of the map."""
    if scene.background is None:
        return scene.values != 0, scene.affine
    data = np.nan_to_num(np.asanyarray(scene.background.dataobj, dtype=np.float64))
    return data > 0.1 * np.quantile(data[data > 0.02 * data.max()], 0.995), scene.background.affine


def _draw(scene: Scene) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    views = [seen_through(scene, axis) for axis in range(3)]
    widths = [extent[1] - extent[0] for _, _, extent in views]
    tallest = max(extent[3] - extent[2] for _, _, extent in views)
    unit = scene.style.width * 0.88 / sum(widths)  # inches per mm
    height = unit * tallest + 0.4
    figure = Figure(figsize=(scene.style.width, height), dpi=scene.style.dpi, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    left = 0.005
    for axis, (view, width) in enumerate(zip(views, widths, strict=True)):
        share = unit * width / scene.style.width
        image = _draw_view(figure.add_axes((left, 0.03, 0.98 * share, unit * tallest / height)), scene, axis, view)
        left += share
    colour_bar(figure, scene, image, (left + 0.02, 0.14, 0.011, 0.66))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=BACKGROUND, pil_kwargs={"optimize": True})
    return stream.getvalue()


def _draw_view(axes: "Axes", scene: Scene, axis: int, view: tuple[np.ndarray, np.ndarray, Extent]) -> "AxesImage":
    shares, inside, extent = view
    axes.set_axis_off()
    axes.set_title(VIEWS[axis], color=scene.style.ink, fontsize=8.5, pad=4)
    if inside.any() and not inside.all():
        axes.contour(inside, levels=[0.5], extent=extent, origin="lower", colors=["#6b7682"], linewidths=0.8)
    low, high = scene.ends
    shown = np.where(np.abs(shares) >= scene.style.threshold * scene.limit, shares, np.nan)
    image = axes.imshow(
        shown, extent=extent, origin="lower", cmap=colours_of(scene), vmin=low, vmax=high, interpolation="nearest"
    )
    for x, side in zip((0.03, 0.97), ("P", "A") if axis == 0 else ("L", "R"), strict=True):
        align = "left" if x < 0.5 else "right"
        axes.text(x, 0.03, side, transform=axes.transAxes, color=scene.style.ink, fontsize=8.5, ha=align, va="bottom")
    return image
