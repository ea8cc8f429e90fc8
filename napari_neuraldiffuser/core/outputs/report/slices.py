"""Pictures of contribution volumes on brain slices, with ROI outlines and a colour bar (matplotlib, no display)."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError

BACKGROUND = "#0f1317"
INK = "#d5dbe1"
OUTLINE_COLOURS = (
    "#4cc9f0", "#80ed99", "#ffd166", "#f78fb3", "#c77dff", "#ff9f5a", "#9aa5ff", "#e9ecef", "#2dd4bf", "#d4a373",
)  # fmt: skip
# bright where the share is large, dark near 0, so that both signs stand out from a grey brain
POSITIVE = ("#4a0d12", "#a51e1e", "#e2571e", "#fbaa3c", "#fff3b0")
NEGATIVE = ("#7fb0ff", "#3d7bff", "#1747ff", "#1426b8", "#0a0f50")
MOST_REGIONS = 10
REGION_COLOURS = ("#17b9a2", "#b9a2ff", "#d1ffff", "#a22ee8", "#467474")
"""Of outlines.  From positive shares and from each other at least 20 (CIEDE2000) away, for colour-blind eyes too; from
negative ones at least 15 for normal eyes.  More colours would be nearer to each other: names tell areas apart too."""


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from nibabel.spatialimages import SpatialImage

    from napari_neuraldiffuser.core.nsd import Rois

SHARE_UNITS = {
    "product-measure": "share of R²",
    "prediction-share": "share of the prediction",
    "pattern-energy": "share of the pattern",
    "roi-only": "R² alone",
    "lost-without": "R² lost without",
}
"""Kind of shares, as the table of regions has it, to what they are fractions of."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom and top in mm."""


class SliceError(UserError):
    """A volume that cannot be drawn; the message names it, the rule and the value."""


@dataclass(frozen=True)
class SliceStyle:
    """How contribution slices look."""

    label: str = "share of R²"
    per_axis: int = 2
    spacing: float = 1.0  # mm per drawn pixel: finer than the voxels, so that the anatomy is not blocky
    threshold: float = 0.12  # share of the largest magnitude below which nothing is drawn
    width: float = 11.0  # inches
    dpi: int = 110
    sign: str | None = None  # "positive", "negative" or "both"; None: both where negative shares are large enough
    mirrored: bool = False  # the right side on the left
    named: bool = False  # regions' names on the slices
    outline_colours: tuple[str, ...] = OUTLINE_COLOURS
    ground: str = BACKGROUND
    ink: str = INK


def contribution_slices(
    volume: "SpatialImage",
    background: "SpatialImage | None" = None,
    outlines: "Rois | Sequence[Rois] | None" = None,
    style: SliceStyle = SliceStyle(),
) -> bytes:
    """Sagittal, coronal and axial slices through where the contribution is.

    Parameters
    ----------
    volume : nibabel image, (X, Y, Z)
        Contribution per voxel, 0 or NaN outside the mask.
    background : nibabel image, optional
        Anatomy in the same world space; any matrix and voxel size.
    outlines : Rois or list of Rois, optional
        ROIs to outline (`labels`, `names`, `affine`).  Dorsal and ventral parts (V1d, V1v) are joined.
    style : SliceStyle

    Returns
    -------
    bytes
        PNG.  Left is on the left; positions are mm of the image's world space.

    Raises
    ------
    SliceError
        If the volume is not three-dimensional or has no finite value other than 0.
    """
    values = checked_values(volume)
    rois = roi_masks(outlines)
    planes = choose_planes(values, volume.affine, style.per_axis)
    box = bounds(values if background is None else np.asanyarray(background.dataobj), (background or volume).affine)
    scene = Scene(values, volume.affine, background, rois, box, limit_of(values), style)
    return _draw(scene, planes)


def limit_of(values: np.ndarray) -> float:
    """Magnitude at the end of the colours: all but the largest half percent of the shares; the same in every picture of
    a map."""
    return float(np.quantile(np.abs(values[values != 0]), 0.995))


