"""What a cross-validation leaves: a table of scores, the decoded embeddings, their sidecars, and a page."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.files import atomic_path, make_folder, write_json
from napari_neuraldiffuser.core.base.names import Derivatives, sidecar, stimulus_entity
from napari_neuraldiffuser.core.decoding.crossval import NULL_TEXT, CrossValidation, TwoWay
from napari_neuraldiffuser.core.outputs.columns import columns
from napari_neuraldiffuser.core.outputs.description import generated_by, write_about, write_description
from napari_neuraldiffuser.core.outputs.report.folds import folds_plot
from napari_neuraldiffuser.core.outputs.report.page import write_template
from napari_neuraldiffuser.core.outputs.report.parts import png_uri
from napari_neuraldiffuser.core.outputs.sidecars import Facts
from napari_neuraldiffuser.core.params import CrossvalParams

SPREAD = "Standard deviation over folds, which share most of what their decoders were fitted to."
DEFINITIONS = {
    "r2": "1 - Σ(y - ŷ)² / Σ(y - m)², pooled over stimuli and columns; m is the training mean of the stimulus' fold.",
    "r2_sd": SPREAD,
    "r": "Mean over columns of the correlation over stimuli between y - m and ŷ - m.",
    "two_way": "Mean share of the other stimuli of its fold that a decoded pattern correlates less with than with its "
    "own; chance is .5.",
    "two_way_sd": SPREAD,
    "two_way_p": NULL_TEXT,
    "within": "The same among the stimuli of one category.",
    "within_sd": SPREAD,
    "within_p": NULL_TEXT,
    "chosen": "What the decoders of the folds chose, each with how many did: a penalty, an epoch.",
}
STAGES = ("betas", "features", "decoding")
NOTE = "Scores are of decoded values as they are; the embeddings in the file are aligned as `align` says."


@dataclass(frozen=True)
class CrossvalFiles:
    """Files of one subject's cross-validation."""

    page: Path
    scores: Path
    embeddings: Path

    @classmethod
    def of(cls, places: Derivatives) -> "CrossvalFiles":
        """Where they lie."""
        return cls(*(places.place(f"crossval {what}") for what in ("page", "scores", "embeddings")))


def write_crossval(
    found: CrossValidation, params: CrossvalParams, places: Derivatives, facts: Facts, *, n_voxels: int, command: str
) -> CrossvalFiles:
    """Write everything of one subject; OutputError where the folder cannot be written."""
    files = CrossvalFiles.of(places)
    make_folder(files.scores.parent)
    rows = write_scores(found, files.scores)
    found.decoded.save(files.embeddings)
    made_by = generated_by()
    for path, about in _sidecars(found, params, places, facts, files, list(rows[0])).items():
        write_json(sidecar(path), {"GeneratedBy": made_by, **about})
    _write_page(rows, found, params, places, facts, n_voxels, command)
    write_description(places.out_dir, facts.links)
    write_about(places.out_dir)
    return files


def write_scores(found: CrossValidation, path: Path) -> list[dict[str, Any]]:
    """Write the table of `table_rows`, which it returns, as TSV."""
    rows = table_rows(found)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return rows


def table_rows(found: CrossValidation) -> list[dict[str, Any]]:
    """One row per target; without categories nothing of comparisons within them."""
    rows = []
    for name, score in found.scores.items():
        row = {"target": name, "r2": score.r2, "r2_sd": spread(score.r2_folds), "r": score.r}
        row |= _identified("two_way", score.two_way)
        row |= _identified("within", score.within) if score.within else {}
        rows.append({**row, "n": len(found.folds), "chosen": _counted(found.chosen[name])})
    return rows


def _identified(name: str, found: TwoWay) -> dict[str, float]:
    return {name: found.value, f"{name}_sd": spread(found.folds), f"{name}_p": found.p}


def spread(folds: tuple[float, ...]) -> float:
    """Standard deviation over the folds that have a value; NaN of fewer than two."""
    known = [value for value in folds if math.isfinite(value)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


def _counted(chosen: list[float]) -> str:
    values, counts = np.unique(chosen, return_counts=True)
    return ", ".join(f"{value:g} ({count})" for value, count in zip(values, counts, strict=True))


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else "n/a"


def _sidecars(
    found: CrossValidation,
    params: CrossvalParams,
    places: Derivatives,
    facts: Facts,
    files: CrossvalFiles,
    names: list[str],
) -> dict[Path, dict[str, Any]]:
    made = {
        "Sources": facts.sources("betas", "stimuli"),
        "Model": facts.model,
        "ModelDigest": facts.model_digest,
        "Parameters": {stage: facts.settings[stage] for stage in STAGES} | {"crossval": params.to_dict()},
        "ROI": facts.settings["betas"]["roi"],
        "Space": places.space,
        **({"Notes": list(facts.notes)} if facts.notes else {}),
    }
    protocol = {"Folds": dict(_fold_of(found)), "NullHypothesis": NULL_TEXT, "Note": NOTE}
    return {
        files.scores: {
            "Description": "Decoding of stimuli that the decoder was not fitted to, over all folds.",
            **columns(names, DEFINITIONS),
            "PerFold": {name: _of_folds(score) for name, score in found.scores.items()},
            **protocol,
            **made,
        },
        files.embeddings: {
            "Description": "Embeddings of every stimulus, decoded by a decoder fitted without its fold.",
            **protocol,
            **made,
        },
    }


def _of_folds(score: Any) -> dict[str, list[float | None]]:
    lists = {"r2": score.r2_folds, "two_way": score.two_way.folds}
    lists |= {"within": score.within.folds} if score.within else {}
    return {name: [v if math.isfinite(v) else None for v in values] for name, values in lists.items()}


def _fold_of(found: CrossValidation) -> Iterator[tuple[str, int]]:
    """Label, or number, of every stimulus and its fold from 1."""
    names = found.decoded.labels or [stimulus_entity(one) for one in found.decoded.stimulus_ids]
    yield from zip(names, (int(k) + 1 for k in found.folds), strict=True)


def _write_page(
    rows: list[dict[str, Any]],
    found: CrossValidation,
    params: CrossvalParams,
    places: Derivatives,
    facts: Facts,
    n_voxels: int,
    command: str,
) -> None:
    files = CrossvalFiles.of(places)
    values = {
        "label": places.label,
        "decoder": facts.settings["decoding"]["decoder"],
        "rows": rows,
        "definitions": DEFINITIONS,
        "n_stimuli": len(np.unique(found.decoded.stimulus_ids)),
        "n_rows": len(found.folds),
        "n_voxels": n_voxels,
        "categories": _category_counts(found),
        "params": params.to_dict(),
        "plot": png_uri(folds_plot(found.scores)),
        "null": NULL_TEXT,
        "note": NOTE,
        "notes": list(facts.notes),
        "parameters": {**{s: facts.settings[s] for s in STAGES}, "crossval": params.to_dict()},
        "command": command,
        "embeddings": files.embeddings.name,
        "versions": generated_by()[0]["Versions"],
    }
    write_template("crossval.html", values, files.page)


def _category_counts(found: CrossValidation) -> dict[str, int]:
    """Stimuli of every category."""
    if found.categories is None:
        return {}
    _, first = np.unique(found.decoded.stimulus_ids, return_index=True)
    names, counts = np.unique(found.categories[first], return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}
