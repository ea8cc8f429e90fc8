"""The page of `neuraldiffuser evaluate`: scores of a folder, of what they are, and what stands beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.evaluation.comparison import PAIRED
from napari_neuraldiffuser.core.evaluation.differences import CLEAR, Difference
from napari_neuraldiffuser.core.evaluation.levels import CHANCE_TEXT
from napari_neuraldiffuser.core.evaluation.metric import label, lower_is_better
from napari_neuraldiffuser.core.evaluation.published import COLUMNS, PROTOCOL, ROWS
from napari_neuraldiffuser.core.outputs.report.page import write_template


def write_folder_page(
    path: str | Path,
    summary: Mapping[str, Any],
    folders: Sequence[str],
    notes: Sequence[str],
    command: str,
    compared: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> Path:
    """Write the page.

    Parameters
    ----------
    path : path
    summary : mapping
        `FolderScores.summary()`.
    folders : sequence of str
        Reconstructions, seen pictures and, where they are compared, other reconstructions.
    notes : sequence of str
    command : str
        What the user typed.
    compared : mapping, optional
        As `comparison.compare` gives it.
    """
    arms, protocol = summary["arms"], summary["protocol"]
    columns = list(dict.fromkeys(column for figures in arms.values() for column in figures))
    here = [column for column in COLUMNS if column in columns]
    values = {
        "title": Path(folders[0]).name,
        "folders": folders,
        "arms": list(arms),
        "rows": [(_name(column), [_figure(arms[arm].get(column, {})) for arm in arms]) for column in columns],
        "compared": {
            arm: [(_name(c), str(Difference.of_summary(d)), d["clear"], d["worse"]) for c, d in figures.items()]
            for arm, figures in (compared or {}).items()
        },
        "paired": PAIRED,
        "clear": CLEAR,
        "published": {name: [f"{row[COLUMNS.index(c)]:.3f}" for c in here] for name, row in ROWS.items()},
        "own": {arm: [_number(arms[arm].get(c, {}).get("mean")) for c in here] for arm in arms},
        "here": [label(c) for c in here],
        "published_protocol": PROTOCOL,
        "chance": CHANCE_TEXT,
        "definitions": {label(c): text for c, text in protocol["metrics"].items()},
        "protocol": protocol,
        "alignment": [
            (
                arm,
                name,
                test["paired"],
                test["at_best"],
                test["best_shift"],
                max(v for v in test["mixed"] if v is not None),
            )
            for arm, tests in summary["alignment"].items()
            for name, test in tests.items()
        ],
        "warnings": summary["warnings"],
        "notes": notes,
        "stimuli": summary["stimuli"],
        "paired_by": summary["paired_by"],
        "command": command,
    }
    write_template("folders.html", values, path)
    return Path(path)


def _name(column: str) -> str:
    return f"{label(column)} (lower is better)" if lower_is_better(column) else label(column)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _figure(one: Mapping[str, Any]) -> str:
    if one.get("mean") is None:
        return "n/a"
    error = "" if one.get("se") is None else f" ± {one['se']:.3f}"
    chance = "" if one.get("chance") is None else f" (chance {one['chance']:.3f})"
    return f"{one['mean']:.3f}{error}{chance}"
