"""Tables that others wrote, as text: a cell means what it says, and only `n/a` and empty ones are missing (BIDS)."""

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import file_trouble

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MISSING = ("", "n/a")
FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
FIRST_LINE = re.compile(r"[^\r\n]*\S[^\r\n]*")
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte-order marks that spreadsheets put first, and the encoding that they announce."""


class TableError(UserError):
    """A table cannot be read as it is; the message names it, the rule and the remedy."""


def read_text(path: str | Path, what: str = "a text file", error: type[UserError] = TableError) -> str:
    """Content of a text file in UTF-8, or in UTF-16 with a byte-order mark, without that mark.

    Raises
    ------
    UserError
        Of class `error`: missing, empty, not readable, or in another encoding.
    """
    if trouble := file_trouble(path):
        raise error(f"{path} must be {what}, got {trouble}")
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise error(f"{path} must be text in UTF-8, got other bytes in line {line}. Save it as UTF-8.") from problem


def read_table(
    path: str | Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    error: type[UserError] = TableError,
    *,
    wide: bool = False,
) -> "pd.DataFrame":
    """A table with a header, separated by tabs, commas or semicolons.

    Parameters
    ----------
    path : path
    needed, optional : sequence of str
        Columns that must, and may, be there; the case of their letters and the order do not matter.
    error : type
        Class of the error that is raised.
    wide : bool
        For tables of many columns: quicker, but rows with too many cells go unnoticed.

    Returns
    -------
    pandas.DataFrame
        These columns, every cell as text without spaces around it, missing ones as NaN; rows of nothing else are left
        out.

    Raises
    ------
    UserError
        Of class `error`: unreadable, without rows, a column that is missing or double, rows of differing lengths, a
        quote that holds a line break or a tab of a table of tabs.
    """
    import pandas as pd

    text = read_text(path, "a table", error)
    first = FIRST_LINE.search(text)
    if not first:
        raise error(f"{path} must have the columns {', '.join(needed)}, got blank lines. Choose another table.")
    header = first[0]
    separator = _separator(header, needed)
    try:
        names, places = _columns(header, separator, path, (*needed, *optional), error)
        if missing := [name for name in needed if name not in places]:
            raise error(
                f"{path} must have the columns {', '.join(needed)}, got no {', '.join(missing)} but "
                f"{', '.join(map(repr, names))} (separated by {SEPARATORS[separator]}). "
                f"{'Correct its header' if len(names) > 1 else 'Separate its columns by tabs'}."
            )
        told = {"header": None, "dtype": str, "keep_default_na": False, "usecols": [*places.values()] if wide else None}
        table = pd.read_csv(io.StringIO(text), sep=separator, **told)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as problem:
        said = str(problem).removeprefix("Error tokenizing data. C error: ").strip()
        raise error(f"{path} must be a table of rows of one length, got: {said}. Correct it.") from problem
    if '"' in text:
        _check_quotes(table, separator, path, error)
    table = pd.DataFrame({name: table[place].iloc[1:].str.strip() for name, place in places.items()})
    table = table.mask(table.isin(MISSING)).dropna(how="all").reset_index(drop=True)
    if not len(table):
        raise error(f"{path} must have rows below its header, got none. Choose the table that was filled in.")
    return table


def column_names(path: str | Path, needed: Sequence[str], error: type[UserError] = TableError) -> list[str]:
    """Names of all columns of a table that has those that are `needed`, in their order, each once."""
    first = FIRST_LINE.search(read_text(path, "a table", error))
    header = first[0] if first else ""
    return list(dict.fromkeys(_columns(header, _separator(header, needed), path, (), error)[0])) if header else []


def whole_column(
    table: "pd.DataFrame", column: str, path: str | Path, error: type[UserError] = TableError
) -> "np.ndarray":
    """A column as whole numbers (n,) int64; an `error` names the first row that holds something else."""
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(numbers) | (numbers != np.rint(numbers))
    if wrong.any():
        raise _cell_error(table, column, wrong, "whole numbers", path, error)
    return numbers.astype(np.int64)


def text_column(
    table: "pd.DataFrame", column: str, path: str | Path, error: type[UserError] = TableError
) -> "pd.Series":
    """A column as labels in one spelling (see `spelled`); an `error` names the first row without one."""
    missing = table[column].isna().to_numpy()
    if missing.any():
        raise _cell_error(table, column, missing, "a label in every row", path, error)
    return table[column].map(spelled)


def flag_column(
    table: "pd.DataFrame", column: str, path: str | Path, error: type[UserError] = TableError
) -> list[bool | None]:
    """A column of 0/1 or true/false, None where a cell is missing; an `error` names the first row of something else."""
    words = table[column].str.strip().str.lower()
    wrong = (words.notna() & ~words.isin(list(FLAGS))).to_numpy()
    if wrong.any():
        raise _cell_error(table, column, wrong, "0/1 or true/false", path, error)
    return [FLAGS.get(word) for word in words]


def spelled(label: str) -> str:
    """A label in Unicode's composed form: disks and programs differ in how they store accents."""
    return unicodedata.normalize("NFC", label)


