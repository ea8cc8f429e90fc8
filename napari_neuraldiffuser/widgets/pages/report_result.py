"""What a finished report left: files, scores of both arms, failed stimuli.  Needs neither Qt nor napari."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.outputs.names import KINDS
from napari_neuraldiffuser.widgets.files.layer_info import LayerData

WRITTEN = [["summary"], ["scores"], ["embeddings"], ["image"], ["map"], ["shares"], ["anatomy", "regions"], ["failed"]]
"""What is listed of a subject's files beside its page."""


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
class FinishedReport:
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


def read_finished(result: dict[str, Any], progress: Progress | None = None) -> FinishedReport:
    """Look at what the engine's `report` left."""
    page, folder = Path(result["page"]), Path(result["out_dir"])
    written = [("page", [page])]
    for kinds in ([KINDS[name] for name in names] for names in WRITTEN):
        if paths := [path for kind in kinds for path, _ in kind.find(folder / page.stem)]:
            written.append((" and ".join(kind.what for kind in kinds), paths))
    return FinishedReport(page, folder, written, score_rows(result["summary"]), [int(s) for s in result["failed"]])


def score_rows(summary: dict[str, Any]) -> list[ScoreRow]:
    """Rows of `evaluation.summarise`, in its order."""
    from napari_neuraldiffuser.core.evaluation.metric import label  # imports pandas

    arms = {arm: summary.get("arms", {}).get(arm, {}) for arm in ARMS}
    paired, definitions = summary.get("paired", {}), summary.get("protocol", {}).get("metrics", {})
    rows = []
    for metric in dict.fromkeys([*arms["unguided"], *arms["guided"]]):
        difference = paired.get(metric, {})
        unguided, guided = (mean_se(arms[arm].get(metric, {})) for arm in arms)
        clear = abs(difference.get("mean") or 0.0) > 2 * (difference.get("se") or float("inf"))
        definition = definitions.get(metric, metric)
        rows.append(ScoreRow(label(metric), definition, unguided, guided, mean_se(difference, "+"), clear))
    return rows


def mean_se(values: dict[str, Any], sign: str = "") -> str:
    """ "0.556 ± 0.027"; without an error where there is none, n/a without a mean."""
    mean, se = values.get("mean"), values.get("se")
    if mean is None:
        return "n/a"
    return f"{mean:{sign}.3f}" + ("" if se is None else f" ± {se:.3f}")


def read_layers(folder: Path, label: str, progress: Progress | None = None) -> list[LayerData]:
    """Read one subject's results as layers."""
    from napari_neuraldiffuser.widgets.files.folders import output_layers
    from napari_neuraldiffuser.widgets.files.outputs import find_outputs

    subjects = find_outputs(folder)
    return output_layers(subjects.get(label) or next(iter(subjects.values())))
