"""The group level: means over subjects, how sure they are, and one page; from the files of finished subjects alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from napari_neuraldiffuser.core.base.files import atomic_path, make_folder, write_json
from napari_neuraldiffuser.core.base.names import KINDS, sidecar
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation.controls import CONTROLS
from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.ruin import harm
from napari_neuraldiffuser.core.outputs.columns import columns
from napari_neuraldiffuser.core.outputs.description import generated_by, versions, write_about, write_description
from napari_neuraldiffuser.core.outputs.group.inputs import (
    GroupError,
    SubjectResult,
    differing,
    failed_notes,
    finite,
    mixed,
    read_subjects,
    warned_notes,
)
from napari_neuraldiffuser.core.outputs.group.means import (
    arm_over_stimuli,
    difference_over_stimuli,
    mean_and_se,
    paired,
)
from napari_neuraldiffuser.core.outputs.group.page import GroupData, write_page

__all__ = ["GroupError", "GroupResult", "write_group"]

REMEDY = "Run them again with the same command, or name those that agree with --participant-label."


@dataclass(frozen=True)
class GroupResult:
    """What was written, what readers should know of it, and a sentence about each subject that is not in it."""

    page: Path
    table: Path
    summary: Path
    contribution: Path
    notes: list[str]
    left_out: list[str]


def write_group(out_dir: str | Path, labels: Sequence[str] | None = None, progress: Progress = silent) -> GroupResult:
    """Put the subjects of an output folder together.

    Writes `group_desc-recon_scores.tsv` (every subject's means), `group_desc-summary_scores.json` (means and standard
    errors over subjects), `group_contribution.tsv` (regions' shares over subjects) and `group.html`.  Means are refused
    where subjects have different models or protocols; then the tables and the page have the subjects alone.

    Parameters
    ----------
    out_dir : str or Path
        Output folder of the participant level.
    labels : sequence of str, optional
        Subjects, as "01", "subj01" or "sub-01"; all there are where None or empty.
    progress : callable

    Raises
    ------
    GroupError
        If no subject is complete.
    OutputError
        If the folder cannot be written.
    """
    out_dir = Path(out_dir)
    progress(0, 2, "group")
    subjects, left_out = read_subjects(out_dir, labels)
    no_scores, no_shares = mixed(subjects)
    table, shares = scores_table(subjects), group_shares([] if no_shares else subjects)
    summary = summarise(subjects, averaged=not no_scores)
    warnings = [*summary["warnings"], *warned_notes(subjects)]
    notes = [*left_out, *failed_notes(subjects), *_refusals(no_scores, no_shares), *warnings]
    summary |= {"notes": notes, "warnings": warnings}
    make_folder(out_dir)
    result = GroupResult(
        page=out_dir / KINDS["group page"].path,
        table=out_dir / KINDS["group scores"].path,
        summary=out_dir / KINDS["group summary"].path,
        contribution=out_dir / KINDS["group shares"].path,
        notes=notes,
        left_out=left_out,
    )
    _write_tables(result, subjects, (table, shares, summary))
    if not (out_dir / KINDS["description"].path).is_file():
        write_description(out_dir)
    write_about(out_dir)
    progress(1, 2, "group")
    data = GroupData(subjects, summary, shares, differing(subjects), notes, versions())
    write_page(result.page, data)
    progress(2, 2, "group")
    return result


def _refusals(no_scores: list[str], no_shares: list[str]) -> list[str]:
    """Why there are no means, each reason once."""
    what = {why: "scores" for why in no_scores}
    what |= {why: "scores and shares" if why in no_scores else "shares" for why in no_shares}
    return [f"No means of {which} over subjects: {why}. {REMEDY}" for why, which in what.items()]


def scores_table(subjects: Sequence[SubjectResult]) -> pd.DataFrame:
    """One row per subject, arm or control, and metric: participant_id, arm, metric, mean, se, n."""
    rows = [
        (s.label, arm, metric, s.value(arm, metric), s.value(arm, metric, "se"), s.value(arm, metric, "n"))
        for s in subjects
        for arm in s.summary["arms"]
        for metric in s.summary["arms"][arm]
    ]
    rows += [
        (s.label, name, metric, s.control(name, metric), s.control(name, metric, "se"), s.control(name, metric, "n"))
        for s in subjects
        for name in CONTROLS
        for metric in s.metrics
        if s.control(name, metric) is not None
    ]
    table = pd.DataFrame(rows, columns=["participant_id", "arm", "metric", "mean", "se", "n"])
    return table.astype({"mean": float, "se": float, "n": "Int64"})


def summarise(subjects: Sequence[SubjectResult], averaged: bool = True) -> dict[str, Any]:
    """Means and standard errors over subjects.

    Returns
    -------
    dict
        {"subjects", "averaged", "protocol", "arms", "paired", "controls", "warnings"}: as a subject's summary, with
        "n" subjects instead of stimuli.  "se_stimuli" is the error over stimuli, of these subjects
        (`means.over_stimuli`); "paired" has how many subjects' guided scores are worse, and in how many the difference
        is clear by itself (`means.paired`).  No arms where not `averaged`.
    """
    summary: dict[str, Any] = {"subjects": [s.label for s in subjects], "averaged": averaged}
    if not averaged:
        return summary | {"protocol": {}, "arms": {}, "paired": {}, "controls": {}, "warnings": []}
    metrics = list(dict.fromkeys(m for s in subjects for m in s.metrics))
    arms = [arm for arm in dict.fromkeys([*ARMS, *(a for s in subjects for a in s.summary["arms"])])]
    tables = [s.scores for s in subjects]
    found = {arm: {m: mean_and_se([s.value(arm, m) for s in subjects]) for m in metrics} for arm in arms}
    found = {
        arm: {m: v | arm_over_stimuli(tables, arm, m) for m, v in values.items() if v["n"]}
        for arm, values in found.items()
    }
    differences = {m: paired([s.summary for s in subjects], m) for m in metrics}
    differences = {m: v | difference_over_stimuli(tables, m) for m, v in differences.items() if v["n"]}
    told = harm({m: _over_stimuli(v) for m, v in differences.items()})
    return summary | {
        "protocol": subjects[0].protocol,
        "arms": {arm: values for arm, values in found.items() if values},
        "paired": differences,
        "controls": _controls(subjects, metrics),
        "warnings": [told] if told else [],
    }


def _over_stimuli(paired: dict[str, Any]) -> Difference:
    """The difference with its error over stimuli, as subjects are few; over subjects where that is not known."""
    if paired["se_stimuli"] is None:
        return Difference.of_summary(paired, "subjects")
    return Difference(paired["mean"], paired["se_stimuli"], paired["n_stimuli"])


def _controls(subjects: Sequence[SubjectResult], metrics: Sequence[str]) -> dict[str, Any]:
    """Pictures that take no diffusion, as `summarise_controls` has them, over the subjects whose files have them."""
    found: dict[str, Any] = {}
    for name, (words, _) in CONTROLS.items():
        parts = {
            part: {m: mean_and_se([s.control(name, m, part=part) for s in subjects]) for m in metrics}
            for part in ("scores", "paired")
        }
        known = {part: {m: v for m, v in values.items() if v["n"]} for part, values in parts.items()}
        if known["scores"]:
            found[name] = {"label": words, **known}
    return found


SHARE_COLUMNS = ["roi", "target", "share", "se", "n_subjects", "family"]


def group_shares(subjects: Sequence[SubjectResult]) -> pd.DataFrame:
    """Mean share of every region and target over the subjects in which the region has voxels.

    A region that a subject lacks has share 0 there by definition, which says nothing of the region.
    """
    tables = [s.contribution for s in subjects if s.contribution is not None]
    if not tables:
        return pd.DataFrame(columns=SHARE_COLUMNS)
    tables = [table if "family" in table else table.assign(family="regions") for table in tables]
    every = pd.concat([table[table.n_voxels > 0] for table in tables], ignore_index=True)
    rows = []
    for (family, roi, target), part in every.groupby(["family", "roi", "target"], sort=False):
        about = mean_and_se([finite(v) for v in part.share])
        rows.append((roi, target, about["mean"], about["se"], about["n"], family))
    return pd.DataFrame(rows, columns=SHARE_COLUMNS).astype({"share": float, "se": float})


def _write_tables(
    result: GroupResult, subjects: Sequence[SubjectResult], contents: tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]
) -> None:
    """Both tables, their sidecars, and the summary."""
    table, shares, summary = contents
    sources = {
        result.table: [s.places.uri(s.places.summary) for s in subjects],
        result.contribution: [
            s.places.uri(s.places.contribution_table) for s in subjects if s.contribution is not None
        ],
    }
    definitions = summary["protocol"].get("metrics", {})
    described = {
        result.table: "Scores of every subject; mean and standard error over its stimuli.",
        result.contribution: "Mean share of each region's voxels in the prediction of each target, over subjects.",
    }
    made_by = generated_by(kernels=False)
    for path, content in ((result.table, table), (result.contribution, shares)):
        with atomic_path(path) as temporary:
            content.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
        about = {"Description": described[path], **columns(content.columns, definitions)}
        write_json(sidecar(path), {"GeneratedBy": made_by, **about, "Sources": sources[path]})
    write_json(result.summary, {**summary, "GeneratedBy": made_by, "Sources": sources[result.table]})
