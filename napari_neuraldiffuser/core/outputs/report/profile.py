"""The layer profile: every decoded target from early to ventral regions in one figure, on one colour scale."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.registry import TARGETS
from napari_neuraldiffuser.core.outputs.report.slices import area_of, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES = ("prf-visualrois", "floc-places", "floc-faces", "floc-bodies", "floc-words")
"""Families of regions in the order of the visual stream; where a table has none of them, all of its own are drawn."""
SUMMED = ("product-measure", "prediction-share", "pattern-energy")
"""Kinds whose shares add up, so that the ventral and dorsal part of an area become one row."""
COLOURS, BELOW = "cividis", "#c9c9c9"
"""Read alike by all colour vision, dark to light; grey: less than nothing."""
LEVEL = 0.05
CELL, MARGIN = (0.62, 0.27), (2.2, 1.5)
"""Inches of a cell, and around them."""
MOST_ROWS = 40


def profile_values(table: pd.DataFrame) -> pd.DataFrame | None:
    """Shares with a row per region and a column per target, in the order of the figure; None where nothing is drawn."""
    found = _rows(table, "share", _sum)
    return None if found is None or not np.isfinite(found.to_numpy()).any() else found


def _sum(values: pd.Series) -> float:
    """The sum, NaN of nothing but NaN."""
    return float(values.sum(min_count=1))


def _rows(table: pd.DataFrame, column: str, how: str | Callable[[pd.Series], float]) -> pd.DataFrame | None:
    missing = {"family": "regions", "kind": "", "n_voxels": 1}
    table = table.assign(**{name: value for name, value in missing.items() if name not in table})
    regions = table[~table.roi.str.startswith("outside ") & (table.n_voxels > 0)]
    families = [name for name in FAMILIES if (regions.family == name).any()] or list(dict.fromkeys(regions.family))
    regions = regions[regions.family.isin(families)]
    if regions.empty:
        return None
    joined = regions.kind.isin(SUMMED).all()
    area = regions.roi.map(area_of) if joined else regions.roi
    order = pd.MultiIndex.from_tuples(list(_order(regions.assign(area=area), families)))
    values = regions.assign(area=area).pivot_table(column, ["family", "area"], "target", how, dropna=False)
    return values.reindex(order)[[name for name in TARGETS if name in values]][:MOST_ROWS]


def _order(regions: pd.DataFrame, families: list[str]) -> Iterator[tuple[str, str]]:
    """(family, area) of every row of the figure."""
    for family in families:
        for area in dict.fromkeys(regions.area[regions.family == family]):
            yield family, area


def layer_profile(table: pd.DataFrame) -> "Figure | None":
    """Figure of a table of regions (`ContributionMaps.table`); None where no region has a share.

    A dot marks cells whose p, adjusted for the false discovery rate, is at most 5 %, where the table has it; of areas
    that are drawn as one row, one part of them suffices.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    values = profile_values(table)
    if values is None:
        return None
    size = [cell * n + margin for cell, n, margin in zip(CELL, values.shape[::-1], MARGIN, strict=True)]
    figure = Figure(figsize=(max(size[0], 4.0), size[1]), layout="constrained", dpi=110)
    axis = figure.add_subplot()
    colours = colormaps[COLOURS].with_extremes(under=BELOW, bad="white")
    top = max(float(np.nanmax(values.to_numpy())), 1e-12)
    image = axis.imshow(values, cmap=colours, vmin=0.0, vmax=top, aspect="auto")
    axis.set_xticks(range(values.shape[1]), list(values))
    axis.set_yticks(range(len(values)), [area for _, area in values.index])
    axis.set_title("Layer profile: from which regions each target comes", fontsize=9)
    _marks(axis, values, table, top)
    if "p_fdr" in table:
        axis.set_xlabel(f"• p ≤ {LEVEL:.0%} by permutation, false discovery rate over regions", fontsize=8)
    unit = unit_of(str(table.kind.iloc[0]) if "kind" in table else "")
    negative = bool((values.to_numpy() < 0).any())
    unit += ", grey: below 0" if negative else ""
    figure.colorbar(image, extend="min" if negative else "neither", label=unit)
    return figure


def _marks(axis: "Axes", values: pd.DataFrame, table: pd.DataFrame, top: float) -> None:
    """Numbers of all cells, with a dot where they are significant."""
    least = _rows(table, "p_fdr", "min") if "p_fdr" in table else None
    for i, j in np.ndindex(values.shape):
        share = values.iat[i, j]
        if np.isfinite(share):
            known = least is not None and least.iat[i, j] <= LEVEL
            dark = 0 <= share < 0.55 * top
            text = f"{share:.3f}" + ("•" if known else "")
            axis.text(j, i, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def profile_picture(table: pd.DataFrame) -> bytes | None:
    """The figure as a PNG; None where no region has a share."""
    figure = layer_profile(table)
    if figure is None:
        return None
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def save_profile(table: pd.DataFrame, paths: tuple[Path, ...]) -> None:
    """Write the figure to `paths`, whose suffixes say in which format; without a share, remove what lies there."""
    from matplotlib import rc_context

    figure = layer_profile(table)
    for path in paths:
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        kind = path.suffix.removeprefix(".")
        # neither date nor random names: the same table gives the same file
        with rc_context({"svg.hashsalt": "profile"}), atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
