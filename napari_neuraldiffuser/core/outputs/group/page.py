"""The group's page: one self-contained HTML file over all subjects (no network)."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import file_digest
from napari_neuraldiffuser.core.base.pictures import PictureError, read_picture
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation.controls import START, control_of, gain_over, not_beaten
from napari_neuraldiffuser.core.evaluation.differences import CLEAR, Difference
from napari_neuraldiffuser.core.evaluation.levels import CEILING_TEXT, CHANCE_TEXT, ceiling_of, level
from napari_neuraldiffuser.core.evaluation.metric import label, lower_is_better, main_figures
from napari_neuraldiffuser.core.outputs.group.inputs import KIND, SubjectResult, finite
from napari_neuraldiffuser.core.outputs.report.page import SHARE_TEXT, number, write_template
from napari_neuraldiffuser.core.outputs.report.parts import data_uri, heat_tables, png_uri

SHOWN = 9
"""Stimuli on the wall: a third of them the best, a third from the middle, a third the worst."""
COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7b5ea7", "#d99a2b", "#3d5a80", "#b5446e", "#6b705c")
WALL_TEXT = (
    "Test stimuli that all subjects share, and everybody's first guided repeat: those with the highest, middle and "
    "lowest mean guided PixCorr, chosen by the figure and not by eye. Below each image: PixCorr of that subject and "
    "stimulus, mean over repeats."
)


@dataclass(frozen=True)
class GroupData:
    """What the page shows.

    Attributes
    ----------
    subjects : sequence of SubjectResult
    summary : dict
        `group.summarise`.
    shares : DataFrame
        `group.group_shares`.
    differing : dict of str to list
        `inputs.differing`.
    notes : list of str
    versions : dict
        Of what made this page.
    """

    subjects: Sequence[SubjectResult]
    summary: dict[str, Any]
    shares: pd.DataFrame
    differing: dict[str, list[Any]]
    notes: list[str]
    versions: dict[str, str]


def write_page(path: Path, data: GroupData) -> None:
    """Write the page, atomically.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    write_template("group.html", page_values(data), path)


def page_values(data: GroupData) -> dict[str, Any]:
    """The template's variables."""
    metrics = list(dict.fromkeys(m for s in data.subjects for m in s.metrics))
    rows = [_summary_row(data, m) for m in metrics if data.summary["averaged"]]
    definitions, main = data.summary["protocol"].get("metrics", {}), main_figures(metrics)
    kind = str(data.subjects[0].parameters.get(KIND, "product-measure"))
    return {
        "n": len(data.subjects),
        "averaged": data.summary["averaged"],
        "notes": data.notes,
        "subjects": [{"label": s.label, "page": _link(s)} for s in data.subjects],
        "labels": {m: label(m) for m in [*metrics, *definitions]},
        "metrics": metrics,
        "cards": [row for row in rows if row["metric"] in main],
        "summary_rows": rows,
        "plot": dot_plot(data.subjects, main or metrics, data.summary),
        "table": [_table_row(s, arm, metrics) for s in data.subjects for arm in s.summary["arms"]],
        "heats": _heats(data.shares),
        "share_text": SHARE_TEXT.get(kind, ""),
        "definitions": definitions,
        "levels": [CHANCE_TEXT, CEILING_TEXT, *_definitions(data.subjects)],
        "controls": {name: about["label"] for name, about in data.summary["controls"].items()},
        "not_beaten": not_beaten(data.summary),
        "clear": CLEAR.replace("stimuli", "subjects"),
        "differing": [{"name": name, "values": _odd(values)} for name, values in data.differing.items()],
        "same": _same(data) | {"made by": data.versions},
        "wall": wall(data.subjects),
        "wall_text": WALL_TEXT,
    }


def _link(subject: SubjectResult) -> str:
    """The subject's page beside this one; none where there is none."""
    return subject.places.page.name if subject.places.page.is_file() else ""


