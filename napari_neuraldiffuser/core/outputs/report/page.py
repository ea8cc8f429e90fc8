"""An HTML page per subject: images, scores, regions, and how all of it was made (no network).

It is one file that can be sent on, unless `gallery` finds too many pictures for it.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.names import SCORE_INDEX, Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation.controls import START, control_of, gain_over, not_beaten
from napari_neuraldiffuser.core.evaluation.differences import CLEAR, Difference
from napari_neuraldiffuser.core.evaluation.levels import CEILING_TEXT, CHANCE_TEXT, ceiling_of, chance_of, level
from napari_neuraldiffuser.core.evaluation.metric import label, lower_is_better, main_figures
from napari_neuraldiffuser.core.outputs.report.gallery import gallery
from napari_neuraldiffuser.core.outputs.report.parts import (
    accuracy_tables,
    heat_tables,
    paired_plot,
    png_uri,
    score_cells,
)
from napari_neuraldiffuser.core.outputs.report.profile import profile_picture
from napari_neuraldiffuser.core.outputs.report.trust import trust_values
from napari_neuraldiffuser.core.outputs.report.worth import worth_table

TEMPLATES = Path(__file__).parent / "templates"
SHARE_TEXT = {
    "product-measure": "Share of the explained variance (R², against the training mean) of each target that each "
    "region's voxels carried: the product measure, over the exact split of a linear prediction or the integrated "
    "gradients of another. The rows of one family sum to the R² of the target.",
    "prediction-share": "Share of each decoded target that each region's voxels added; one family sums to 1.",
    "pattern-energy": "Share of each region's voxels in the squared covariance of voxels with the decoded target (the "
    "forward pattern of a linear decoder); one family sums to 1.",
    "roi-only": "R² of each target on the test stimuli, against the training mean, of ridge fitted to the region's "
    "voxels alone. What two regions both know counts for each, and rows do not sum.",
    "lost-without": "R² of each target on the test stimuli that is lost when the region's voxels are left out and "
    "ridge is fitted anew: what no other voxel knows. Rows do not sum.",
}


@dataclass
class ReportData:
    """What the page shows.

    Attributes
    ----------
    subject : str
        `sub-01`.
    summary : dict
        `evaluation.summarise`.
    scores : DataFrame
        `evaluation.scores_table`: stim, rep, arm and metric columns.
    stimulus_ids : ndarray (n,)
    seen, start : Pictures (n, H, W, 3) uint8
        Seen images; decoded starting points.
    recon : dict of arm to Pictures (n, repeats, H, W, 3) uint8
    captions : list of str or None
    labels : list of str
        Own scans' label of each stimulus; empty for NSD.
    undefined : list of str
        What has no value, and why.
    warnings : list of str
        Where guidance harms, at the top.
    contribution : DataFrame
        `contribution.ContributionMaps.table`.
    slices : dict of target to PNG bytes
    views : dict of target to list of PNG bytes
        Other pictures of the same maps, in the same colours.
    accuracy : dict of target to cross-validated R²
    worth : DataFrame
        `decoding.worth.Worth.table`.
    regions : DataFrame
        `decoding.worth.RegionAccuracy.table`; empty where single regions were not judged.
    decoder : str
        Its kind.
    spread : list of str
        What was done about the spread of each decoded target, in words.
    noise_ceiling : str
        `nsd.ceiling_text` of the betas.
    parameters : dict of group to dict
    versions : dict
    command : str
    notes : list of str
    failed : list of int
        Stimuli that were left out.
    places : Derivatives or None
        Where all pictures lie as files, too, which a page of many stimuli names; None where they are not.
    """

    subject: str
    summary: dict[str, Any]
    scores: pd.DataFrame
    stimulus_ids: np.ndarray
    seen: Pictures
    start: Pictures
    recon: dict[str, Pictures]
    captions: list[str | None]
    contribution: pd.DataFrame
    slices: dict[str, bytes]
    accuracy: dict[str, float]
    parameters: dict[str, dict[str, Any]]
    versions: dict[str, str]
    command: str = ""
    worth: pd.DataFrame = field(default_factory=pd.DataFrame)
    regions: pd.DataFrame = field(default_factory=pd.DataFrame)
    spread: list[str] = field(default_factory=list)
    decoder: str = "ridge"
    noise_ceiling: str = ""
    notes: list[str] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)
    views: dict[str, list[bytes]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    places: Derivatives | None = None

    @cached_property
    def repeats(self) -> int:
        """Of each stimulus; the pictures of one are read for it."""
        return len(next(iter(self.recon.values()))[0])


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the page, atomically.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    write_template("report.html", page_values(data, Path(path)), path)


def write_template(name: str, values: dict[str, Any], path: str | Path) -> None:
    """Write a template with its variables filled in, atomically."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(name).render(**values)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_values(data: ReportData, path: Path) -> dict[str, Any]:
    """The variables of the template of a page that will lie at `path`."""
    metrics = [c for c in data.scores.columns if c not in SCORE_INDEX]
    definitions, main = data.summary["protocol"].get("metrics", {}), main_figures(metrics)
    summary_rows = [_card(data.summary, m) for m in metrics]
    kind = data.contribution["kind"].iloc[0] if "kind" in data.contribution else "product-measure"
    return {
        "d": data,
        "n": len(data.stimulus_ids),
        "repeats": data.repeats,
        "labels": {column: label(column) for column in [*data.scores.columns, *definitions]},
        "cards": [c for c in summary_rows if c["metric"] in main],
        "summary_rows": summary_rows,
        "image_metrics": [m for m in metrics if not m.startswith("repeat_")],
        **gallery(data, metrics, path),
        "plot": paired_plot(data.scores, main or metrics, label),
        "columns": list(data.scores.columns),
        "table": score_cells(data.scores),
        "share_text": SHARE_TEXT.get(kind, f"Share of each target that each region's voxels carried ({kind})."),
        "heats": heat_tables(data.contribution),
        "profile": png_uri(picture) if (picture := profile_picture(data.contribution)) else "",
        "slices": {target: png_uri(png) for target, png in data.slices.items()},
        "views": {target: [png_uri(png) for png in pngs] for target, pngs in data.views.items()},
        "accuracy": list(data.accuracy.items()),
        "worth": worth_table(data.worth),
        "alone": accuracy_tables(data.regions),
        "definitions": definitions,
        "clear": CLEAR,
        "levels": [CHANCE_TEXT, CEILING_TEXT, *data.summary["protocol"].get("controls", {}).values()],
        "controls": {name: about["label"] for name, about in data.summary.get("controls", {}).items()},
        "not_beaten": not_beaten(data.summary),
        "trust": trust_values(data.summary),
        "parameters": data.parameters,
    }


