"""Picture of how well a decoder predicts: R² of every target, and how it depends on what was tried."""

import io
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.outputs.report.slices import BACKGROUND, INK, OUTLINE_COLOURS

WIDTH, HEIGHT, DPI = 4.2, 3.9, 200
"""Inches; at 420 px the text is 9 px high."""
FAINT = "#3a424b"


def accuracy_plot(accuracy: dict[str, float], curves: dict[str, dict[str, Any]]) -> bytes:
    """Draw bars of held-out R² and its curves over what was tried: ridge penalties or epochs.

    Parameters
    ----------
    accuracy : dict of target to R²
    curves : dict of target to {"tried", "r2", "axis"}, see `decoding.TargetFit`

    Returns
    -------
    bytes
        PNG on a dark ground.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    bars, lines = figure.subplots(2, 1)
    colours = dict(zip(accuracy, OUTLINE_COLOURS, strict=False))
    _bars(bars, accuracy, colours)
    _lines(lines, curves, colours)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=BACKGROUND)
    return stream.getvalue()


def _bars(axes: Any, accuracy: dict[str, float], colours: dict[str, str]) -> None:
    heights = [r2 if np.isfinite(r2) else 0.0 for r2 in accuracy.values()]
    shown = axes.bar(list(accuracy), heights, color=[colours[name] for name in accuracy], width=0.7)
    texts = [f"{r2:.2f}" if np.isfinite(r2) else "n/a" for r2 in accuracy.values()]
    axes.bar_label(shown, texts, padding=2, color=INK, fontsize=8)
    axes.margins(y=0.2)
    axes.axhline(0, color=INK, linewidth=0.6)
    _dress(axes, "held-out R² of every target")


def _lines(axes: Any, curves: dict[str, dict[str, Any]], colours: dict[str, str]) -> None:
    for name, curve in curves.items():
        axes.plot(curve["tried"], curve["r2"], color=colours[name], linewidth=1.4, marker=".", markersize=4)
    axis = next((curve["axis"] for curve in curves.values()), "penalty")
    if axis == "penalty":
        axes.set_xscale("log")
    values = np.array([r2 for curve in curves.values() for r2 in curve["r2"]], dtype=float)
    values = values[np.isfinite(values)]
    if values.size:
        # too small a penalty sends R² far below 0, which would press the curves together
        axes.set_ylim(bottom=max(values.min(), -max(values.max(), 0.1)) - 0.02)
    axes.axhline(0, color=INK, linewidth=0.6)
    _dress(axes, f"R² over the {axis}")


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, color=INK, fontsize=9, loc="left")
    axes.set_facecolor(BACKGROUND)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
