"""Names of labels from the tables that lie beside volumes: BIDS's, FreeSurfer's and ITK-SNAP's."""

import re
from collections.abc import Iterable
from pathlib import Path

from napari_neuraldiffuser.core.base.tables import read_table, read_text, spelled, text_column, whole_column
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

ITK_SNAP = re.compile(r'(\d+)\s+\d+\s+\d+\s+\d+\s+[\d.]+\s+[01]\s+[01]\s+"(.*)"')
"""Number, red, green, blue, opacity, two flags, name."""
NUMBERED = re.compile(r"(\d+)[\s,;]+(\S.*)")
COLOURS = (5, 4, 3)
"""How many numbers may follow a name: FreeSurfer's colour, opacity and tissue; without tissue; the colour alone."""
EVERYTHING = ".txt"
"""Look-up tables of this ending name all labels there are: a volume has few of them.  Notes may have it too."""


def beside(volume: Path, stem: str, present: Iterable[int]) -> dict[int, str]:
    """Names of the labels of a volume from the first table beside it that is named `stem`; empty without one.

    Parameters
    ----------
    volume : Path
    stem : str
        The volume's name without its ending.
    present : iterable of int
        The labels that occur in it.

    Raises
    ------
    NSDError
        If the table is none; a text of that name that is no table at all is passed over.
    """
    for suffix in (".tsv", ".csv", ".ctab", ".mgz.ctab", ".label", EVERYTHING):
        table = volume.with_name(stem + suffix)
        if table.is_file() and not (suffix == EVERYTHING and _is_prose(table)):
            names = read_dseg_table(table) if suffix in (".tsv", ".csv") else parse_label_table(table)
            occurring = set(present)
            return {k: name for k, name in names.items() if suffix != EVERYTHING or k in occurring}
    return {}


def read_dseg_table(path: str | Path) -> dict[int, str]:
    """Name of each label of a BIDS table with columns `index` and `name`; an NSDError for another one."""
    table = read_table(path, ("index", "name"), error=NSDError)
    numbers = whole_column(table, "index", path, NSDError).tolist()
    return _once_each(zip(numbers, text_column(table, "name", path, NSDError), strict=True), path)


def parse_label_table(path: str | Path) -> dict[int, str]:
    """Name of each label of a table of FreeSurfer, ITK-SNAP or NSD (`NAME.mgz.ctab`): a number, a name, colours.

    Names may have spaces, and quotes around them; colours and comments are left out.

    Raises
    ------
    NSDError
        If a line does not start with a number, or two lines name one number differently.
    """
    lines = _lines(read_text(path, "a label table", NSDError))
    rows: list[tuple[int, str]] = []
    for line in lines:
        match = ITK_SNAP.fullmatch(line) or NUMBERED.fullmatch(line)
        if not match:
            raise NSDError(f"label table lines must be '<number> <name>', got {line!r} in {path}. Correct the line.")
        rows.append((int(match[1]), match[2] if match.re is NUMBERED else f'"{match[2]}"'))
    return _once_each(zip((k for k, _ in rows), _without_colours([rest for _, rest in rows]), strict=True), path)


def _lines(text: str) -> list[str]:
    """Lines that say something, less comments."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "%", "//"))]


def _is_prose(path: Path) -> bool:
    """Whether fewer than half of a text's lines are a label's number and name; what is no text at all is not judged."""
    if not path.stat().st_size:
        return True
    try:
        lines = _lines(read_text(path, error=NSDError))
    except NSDError:
        return False
    return not lines or 2 * sum(NUMBERED.fullmatch(line) is not None for line in lines) < len(lines)


def _once_each(rows: Iterable[tuple[int, str]], path: str | Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, name in rows:
        if names.setdefault(number, spelled(name)) != spelled(name):
            raise NSDError(
                f"{path} must name each label once, got {names[number]!r} and {name!r} for {number}. Remove one line."
            )
    return names


def _without_colours(texts: list[str]) -> list[str]:
    """Names, from what follows the numbers of a table.

    Where quotes or tabs say where a name ends, they do.  Else the numbers at the ends of the lines are colours, as many
    as all lines with colours have; where a name ends in a number too (`Area 1 70 130 180 0`), names that would be
    double without it keep it.
    """
    parts = [_marked(text) or _spaced(text) for text in texts]
    widths = [len(numbers) for _, numbers in parts if len(numbers) >= COLOURS[-1]]
    fewest = min(widths, default=0)
    guesses = [[_name(words, numbers, n) for words, numbers in parts] for n in COLOURS if n <= fewest]
    unique = [names for names in guesses if len(set(names)) == len(names)]
    return [*unique, *guesses, [_name(words, numbers, 0) for words, numbers in parts]][0]


def _name(words: list[str], numbers: list[str], n_colours: int) -> str:
    """The words, and those numbers that are no colours."""
    kept = len(numbers) - n_colours if len(numbers) >= COLOURS[-1] and n_colours else len(numbers)
    return " ".join([*words, *numbers[:kept]]) or " ".join(numbers)


def _marked(text: str) -> tuple[list[str], list[str]] | None:
    """A name in quotes or before a tab, and nothing more; None where spaces alone separate."""
    quoted = re.match(r'"([^"]*)"', text)
    if quoted:
        return [quoted[1].strip()], []
    cells = [cell.strip() for cell in text.split("\t") if cell.strip()]
    colours = " ".join(cells[1:]).split()
    if len(cells) > 1 and len(colours) >= COLOURS[-1] and all(map(_is_number, colours)):
        return [" ".join(cells[0].split())], []
    return None


def _spaced(text: str) -> tuple[list[str], list[str]]:
    """The words of a line and, apart, the numbers that it ends with; the first word is one whatever it is."""
    words = text.split()
    n = next((k for k, word in enumerate(reversed(words[1:])) if not _is_number(word)), len(words) - 1)
    return words[: len(words) - n], words[len(words) - n :]


def _is_number(word: str) -> bool:
    return re.fullmatch(r"\d{1,3}(\.\d+)?", word) is not None