def _summary_row(data: GroupData, metric: str) -> dict[str, Any]:
    """One score of both arms over subjects, between its chance level and its ceiling, and their paired difference."""
    summary = data.summary
    arms = {arm: summary["arms"].get(arm, {}).get(metric, {}) for arm in ARMS}
    paired = summary["paired"].get(metric, {})
    return {
        "metric": metric,
        "name": label(metric),
        "lower": lower_is_better(metric),
        "unguided": number(arms["unguided"].get("mean")),
        "guided": number(arms["guided"].get("mean")),
        "chance": {arm: _mean_level([s.value(arm, metric, "chance") for s in data.subjects]) for arm in ARMS},
        "ceiling": _mean_level([finite(ceiling_of(s.summary, metric)) for s in data.subjects]),
        "spreads": {arm: _spread(values.get("se")) for arm, values in arms.items()},
        "difference": Difference.of_summary(paired, "subjects") if paired.get("mean") is not None else None,
        "n": paired.get("n"),
        "n_worse": paired.get("n_worse"),
        "here": _here(paired),
        "clear_in": _clear_in(paired),
        "controls": {name: _figure(control_of(summary, name, metric)) for name in summary["controls"]},
        "gain": gain_over(summary, START, metric),
    }


def _here(paired: dict[str, Any]) -> Difference | None:
    """The difference with its error over stimuli, which holds for these subjects."""
    if paired.get("mean") is None or paired.get("se_stimuli") is None:
        return None
    return Difference(paired["mean"], paired["se_stimuli"], paired["n_stimuli"])


def _clear_in(paired: dict[str, Any]) -> str:
    """In how many subjects the difference is clear by itself, for the better and for the worse."""
    better, worse = paired.get("n_better_clear", 0), paired.get("n_worse_clear", 0)
    return f"better in {better}" + (f", worse in {worse}" if worse else "")


def _figure(values: dict[str, Any]) -> str:
    return "" if not values else f"{number(values.get('mean'))} {_spread(values.get('se'))}"


def _definitions(subjects: Sequence[SubjectResult]) -> list[str]:
    """What the pictures that take no diffusion are, each once."""
    told = [s.summary["protocol"].get("controls") for s in subjects]
    return list(dict.fromkeys(text for one in told if isinstance(one, dict) for text in map(str, one.values())))


def _mean_level(values: Sequence[float | None]) -> str:
    """Mean over the subjects whose files have a level."""
    known = [value for value in values if value is not None]
    return level(float(np.mean(known)) if known else None)


def _spread(se: float | None) -> str:
    return "" if se is None else f"± {se:.3f}"


def _table_row(subject: SubjectResult, arm: str, metrics: list[str]) -> dict[str, Any]:
    values = [(subject.value(arm, m), subject.value(arm, m, "se")) for m in metrics]
    numbers = [subject.value(arm, m, "n") for m in metrics]
    return {
        "label": subject.label,
        "page": _link(subject),
        "arm": arm,
        "n": max((int(n) for n in numbers if n is not None), default=0),
        "cells": [
            {"text": number(mean), "se": _spread(se), "sort": "" if mean is None else f"{mean:.6f}"}
            for mean, se in values
        ],
    }


def _odd(values: list[Any]) -> list[dict[str, Any]]:
    """Values of one parameter as text, and whether most subjects have another."""
    texts = [str(value) for value in values]
    usual, _ = Counter(texts).most_common(1)[0]
    return [{"text": text, "odd": text != usual} for text in texts]


def _same(data: GroupData) -> dict[str, dict[str, Any]]:
    """Parameters that all subjects have in common, by stage."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in data.subjects[0].parameters.items():
        if name not in data.differing:
            stage, short = name.split(".", 1)
            groups.setdefault(stage, {})[short] = value
    return groups


def _heats(shares: pd.DataFrame) -> dict[str, Any]:
    """One table per family, of the regions that have every target; one that varies in no subject has no shares."""
    whole = shares[shares.groupby(["family", "roi"]).target.transform("nunique") == shares.target.nunique()]
    return {} if whole.empty else heat_tables(whole.rename(columns={"n_subjects": "n_voxels"}))


def dot_plot(subjects: Sequence[SubjectResult], metrics: list[str], summary: dict[str, Any]) -> str | None:
    """Every subject's unguided and guided mean, joined by a line; one panel per metric."""
    arms = [arm for arm in ARMS if any(arm in s.summary["arms"] for s in subjects)]
    if not arms or not metrics:
        return None
    from matplotlib.figure import Figure

    columns = min(len(metrics), 6)
    figure = Figure(figsize=(2.05 * columns, 3.1), layout="constrained", dpi=110)
    for axis, metric in zip(np.atleast_1d(figure.subplots(1, columns)), metrics, strict=False):
        for k, subject in enumerate(subjects):
            values = [np.nan if (v := subject.value(arm, metric)) is None else v for arm in arms]
            axis.plot(range(len(arms)), values, "o-", color=COLOURS[k % len(COLOURS)], ms=5, lw=1.3, alpha=0.85)
        _draw_mean(axis, arms, metric, summary)
        axis.set_title(label(metric), fontsize=9)
        axis.set_xticks(range(len(arms)), arms, fontsize=8)
        axis.set_xlim(-0.35, len(arms) - 0.65)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", labelsize=8)
        axis.locator_params(axis="y", nbins=5)
    _legend(figure, subjects)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return png_uri(stream.getvalue())


