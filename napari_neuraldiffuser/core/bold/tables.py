"""Reading BIDS tables: tab-separated, n/a for what is missing, and every other text as it is."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.bold.runs import BoldError


def read_table(path: str | Path, what: str, needed: Collection[str] = ()) -> pd.DataFrame:
    """A table of texts, NaN where it says n/a or nothing.

    Raises
    ------
    BoldError
        If it cannot be read, is separated otherwise, or lacks a column.
    """
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, na_values=["n/a", ""], encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:
        raise BoldError(f"{what} must be a tab-separated table, got {path} ({error}). Correct it.") from error
    table.columns = [str(name).strip() for name in table.columns]
    missing = [name for name in needed if name not in table.columns]
    if missing and len(table.columns) == 1 and "," in table.columns[0]:
        raise BoldError(
            f"{what} must be separated by tabs, got commas in {path}. Save it as tab-separated text (.tsv)."
        )
    if missing or not len(table):
        raise BoldError(f"{what} must have the columns {list(needed)} and rows, got {list(table.columns)} in {path}.")
    return table


def numbers(table: pd.DataFrame, name: str, what: str, path: str | Path) -> np.ndarray:
    """A column as float64, NaN for n/a; a BoldError for a text that is no number."""
    values = pd.to_numeric(table[name], errors="coerce")
    wrong = np.flatnonzero(values.isna() & table[name].notna() & (table[name].str.strip().str.lower() != "nan"))
    if len(wrong):
        raise BoldError(
            f"{what} must have numbers in column {name}, got {table[name].iloc[wrong[0]]!r} in row {wrong[0] + 1} of "
            f"{path}. Correct it."
        )
    return np.array(values, dtype=np.float64)


def listed(text: str) -> list[str]:
    """The parts of a text that commas separate."""
    return [part.strip() for part in text.split(",") if part.strip()]


def matching(columns: Collection[str], patterns: Collection[str]) -> list[str]:
    """Columns that match any of the patterns, in the order of the patterns and then of the table."""
    return list(dict.fromkeys(name for pattern in patterns for name in columns if fnmatchcase(name, pattern)))
