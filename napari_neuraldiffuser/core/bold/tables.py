"""Tables of an experiment: all their columns, numbers in them, and columns that a pattern names."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.tables import column_names, read_table
from napari_neuraldiffuser.core.bold.runs import BoldError


def read_whole(path: str | Path, needed: Sequence[str] = (), *, wide: bool = False) -> pd.DataFrame:
    """All columns of a table as texts, NaN where it says n/a or nothing, by the one rule of all tables.

    `wide` is that of `read_table`: for a table of hundreds of columns that a program wrote.

    Raises
    ------
    BoldError
        If it cannot be read, or lacks a column.
    """
    names = column_names(path, needed, BoldError)
    known = {name.casefold() for name in needed}
    others = [name for name in names if name.casefold() not in known]
    return read_table(path, needed, others, BoldError, wide=wide)


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
