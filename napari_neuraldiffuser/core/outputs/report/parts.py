"""Pieces of the report page: inline images, the paired plot, the region tables."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.colours import contrast
from napari_neuraldiffuser.core.decoding.worth.columns import MASK

LIGHT, FULL = (255, 255, 255), (31, 111, 139)
NEGATIVE = (178, 59, 59)
INKS = ("#ffffff", "#1c2430")
"""Of numbers on these colours."""
WEBP_QUALITY = 85


def png_uri(png: bytes) -> str:
    """PNG bytes as a data URI."""
    return _uri(png, "PNG")


def _uri(picture: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(picture).decode('ascii')}"


def data_uri(image: np.ndarray, width: int = 128, kind: str = "PNG") -> str:
    """Image (H, W, 3) uint8 as an inline PNG, or a WEBP of a tenth; anything larger than `width` is shrunk to it."""
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > width:
        picture = picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, kind, **({"optimize": True} if kind == "PNG" else {"quality": WEBP_QUALITY}))
    return _uri(stream.getvalue(), kind)


def paired_plot(scores: pd.DataFrame, metrics: list[str], label: Callable[[str], str]) -> str | None:
    """Guided against unguided score of every stimulus, one panel per metric; None without both scores of a stimulus."""
    if not {"guided", "unguided"} <= set(scores.arm):
        return None
    arms = scores[scores.arm.isin(["guided", "unguided"])]
    means = {m: arms.groupby(["stim", "arm"])[m].mean().unstack().dropna() for m in metrics}
    metrics = [m for m in metrics if len(means[m])]
    if not metrics:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(metrics[:4]), 3.2), layout="constrained", dpi=110)
    for axis, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics[:4]))), metrics, strict=False):
        both = means[metric]
        axis.plot([0, 1], [0, 1], transform=axis.transAxes, color="0.7", lw=1)
        axis.scatter(both.unguided, both.guided, s=16, color="#1f6f8b", alpha=0.75, linewidths=0)
        low, high = both.to_numpy().min(), both.to_numpy().max()
        pad = max(0.05 * (high - low), 0.02)  # scores that are all equal still get readable ticks
        axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
        axis.set(title=label(metric), xlabel="unguided", ylabel="guided")
        axis.spines[["top", "right"]].set_visible(False)
        axis.locator_params(nbins=4)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return png_uri(stream.getvalue())


def score_cells(scores: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """Rows of the score table: what is shown and what is sorted by."""
    return [[_cell(value) for value in row] for row in scores.itertuples(index=False)]


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, float):
        known = np.isfinite(value)
        return {"text": f"{value:.3f}" if known else "n/a", "sort": f"{value:.6f}" if known else ""}
    return {"text": value, "sort": value}


def heat_tables(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One table per ROI family: rows are regions, columns targets, coloured by share within each target."""
    table = table if "family" in table else table.assign(family="regions")
    # the rest of the brain would drown the regions: it has no colour and does not set the scale
    regions = table[~table.roi.str.startswith("outside ")]
    strongest = regions.groupby("target").share.apply(lambda shares: float(shares.abs().max()))
    heats = {}
    for family, part in table.groupby("family", sort=False):
        targets = list(dict.fromkeys(part.target))
        rows = [
            _heat_row(roi, own.set_index("target"), targets, strongest) for roi, own in part.groupby("roi", sort=False)
        ]
        heats[family] = {"targets": targets, "rows": rows}
    return heats


def accuracy_tables(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One table per ROI family of what each region alone decodes, all voxels first; nothing of an empty table."""
    if table.empty:
        return {}
    values = table.rename(columns={"r2": "share", "r2_se": "se"})
    whole = values[values.family == MASK]
    families = [family for family in dict.fromkeys(values.family) if family != MASK] or [MASK]
    parts = [pd.concat([whole, values[(values.family == family) & (family != MASK)]]) for family in families]
    return heat_tables(pd.concat([p.assign(family=f) for f, p in zip(families, parts, strict=True)]))


def _heat_row(roi: str, own: pd.DataFrame, targets: list[str], strongest: pd.Series) -> dict[str, Any]:
    cells, n = [], int(own.n_voxels.iloc[0])
    for target in targets:
        # a region without voxels was not measured: its 0 is no share
        share, se = (float(own.share[target]), float(own.se[target])) if n else (np.nan, np.nan)
        coloured = not roi.startswith("outside ") and strongest.get(target, 0) > 0 and np.isfinite(share)
        strength = abs(share) / strongest[target] if coloured else 0.0
        colour = _mix(LIGHT, NEGATIVE if share < 0 else FULL, strength)
        cells.append(
            {
                "v": f"{share:.6f}" if np.isfinite(share) else "",
                "text": f"{share:.3f}" if np.isfinite(share) else "n/a",
                "se": f"± {se:.3f}" if np.isfinite(se) else "",
                "colour": colour,
                "ink": _ink(colour),
            }
        )
    return {"roi": roi, "n": n, "cells": cells}


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], amount: float) -> str:
    return "#" + "".join(f"{round(x + (y - x) * amount):02x}" for x, y in zip(a, b, strict=True))


def _ink(colour: str) -> str:
    """That of INKS which is read better on a colour."""
    from matplotlib.colors import to_rgb

    return max(INKS, key=lambda ink: contrast(to_rgb(ink), to_rgb(colour)))