def _card(summary: dict[str, Any], metric: str) -> dict[str, Any]:
    """One score of both arms and their paired difference."""
    arms = {arm: values.get(metric, {}) for arm, values in summary["arms"].items()}
    paired = summary["paired"].get(metric, {})
    return {
        "metric": metric,
        "name": label(metric),
        "lower": lower_is_better(metric),
        "unguided": number(arms.get("unguided", {}).get("mean")),
        "guided": number(arms.get("guided", {}).get("mean")),
        "spread": {arm: _spread(arms.get(arm, {}).get("se")) for arm in ARMS},
        "chance": {arm: level(chance_of(summary, arm, metric)) for arm in ARMS},
        "ceiling": level(ceiling_of(summary, metric)),
        "difference": Difference.of_summary(paired) if paired.get("mean") is not None else None,
        "worse": paired.get("worse"),
        "controls": {name: _figure(control_of(summary, name, metric)) for name in summary.get("controls", {})},
        "gain": gain_over(summary, START, metric),
    }


def _figure(values: dict[str, Any]) -> str:
    """A mean with its spread."""
    return "" if not values else number(values.get("mean")) + _spread(values.get("se"))


def number(value: float | None) -> str:
    """A figure of a score as pages show it."""
    return "n/a" if value is None else f"{value:.3f}"


def _spread(se: float | None) -> str:
    return "" if se is None else f" ± {se:.3f}"
