"""The page's table of what decoded values are worth, in text and bars."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from napari_neuraldiffuser.core.decoding.worth.columns import COLUMNS, N_A, notes

HEADS = {
    # column of the page -> columns of the table whose definitions are its tip
    "correlation": ("r",),
    "pattern correlation": ("pattern_r",),
    "R²": ("r2",),
    "ceiling of R²": ("r2_ceiling",),
    "R² / ceiling": ("r2_over_ceiling",),
    "two-way": ("two_way", "two_way_p"),
    "n / d": ("n_over_d",),
    "R² of the span": ("mse_projected",),
}


@dataclass(frozen=True)
class Cell:
    """Text, the value that a sortable table sorts by, and the width of a bar in percent; -1 for none."""

    text: str
    value: float
    bar: float = -1.0

    @property
    def sort(self) -> str:
        """The value as text, empty where there is none."""
        return "" if self.value != self.value else f"{self.value:.6g}"


def worth_table(table: pd.DataFrame) -> dict[str, Any]:
    """Heads with their tips, rows of cells by target, and sentences; nothing of an empty table."""
    rows = table.to_dict("records")
    heads = [{"name": head, "tip": " ".join(COLUMNS[c][0] for c in columns)} for head, columns in HEADS.items()]
    return {
        "heads": heads,
        "rows": [{"target": row["target"], "cells": _cells(row)} for row in rows],
        "notes": notes(rows),
    }


def _cells(row: dict[str, Any]) -> list[Cell]:
    span = 1 - row["mse_projected"] / row["mse_mean"]
    p = "" if row["two_way_p"] != row["two_way_p"] else f", p {_p(row['two_way_p'])}"
    return [
        _bar(row["r"]),
        _bar(row["pattern_r"], row["pattern_r_se"]),
        _bar(row["r2"], row["r2_se"]),
        _bar(row["r2_ceiling"]),
        _bar(row["r2_over_ceiling"]),
        # half of the bar is chance
        Cell(_text(row["two_way"], row["two_way_se"]) + p, row["two_way"], _width(row["two_way"])),
        Cell(f"{row['n_over_d']:.2g}" if row["n_over_d"] == row["n_over_d"] else N_A, row["n_over_d"]),
        _bar(span),
    ]


def _bar(value: float, se: float = float("nan")) -> Cell:
    return Cell(_text(value, se), value, _width(value))


def _text(value: float, se: float) -> str:
    if value != value:
        return N_A
    return f"{value:.3f}" + (f" ± {se:.3f}" if se == se else "")


def _width(value: float) -> float:
    return 100 * min(max(value, 0.0), 1.0) if value == value else 0.0


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
