"""What each subject of an output folder has for the group level, and where subjects differ in how they were made."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import json_object
from napari_neuraldiffuser.core.base.names import Derivatives, sidecar
from napari_neuraldiffuser.core.outputs.complete import why_incomplete

NOT_SAID = "not said"
MODEL = "model.digest"
KIND = "contribution.kind"
PER_SUBJECT = ("undefined", "n_test_images", "ceiling", "warnings", "controls")
"""Parts of a protocol that may differ without making scores of another kind."""


class GroupError(UserError):
    """Nothing can be put together; the message says what is missing and how to make it."""


@dataclass(frozen=True)
class SubjectResult:
    """One finished subject.

    Attributes
    ----------
    places : Derivatives
    summary : dict
        Content of `desc-summary_scores.json`.
    scores : DataFrame or None
        stim, rep, arm and metric columns; None where it cannot be read.
    contribution : DataFrame or None
    parameters : dict of str to value
        Everything that decided the results, as `stage.name`.
    failed : int
        Stimuli without a reconstruction.
    """

    places: Derivatives
    summary: dict[str, Any]
    scores: pd.DataFrame | None
    contribution: pd.DataFrame | None
    parameters: dict[str, Any]
    failed: int

    @property
    def label(self) -> str:
        return self.places.label

    @property
    def protocol(self) -> dict[str, Any]:
        """How scores were computed, less what belongs to the subject."""
        return {k: v for k, v in self.summary["protocol"].items() if k not in PER_SUBJECT}

    @property
    def metrics(self) -> list[str]:
        """Every metric of any arm, in the order of the file."""
        return list(dict.fromkeys(m for arm in self.summary["arms"].values() for m in arm))

    def value(self, arm: str, metric: str, what: str = "mean") -> float | None:
        """One figure of the summary; None where it is undefined."""
        return finite(self.summary["arms"].get(arm, {}).get(metric, {}).get(what))

    def control(self, name: str, metric: str, what: str = "mean", part: str = "scores") -> float | None:
        """One figure of a picture that takes no diffusion; with `part` "paired" of guided minus it."""
        about = _dict(_dict(self.summary.get("controls")).get(name))
        return finite(_dict(_dict(about.get(part)).get(metric)).get(what))


def finite(value: object) -> float | None:
    """A number as it is, and None for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def read_subjects(out_dir: Path, labels: Sequence[str] | None) -> tuple[list[SubjectResult], list[str]]:
    """The complete subjects, and a sentence about each of the others.

    Raises
    ------
    GroupError
        If none is complete.
    """
    if not labels:
        labels = sorted(path.name for path in out_dir.glob("sub-*") if path.is_dir())
    found: list[SubjectResult] = []
    left_out: list[str] = []
    for places in {p.label: p for p in (Derivatives(out_dir, label) for label in labels)}.values():
        try:
            found.append(read_subject(places))
        except GroupError as error:
            left_out.append(str(error))
    if not found:
        raise GroupError(
            f"the group level needs a subject whose run is complete, got none in {out_dir}. "
            "Run `neuraldiffuser run NSD_DIR OUT_DIR participant` first." + "".join(f" {note}" for note in left_out)
        )
    return found, left_out


def failed_notes(subjects: Sequence[SubjectResult]) -> list[str]:
    """Notes on subjects that lack stimuli."""
    return [f"{s.label}: {s.failed} stimuli failed and are in none of its means." for s in subjects if s.failed]


def warned_notes(subjects: Sequence[SubjectResult]) -> list[str]:
    """What the summaries of subjects warn of: that guidance makes their images worse."""
    found = [(s.label, s.summary.get("warnings")) for s in subjects]
    return [f"{label}: {text}" for label, told in found if isinstance(told, list) for text in map(str, told)]


def read_subject(places: Derivatives) -> SubjectResult:
    """Scores, shares and parameters of one subject; GroupError if it is not complete."""
    if not places.folder.is_dir():
        raise GroupError(f"{places.label}: there is no such folder; it is left out. Run the participant level of it.")
    if why := why_incomplete(places):
        raise GroupError(
            f"{places.label}: {why}; it is left out. Run its command again: finished stages are kept, and what is "
            "missing is written."
        )
    summary = json_object(places.summary)
    if summary is None or not _usable(summary):
        raise GroupError(f"{places.label}: {places.summary.name} cannot be read; it is left out. Run it again.")
    failed = read_table(places.failed)
    contribution = read_table(places.contribution_table, ("roi", "target", "share", "n_voxels"))
    scores = read_table(places.scores, ("stim", "rep", "arm"))
    parameters = _parameters(places, summary, contribution)
    return SubjectResult(places, summary, scores, contribution, parameters, 0 if failed is None else len(failed))


