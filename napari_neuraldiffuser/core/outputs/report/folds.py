"""Picture of a cross-validation: R² and two-way identification of every target, and of every fold."""

import io
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.decoding.crossval import TargetScore

ALL, FOLD, CHANCE, WITHIN = "#1f6f8b", "#8fb7c5", "#b23b3b", "#d08b2c"


def folds_plot(scores: dict[str, TargetScore]) -> bytes:
    """PNG: a bar per target for all folds together, a dot for each fold; chance as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _bars(left, {name: (s.r2, s.r2_folds) for name, s in scores.items()}, ALL)
    left.axhline(0, color="0.4", lw=0.8)
    left.set_title("R² of left-out stimuli", loc="left", fontsize=10)
    within = {name: s.within for name, s in scores.items() if s.within is not None}
    shift = 0.2 if within else 0.0
    _bars(right, {name: (s.two_way.value, s.two_way.folds) for name, s in scores.items()}, ALL, -shift)
    if within:
        _bars(right, {name: (w.value, w.folds) for name, w in within.items()}, WITHIN, shift)
        right.legend(["among all", "within a category"], fontsize=8, loc="lower right")
    right.axhline(0.5, color=CHANCE, lw=1, ls="--")
    right.set_ylim(0, 1.05)
    right.set_title("two-way identification, chance .5", loc="left", fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _bars(axes: Any, values: dict[str, tuple[float, tuple[float, ...]]], colour: str, shift: float = 0.0) -> None:
    places = np.arange(len(values)) + shift
    heights = [value if np.isfinite(value) else 0.0 for value, _ in values.values()]
    axes.bar(places, heights, width=0.36 if shift else 0.7, color=colour, zorder=1)
    for place, (_, folds) in zip(places, values.values(), strict=True):
        axes.scatter([place] * len(folds), folds, s=9, color="white", edgecolors="0.3", linewidths=0.6, zorder=2)
    axes.set_xticks(np.arange(len(values)), list(values))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