@dataclass(frozen=True)
class Scene:
    values: np.ndarray
    affine: np.ndarray
    background: "SpatialImage | None"
    rois: list[tuple[str, np.ndarray, np.ndarray]]
    box: np.ndarray  # (3, 2) mm
    limit: float
    style: SliceStyle

    @property
    def signed(self) -> bool:
        """Whether negative shares are shown: where nothing else is said, if they are large enough."""
        if self.style.sign is not None:
            return self.style.sign != "positive"
        return bool((self.values < -self.style.threshold * self.limit).sum() > 0.02 * (self.values != 0).sum())

    @property
    def colours(self) -> list[str]:
        """Of each region's outline."""
        palette = self.style.outline_colours
        return [palette[k % len(palette)] for k in range(len(self.rois))]

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest share of the colour map."""
        return (-self.limit if self.signed else 0.0), (0.0 if self.style.sign == "negative" else self.limit)


def checked_values(volume: "SpatialImage") -> np.ndarray:
    values = np.nan_to_num(np.asanyarray(volume.dataobj, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.ndim != 3 or not values.any():
        raise SliceError(
            f"volume must be three-dimensional with a finite value other than 0, got shape {values.shape} with "
            f"{np.count_nonzero(values)} such values. Check the mask that the map was made with."
        )
    return values


def roi_masks(outlines: "Rois | Sequence[Rois] | None") -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, mask, affine) of every ROI, the parts of one area joined, largest first."""
    if outlines is None:
        return []
    families = outlines if isinstance(outlines, Sequence) else [outlines]
    masks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for family in families:
        for label, name in family.names.items():
            mask = np.asarray(family.labels) == label
            if label <= 0 or not mask.any():
                continue
            name = area_of(name)
            joined = masks[name][0] | mask if name in masks and masks[name][0].shape == mask.shape else mask
            masks[name] = (joined, np.asarray(family.affine))
    return [(name, mask, affine) for name, (mask, affine) in masks.items()][:MOST_REGIONS]


def unit_of(kind: str) -> str:
    """What shares of a kind are fractions of; a share of what was not said is a share."""
    return SHARE_UNITS.get(kind, "share")


def area_of(roi: str) -> str:
    """The area that a region is part of: V1d and V1v are one."""
    return re.sub(r"^(V\d)[vd]$", r"\1", roi)


def region_colours(names: dict[int, str]) -> dict[int, str]:
    """Label to colour of a family's regions, the parts of one area alike; where there are many areas colours recur."""
    areas = list(dict.fromkeys(area_of(roi) for label, roi in names.items() if label > 0))
    known = {area: REGION_COLOURS[k % len(REGION_COLOURS)] for k, area in enumerate(areas)}
    return {label: known[area_of(roi)] for label, roi in names.items() if label > 0}


def choose_planes(values: np.ndarray, affine: np.ndarray, per_axis: int) -> list[tuple[int, float]]:
    """(world axis, mm) of each slice: quantiles of the contribution along that axis, so none is empty."""
    voxels = np.argwhere(values)
    weight = np.abs(values[tuple(voxels.T)])
    weight = weight**2  # the peaks choose the slice, not the extent of the mask
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    planes = []
    for axis in range(3):
        order = np.argsort(world[:, axis])
        cumulative = np.cumsum(weight[order]) / weight.sum()
        for quantile in (np.arange(per_axis) + 0.5) / per_axis:
            position = world[order[np.searchsorted(cumulative, quantile)], axis]
            planes.append((axis, float(position)))
    return planes


def bounds(data: np.ndarray, affine: np.ndarray, margin: float = 4.0) -> np.ndarray:
    """World-space box (3, 2) in mm around what is not empty."""
    data = np.nan_to_num(np.asarray(data, dtype=np.float64))
    voxels = np.argwhere(np.abs(data) > 0.02 * np.abs(data).max())
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    return np.stack([world.min(axis=0) - margin, world.max(axis=0) + margin], axis=1)


def plane_points(box: np.ndarray, axis: int, position: float, spacing: float) -> tuple[np.ndarray, Extent]:
    """World points (rows, columns, 3) of a slice, and its extent."""
    across, up = [a for a in range(3) if a != axis]
    columns = np.arange(box[across, 0], box[across, 1], spacing)
    rows = np.arange(box[up, 0], box[up, 1], spacing)
    points = np.empty((len(rows), len(columns), 3))
    points[..., axis] = position
    points[..., across] = columns[None, :]
    points[..., up] = rows[:, None]
    return points, (columns[0], columns[-1], rows[0], rows[-1])


def sample(data: np.ndarray, affine: np.ndarray, points: np.ndarray, order: int = 1) -> np.ndarray:
    """Values of a volume at world points."""
    from scipy.ndimage import map_coordinates

    inverse = np.linalg.inv(affine)
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
    return map_coordinates(np.asarray(data, dtype=np.float64), np.moveaxis(voxels, -1, 0), order=order, cval=0.0)