def _cell_error(
    table: "pd.DataFrame", column: str, wrong: "np.ndarray", rule: str, path: str | Path, error: type[UserError]
) -> UserError:
    row = int(wrong.argmax())
    cell = table[column].iloc[row]
    got = f"{cell!r}" if isinstance(cell, str) else "a missing one"
    more = f" (and in {int(wrong.sum()) - 1} other rows)" if wrong.sum() > 1 else ""
    return error(f"{path} must have {rule} in column {column}, got {got} in row {row + 1}{more}. Correct it.")


def _check_quotes(table: "pd.DataFrame", separator: str, path: str | Path, error: type[UserError]) -> None:
    """A quote that is left open takes all up to the next one into its cell, whole rows too."""
    inside = r"[\r\n\t]" if separator == "\t" else r"[\r\n]"
    broken = table.apply(lambda column: column.str.contains(inside, na=False)).any(axis=1).to_numpy()
    if broken.any():
        row = table.iloc[int(broken.argmax())]
        cell = row[row.str.contains(inside, na=False)].iloc[0]
        raise error(
            f"{path} must have every row in one line, got a quote that goes on over {cell[:60]!r}. Remove the quotation"
            " mark, or the line break or tab in that cell."
        )


def add_flags(
    told: dict[str, bool],
    labels: Iterable[str],
    flags: Iterable[bool | None],
    path: str | Path,
    error: type[UserError] = TableError,
) -> None:
    """Add to `told` which labels are held out, by rows of a table; None says nothing.

    Raises
    ------
    UserError
        Of class `error`, if a label is held out in one row and not in another: what is tested must not be trained on.
    """
    for label, flag in zip(labels, flags, strict=True):
        if flag is not None and told.setdefault(label, flag) != flag:
            raise error(
                f"a stimulus must be held out everywhere or nowhere, got {label!r} as both, last in {path}. Correct "
                "the column."
            )


def _separator(header: str, needed: Sequence[str]) -> str:
    """The separator that gives most of the columns that are needed, else most columns; tabs where nothing speaks."""
    wanted = {name.casefold() for name in needed}

    def found(separator: str) -> tuple[int, int]:
        names = [name.strip(' "').casefold() for name in header.split(separator)]
        return len(wanted & set(names)), len(names)

    return max(SEPARATORS, key=found)


def _columns(
    header: str, separator: str, path: str | Path, wanted: Sequence[str], error: type[UserError]
) -> tuple[list[str], dict[str, int]]:
    """Names of all columns, and the places of those of `wanted` that are there, whatever the case of their letters."""
    import pandas as pd

    cells = pd.read_csv(io.StringIO(header), sep=separator, header=None, dtype=str, keep_default_na=False).iloc[0]
    names = [str(name).strip() for name in cells]
    places: dict[str, int] = {}
    for name in wanted:
        same = [k for k, one in enumerate(names) if one == name]
        same = same or [k for k, one in enumerate(names) if one.casefold() == name.casefold()]
        if len(same) > 1:
            raise error(f"{path} must have one column {name}, got {len(same)}. Remove or rename the others.")
        if same:
            places[name] = same[0]
    return names, places