def _usable(summary: dict[str, Any]) -> bool:
    """Whether a summary has arms of metrics of figures, and a protocol."""
    if not isinstance(summary.get("protocol"), dict):
        return False
    arms, paired = summary.get("arms", {}), summary.get("paired", {})
    nested = isinstance(arms, dict) and isinstance(paired, dict) and all(isinstance(a, dict) for a in arms.values())
    return bool(arms) and nested and all(isinstance(m, dict) for a in [*arms.values(), paired] for m in a.values())


def read_table(path: Path, needed: Sequence[str] = ()) -> pd.DataFrame | None:
    """A tab-separated table; None where it is not there, cannot be read or lacks a column."""
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a", ""], keep_default_na=False)
    except (OSError, ValueError):  # pandas's own errors of malformed tables are ValueErrors
        return None
    return table if set(needed) <= set(table) else None


def _parameters(places: Derivatives, summary: dict[str, Any], contribution: pd.DataFrame | None) -> dict[str, Any]:
    """Parameters as `stage.name`, from the sidecars; what a sidecar does not say is left out."""
    found = {"evaluation.test images": summary["protocol"].get("n_test_images")}
    if "test_set" in summary["protocol"]:
        found["evaluation.test set"] = summary["protocol"]["test_set"]
    recon = json_object(places.recon_sidecar) or {}
    if "ModelDigest" in recon:
        found |= {"model.name": recon.get("Model"), MODEL: str(recon["ModelDigest"])[:16]}
    found |= _flat("diffusion", recon.get("DiffusionParams"))
    found |= _flat("guidance", _dict(_dict(recon.get("Arms")).get("guided")).get("GuidanceParams"))
    made_by = recon.get("GeneratedBy")
    first = _dict(made_by[0]) if isinstance(made_by, list) and made_by else {}
    found |= _flat("versions", first.get("Versions")) | _flat("versions", _backend(first))
    for path in (places.embeddings, places.contribution_table, places.scores):
        about = json_object(sidecar(path)) or {}
        for stage, values in _dict(about.get("Parameters")).items():
            for name, value in _flat(stage, values).items():
                found.setdefault(name, value)  # the embeddings' word counts: images were made from them
    if contribution is not None and "kind" in contribution and len(contribution):
        found[KIND] = " + ".join(sorted(map(str, contribution["kind"].unique())))
    return found


def _backend(made_by: dict[str, Any]) -> dict[str, Any]:
    return {"kernel backend": made_by["KernelBackend"]} if "KernelBackend" in made_by else {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(stage: str, values: Any) -> dict[str, Any]:
    return {f"{stage}.{name}": value for name, value in _dict(values).items()}


def differing(subjects: Sequence[SubjectResult]) -> dict[str, list[Any]]:
    """Parameters that are not the same in all subjects: name to the value of every subject, in order."""
    names = dict.fromkeys(name for s in subjects for name in s.parameters)
    rows = {name: [s.parameters.get(name, NOT_SAID) for s in subjects] for name in names}
    return {name: values for name, values in rows.items() if any(v != values[0] for v in values)}


def mixed(subjects: Sequence[SubjectResult]) -> tuple[list[str], list[str]]:
    """Why means over subjects make no sense: reasons for scores, and for regions' shares; empty where they do."""
    model = _several(subjects, MODEL, "models")
    scores = [*model]
    if any(s.protocol != subjects[0].protocol for s in subjects):
        names = sorted({name for s in subjects for name in s.protocol})
        parts = [n for n in names if any(s.protocol.get(n) != subjects[0].protocol.get(n) for s in subjects)]
        scores.append(f"scores were computed by different protocols ({', '.join(parts)})")
    return scores, [*model, *_several(subjects, KIND, "kinds of contribution")]


def _several(subjects: Sequence[SubjectResult], name: str, what: str) -> list[str]:
    values: dict[str, list[str]] = {}
    for subject in subjects:
        if name in subject.parameters:
            values.setdefault(str(subject.parameters[name]), []).append(subject.label)
    if len(values) < 2:
        return []
    return [f"subjects have different {what}: " + "; ".join(f"{v} in {', '.join(who)}" for v, who in values.items())]