def _draw_mean(axis: Any, arms: list[str], metric: str, summary: dict[str, Any]) -> None:
    for x, arm in enumerate(arms):
        about = summary["arms"].get(arm, {}).get(metric)
        if about and about["n"] > 1:
            side = x + (0.17 if x else -0.17)  # beside the dots, not on them
            axis.errorbar(side, about["mean"], about["se"], fmt="_", color="black", ms=9, mew=2, capsize=3, zorder=5)


def _legend(figure: Any, subjects: Sequence[SubjectResult]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=COLOURS[k % len(COLOURS)], marker="o", ms=5) for k in range(len(subjects))]
    figure.legend(lines, [s.label for s in subjects], loc="outside lower center", ncols=8, fontsize=8, frameon=False)


def wall(subjects: Sequence[SubjectResult]) -> dict[str, Any]:
    """The same stimuli over all subjects, a row for what was seen and one for every subject; empty without any."""
    means = [mean for mean in map(_guided, subjects) if mean is not None]
    if len(means) < len(subjects):
        return {}
    shared = pd.concat(means, axis=1, join="inner").mean(axis=1).dropna().sort_values(ascending=False, kind="stable")
    places = _spread_out(len(shared))
    ids = [int(shared.index[place]) for place, _ in places]
    if not all(_same_picture([s.places.shown(i, "seen") for s in subjects]) for i in ids):
        return {}  # ids of own scans are indices, which stand for other images in other subjects
    rows = [_wall_row("seen", "", [subjects[0].places.shown(s, "seen") for s in ids], [""] * len(ids))]
    for subject, own in zip(subjects, means, strict=True):
        pictures = [subject.places.image(s, 1, "guided") for s in ids]
        rows.append(_wall_row(subject.label, _link(subject), pictures, [f"{own[s]:.2f}" for s in ids]))
    return {"heads": [f"{s}, {word}" for s, (_, word) in zip(ids, places, strict=True)], "rows": rows} if ids else {}


def _same_picture(paths: list[Path]) -> bool:
    """Whether the files that are there have the same content."""
    return len({file_digest(path) for path in paths if path.is_file()}) < 2


def _wall_row(label: str, page: str, paths: list[Path], texts: list[str]) -> dict[str, Any]:
    cells = [{"src": _picture(path), "text": text} for path, text in zip(paths, texts, strict=True)]
    return {"label": label, "page": page, "cells": cells}


def _guided(subject: SubjectResult) -> pd.Series | None:
    """Mean guided PixCorr of every stimulus."""
    if subject.scores is None or "pixcorr" not in subject.scores:
        return None
    guided = subject.scores[subject.scores.arm == "guided"]
    return None if guided.empty else guided.groupby("stim").pixcorr.mean()


def _spread_out(n: int) -> list[tuple[int, str]]:
    """Places from the top, the middle and the bottom of a list of `n`, each once."""
    third = SHOWN // 3
    middle = max((n - third) // 2, 0)
    parts = {"best": range(third), "middle": range(middle, middle + third), "worst": range(n - third, n)}
    found: dict[int, str] = {}
    for word, places in parts.items():
        for place in places:
            if 0 <= place < n:
                found.setdefault(place, word)
    return sorted(found.items())


def _picture(path: Path) -> str:
    """An image as the page holds it; nothing where it cannot be read."""
    try:
        return data_uri(read_picture(path))
    except PictureError:
        return ""
