"""What a finished report left: files, scores of both arms, failed stimuli.  Needs neither Qt nor napari."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.widgets.files.reader import LayerData

WRITTEN = (
    ("page", "{label}.html"),
    ("summary of the scores", "{label}/{label}_desc-summary_scores.json"),
    ("scores of every image", "{label}/{label}_desc-recon_scores.tsv"),
    ("decoded embeddings", "{label}/{label}_desc-*_embeddings.h5"),
    ("reconstructions", "{label}/recon/*_rep-*_recon.png"),
    ("contribution maps", "{label}/*_contribution.nii.gz"),
    ("shares of regions", "{label}/{label}_contribution.tsv"),
    ("anatomy and regions", "{label}/anat/*.nii.gz"),
    ("failed stimuli", "{label}/{label}_desc-failed_stimuli.tsv"),
)
"""What a run writes, as the user calls it, and below the output folder where."""


@dataclass(frozen=True)
class ScoreRow:
    """One score: its name, its definition, and mean ± se of both arms and of their paired difference."""

    name: str
    definition: str
    unguided: str
    guided: str
    difference: str
    clear: bool
    """Whether the difference is more than two standard errors from 0."""


@dataclass(frozen=True)
class Outcome:
    """A finished report.

    Attributes
    ----------
    page, folder : Path
    written : list of (str, list of Path)
        Kinds of files and those that are there.
    scores : list of ScoreRow
    failed : list of int
        Stimuli that were left out.
    """

    page: Path
    folder: Path
    written: list[tuple[str, list[Path]]]
    scores: list[ScoreRow]
    failed: list[int]


def read_outcome(result: dict[str, Any], progress: Any = None) -> Outcome:
    """Look at what the engine's `report` left."""
    page, folder = Path(result["page"]), Path(result["out_dir"])
    found = [(what, sorted(folder.glob(pattern.format(label=page.stem)))) for what, pattern in WRITTEN]
    written = [(what, paths) for what, paths in found if paths]
    return Outcome(page, folder, written, score_rows(result["summary"]), [int(s) for s in result["failed"]])


def score_rows(summary: dict[str, Any]) -> list[ScoreRow]:
    """Rows of `evaluation.summarise`, in its order."""
    from napari_neuraldiffuser.core.outputs.report.page import LABELS  # imports pandas

    arms = {arm: summary.get("arms", {}).get(arm, {}) for arm in ("unguided", "guided")}
    paired, definitions = summary.get("paired", {}), summary.get("protocol", {}).get("metrics", {})
    rows = []
    for metric in dict.fromkeys([*arms["unguided"], *arms["guided"]]):
        difference = paired.get(metric, {})
        texts = [mean_se(arms[arm].get(metric, {})) for arm in arms]
        clear = abs(difference.get("mean") or 0.0) > 2 * (difference.get("se") or float("inf"))
        definition = definitions.get(metric, metric)
        rows.append(ScoreRow(LABELS.get(metric, metric), definition, *texts, mean_se(difference, "+"), clear))
    return rows


def mean_se(values: dict[str, Any], sign: str = "") -> str:
    """ "0.556 ± 0.027"; without an error where there is none, n/a without a mean."""
    mean, se = values.get("mean"), values.get("se")
    if mean is None:
        return "n/a"
    return f"{mean:{sign}.3f}" + ("" if se is None else f" ± {se:.3f}")


def read_layers(folder: Path, label: str, progress: Any = None) -> list[LayerData]:
    """Layers of one subject's results."""
    from napari_neuraldiffuser.widgets.files.folders import output_layers
    from napari_neuraldiffuser.widgets.files.outputs import find_outputs

    subjects = find_outputs(folder)
    return output_layers(subjects.get(label) or next(iter(subjects.values())))