def _contribution_at(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Smoothly interpolated inside the mask, NaN outside it and below the threshold."""
    inside = sample(scene.values != 0, scene.affine, points)
    total = sample(scene.values, scene.affine, points)
    # dividing by the interpolated mask keeps the rim from fading into the zeros outside
    value = np.divide(total, inside, out=np.zeros_like(total), where=inside > 0.5)
    low, high = scene.ends
    shown = (
        (np.abs(value) >= scene.style.threshold * scene.limit) & ((value > 0) | (low < 0)) & ((value < 0) | (high > 0))
    )
    return np.where(shown, value, np.nan)


def _draw(scene: Scene, planes: list[tuple[int, float]]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    extents = [plane_points(scene.box, axis, mm, 8.0)[1] for axis, mm in planes]
    widths = [e[1] - e[0] for e in extents]
    tallest = max(e[3] - e[2] for e in extents)
    bar, below = 0.06, 0.42 if scene.rois else 0.12
    unit = scene.style.width * (1 - bar - 0.03) / sum(widths)  # inches per mm
    height = unit * tallest + 0.34 + below
    figure = Figure(figsize=(scene.style.width, height), dpi=scene.style.dpi, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    left, bottom, image = 0.005, below / height, None
    for (axis, mm), width in zip(planes, widths, strict=True):
        share = unit * width / scene.style.width
        axes = figure.add_axes((left, bottom, 0.985 * share, unit * tallest / height))
        image = draw_plane(axes, scene, axis, mm)
        left += share
    colour_bar(figure, scene, image, (left + 0.012, bottom + 0.08, 0.011, 0.72 * unit * tallest / height))
    legend(figure, scene)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=BACKGROUND, pil_kwargs={"optimize": True})
    return stream.getvalue()


def draw_plane(axes: "Axes", scene: Scene, axis: int, mm: float) -> "AxesImage":
    points, extent = plane_points(scene.box, axis, mm, scene.style.spacing)
    axes.set_axis_off()
    if scene.background is not None:
        data = np.nan_to_num(np.asanyarray(scene.background.dataobj, dtype=np.float64))
        shown = sample(data, scene.background.affine, points, order=3)
        top = np.quantile(data[data > 0.02 * data.max()], 0.995)
        shown = np.where(shown > 0.04 * top, shown, np.nan)  # the air around the head shows the page
        axes.imshow(shown, extent=extent, origin="lower", cmap="gray", vmin=0, vmax=1.3 * top)
    low, high = scene.ends
    value = _contribution_at(scene, points)
    image = axes.imshow(value, extent=extent, origin="lower", cmap=colours_of(scene), vmin=low, vmax=high)
    for (name, mask, affine), colour in zip(scene.rois, scene.colours, strict=True):
        inside = sample(mask, affine, points)
        if inside.max() > 0.5:
            axes.contour(inside, levels=[0.5], extent=extent, origin="lower", colors=[colour], linewidths=1.1)
            if scene.style.named:
                _name(axes, name, inside > 0.5, points, axis, scene.style)
    if scene.style.mirrored and axis != 0:
        axes.invert_xaxis()
    _marks(axes, axis, mm, scene.style)
    return image


def colours_of(scene: Scene) -> "LinearSegmentedColormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "share", (NEGATIVE if scene.signed else ()) + (POSITIVE if scene.ends[1] > 0 else ())
    )


def _marks(axes: "Axes", axis: int, mm: float, style: SliceStyle) -> None:
    """Slice position above, and which side is which: L/R, or P/A for a sagittal slice."""
    sides = ("P", "A") if axis == 0 else ("R", "L") if style.mirrored else ("L", "R")
    axes.set_title(f"{'xyz'[axis]} = {round(mm):+d} mm", color=style.ink, fontsize=8.5, pad=4)
    for x, side in zip((0.03, 0.97), sides, strict=True):
        align = "left" if x < 0.5 else "right"
        axes.text(x, 0.03, side, transform=axes.transAxes, color=style.ink, fontsize=8.5, ha=align, va="bottom")


def _name(axes: "Axes", name: str, inside: np.ndarray, points: np.ndarray, axis: int, style: SliceStyle) -> None:
    """A region's name in the middle of its left and of its right part."""
    across, up = [a for a in range(3) if a != axis]
    for part in (inside & (points[..., 0] < 0), inside & (points[..., 0] >= 0)):
        if part.any():
            x, y = points[part].mean(axis=0)[[across, up]]
            axes.text(x, y, name, color="white", fontsize=5.5, ha="center", va="center", path_effects=_edge())


def _edge() -> list[Any]:
    """A dark edge around letters, so that they can be read on any ground."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.2, foreground="black")]


def colour_bar(figure: "Figure", scene: Scene, image: Any, box: Extent) -> None:
    axes = figure.add_axes(box)
    bar = figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    axes.tick_params(colors=scene.style.ink, labelsize=7.5, length=2)
    axes.ticklabel_format(axis="y", scilimits=(-3, 3))
    bar.ax.yaxis.get_offset_text().set(color=scene.style.ink, fontsize=7)
    bar.set_label(f"{scene.style.label}", color=scene.style.ink, fontsize=8.5)


def legend(figure: "Figure", scene: Scene) -> None:
    if not scene.rois:
        return
    from matplotlib.patches import Patch

    ink = scene.style.ink  # around a colour that is as light as the page
    handles = [Patch(facecolor=colour, edgecolor=ink, linewidth=0.4) for colour in scene.colours]
    names = [name for name, _, _ in scene.rois]
    figure.legend(
        handles, names, loc="lower center", ncols=len(names), frameon=False, labelcolor=scene.style.ink, fontsize=8.5,
        handlelength=1.3, columnspacing=1.6,
    )  # fmt: skip
