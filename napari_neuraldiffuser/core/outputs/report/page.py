"""One self-contained HTML page per subject: images, scores, regions, and how all of it was made (no network)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.names import SCORE_INDEX
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.base.registry import METRICS
from napari_neuraldiffuser.core.evaluation.differences import CLEAR, Difference
from napari_neuraldiffuser.core.evaluation.levels import CEILING_TEXT, CHANCE_TEXT, ceiling_of, chance_of, level
from napari_neuraldiffuser.core.evaluation.metric import label, main_figures, of_column
from napari_neuraldiffuser.core.outputs.report.parts import data_uri, heat_tables, paired_plot, png_uri, score_cells

TEMPLATES = Path(__file__).parent / "templates"
UNDER_IMAGES = ("pixcorr", "ssim", "twoway_features")
"""Metrics whose scores stand under a stimulus's images."""
SHARE_TEXT = {
    "product-measure": "Share of the explained variance (R², against the training mean) of each target that each "
    "region's voxels carried: the product measure, over the exact split of a linear prediction or the integrated "
    "gradients of another. The rows of one family sum to the R² of the target.",
    "prediction-share": "Share of each decoded target that each region's voxels added; one family sums to 1.",
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
    seen, start : ndarray (n, H, W, 3) uint8
        Seen images; decoded starting points.
    recon : dict of arm to ndarray (n, repeats, H, W, 3) uint8
    captions : list of str or None
    labels : list of str
        Own scans' label of each stimulus; empty for NSD.
    undefined : list of str
        What has no value, and why.
    contribution : DataFrame
        `contribution.ContributionMaps.table`.
    slices : dict of target to PNG bytes
    accuracy : dict of target to cross-validated R²
    noise_ceiling : str
        `nsd.ceiling_text` of the betas.
    parameters : dict of group to dict
    versions : dict
    command : str
    notes : list of str
    failed : list of int
        Stimuli that were left out.
    """

    subject: str
    summary: dict[str, Any]
    scores: pd.DataFrame
    stimulus_ids: np.ndarray
    seen: np.ndarray
    start: np.ndarray
    recon: dict[str, np.ndarray]
    captions: list[str | None]
    contribution: pd.DataFrame
    slices: dict[str, bytes]
    accuracy: dict[str, float]
    parameters: dict[str, dict[str, Any]]
    versions: dict[str, str]
    command: str = ""
    noise_ceiling: str = ""
    notes: list[str] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the page, atomically.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    write_template("report.html", page_values(data), path)


def write_template(name: str, values: dict[str, Any], path: str | Path) -> None:
    """Write a template with its variables filled in, atomically."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(name).render(**values)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_values(data: ReportData) -> dict[str, Any]:
    """The template's variables."""
    metrics = [c for c in data.scores.columns if c not in SCORE_INDEX]
    definitions, main = data.summary["protocol"].get("metrics", {}), main_figures(metrics)
    summary_rows = [_card(data.summary, m) for m in metrics]
    kind = data.contribution["kind"].iloc[0] if "kind" in data.contribution else "product-measure"
    return {
        "d": data,
        "n": len(data.stimulus_ids),
        "repeats": next(iter(data.recon.values())).shape[1],
        "labels": {column: label(column) for column in [*data.scores.columns, *definitions]},
        "cards": [c for c in summary_rows if c["metric"] in main],
        "summary_rows": summary_rows,
        "image_metrics": [m for m in metrics if not m.startswith("repeat_")],
        "rows": [_gallery_row(data, i, metrics) for i in range(len(data.stimulus_ids))],
        "plot": paired_plot(data.scores, main or metrics, label),
        "columns": list(data.scores.columns),
        "table": score_cells(data.scores),
        "share_text": SHARE_TEXT.get(kind, f"Share of each target that each region's voxels carried ({kind})."),
        "heats": heat_tables(data.contribution),
        "slices": {target: png_uri(png) for target, png in data.slices.items()},
        "accuracy": list(data.accuracy.items()),
        "definitions": definitions,
        "clear": CLEAR,
        "levels": [CHANCE_TEXT, CEILING_TEXT],
        "parameters": data.parameters,
    }


def _card(summary: dict[str, Any], metric: str) -> dict[str, Any]:
    """One score of both arms and their paired difference."""
    arms = {arm: values.get(metric, {}) for arm, values in summary["arms"].items()}
    paired = summary["paired"].get(metric, {})
    return {
        "metric": metric,
        "name": label(metric),
        "unguided": number(arms.get("unguided", {}).get("mean")),
        "guided": number(arms.get("guided", {}).get("mean")),
        "spread": {arm: _spread(arms.get(arm, {}).get("se")) for arm in ARMS},
        "chance": {arm: level(chance_of(summary, arm, metric)) for arm in ARMS},
        "ceiling": level(ceiling_of(summary, metric)),
        "difference": Difference.of_summary(paired) if paired.get("mean") is not None else None,
        "worse": paired.get("worse"),
    }


def number(value: float | None) -> str:
    """A figure of a score as pages show it."""
    return "n/a" if value is None else f"{value:.3f}"


def _spread(se: float | None) -> str:
    return "" if se is None else f" ± {se:.3f}"


def _gallery_row(data: ReportData, i: int, metrics: list[str]) -> dict[str, Any]:
    """Images and scores of one stimulus."""
    stim = data.stimulus_ids[i]
    own = data.scores[data.scores.stim == stim]
    means = {arm: part[metrics].mean() for arm, part in own.groupby("arm")}
    arms = [
        {"name": arm, "images": [data_uri(image) for image in images[i]], "text": _score_text(means.get(arm))}
        for arm, images in data.recon.items()
    ]
    return {
        "stim": stim,
        "name": f"{data.labels[i]} ({stim})" if data.labels else str(stim),
        "caption": data.captions[i],
        "seen": data_uri(data.seen[i]),
        "start": data_uri(data.start[i]),
        "arms": arms,
        "sort": _sort_keys(means, metrics),
    }


def _score_text(means: pd.Series | None) -> str:
    if means is None:
        return ""
    shown = [METRICS[name] for name in UNDER_IMAGES if name in METRICS]
    columns = [column for column in means.index if of_column(column)[0] in shown]
    return ", ".join(f"{label(c)} {means[c]:.2f}" if np.isfinite(means[c]) else f"{label(c)} n/a" for c in columns)


def _sort_keys(means: dict[str, pd.Series], metrics: list[str]) -> dict[str, str]:
    if "guided" not in means:
        return {}
    keys = {m: f"{means['guided'][m]:.5f}" for m in metrics}
    if "unguided" in means and "pixcorr" in metrics:
        keys["gain"] = f"{means['guided'].pixcorr - means['unguided'].pixcorr:.5f}"
    return {name: value for name, value in keys.items() if value != "nan"}
