"""The figure of the guidance study: pictures of one fresh subject, and gains of every seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.guidance_cells import Result
from common.guidance_subjects import Case
from common.guidance_tables import GUIDED_OVER_UNGUIDED, Gain

SHOWN = 8
ROWS = ("mean", "start", "unguided", "", "true g", "true z")
"""Arms from top to bottom, below what was seen; the empty one is the chosen arm."""


def draw(rows: Mapping[str, Sequence[Result]], cases: Sequence[Case], chosen: str, path: Path) -> None:
    """Write the figure: first repeat of the first stimuli of the first seed, and guided minus unguided by seed."""
    from matplotlib.figure import Figure

    names = ["seen", *(name or chosen for name in ROWS if (name or chosen) in rows)]
    figure = Figure(figsize=(11.5, 1.02 * len(names)), dpi=110, layout="constrained")
    pictures, gains = figure.subfigures(1, 2, width_ratios=(2.6, 1))
    n = min(SHOWN, len(cases[0].seen))
    for name, axes in zip(names, pictures.subplots(len(names), n), strict=True):
        images = cases[0].seen if name == "seen" else np.load(rows[name][0].pictures)["images"][:, 0]
        for axis, image in zip(axes, images, strict=False):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel("guided" if name == chosen else name, rotation=0, ha="right", va="center")
    for axis, score in zip(gains.subplots(len(GUIDED_OVER_UNGUIDED), 1), GUIDED_OVER_UNGUIDED, strict=True):
        _gains(axis, rows, cases, chosen, score)
    figure.savefig(path)


def _gains(axis: object, rows: Mapping[str, Sequence[Result]], cases: Sequence[Case], chosen: str, score: str) -> None:
    """Guided minus unguided (filled) and minus the decoded start (open) of every seed, with 3 standard errors."""
    for other, marker, shift in (("unguided", "o", -0.12), ("start", "s", 0.12)):
        found = [Gain.of([a], [b], score) for a, b in zip(rows[chosen], rows[other], strict=True)]
        places = np.arange(len(found)) + shift
        axis.errorbar(
            places, [g.mean for g in found], [3 * g.se for g in found],
            fmt=marker, ms=4, lw=1, mfc="white" if other == "start" else None, label=f"guided − {other}",
        )  # fmt: skip
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set_xticks(range(len(cases)), [str(case.seed) for case in cases], fontsize=8)
    axis.set_title({"pixcorr": "PixCorr", "ssim": "SSIM"}.get(score, score) + ", ± 3 standard errors", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if score == GUIDED_OVER_UNGUIDED[0]:
        axis.legend(fontsize=7, frameon=False)
