"""Which voxels and which sessions are used: ROI expressions such as `nsdgeneral & V1 + V2`, and lists such as `1-4,7`.

An expression is terms joined by ` + ` (with), ` & ` (only where also) and ` - ` (without), from left to right, with
spaces around the operator.  A term is a family (its voxels > 0), a region (`V1v`, or `floc-faces/FFA-1` where several
families have it), a joined region (`V1` = V1v + V1d, `FFA` = FFA-1 + FFA-2) or the path of a mask that ends as volumes
do (.nii, .nii.gz, .mgz, .mgh).  A term that contains an operator with its spaces goes between double quotes.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.nsd.reading.images import SUFFIXES
from napari_neuraldiffuser.core.nsd.reading.surfaces import read_surface_inside
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, check_grid, read_inside
from napari_neuraldiffuser.core.nsd.rois import Rois

GRAMMAR = "Join terms by ' + ' (with), ' & ' (only where also) and ' - ' (without), from left to right, no brackets"
OPERATOR = re.compile(r'\s+([+&-])\s+(?=(?:[^"]*"[^"]*")*[^"]*$)')
"""An operator between spaces that an even number of quotes follows, so that quoted text is left alone."""

PART = re.compile(r"(?:(.*\d)[vd]|(.+)-\d+)")
"""Parts of one region: ventral and dorsal (V1v, V1d), or numbered along the cortex (FFA-1, FFA-2)."""

JOIN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": np.logical_or,
    "&": np.logical_and,
    "-": lambda chosen, term: chosen & ~term,
}
"""How a term joins what stands before it."""


@dataclass(frozen=True)
class Term:
    """One term of an expression and how it joins what stands before it: "+", "&" or "-"."""

    name: str
    operator: str = "+"

    @property
    def is_mask(self) -> bool:
        """Whether the term is the path of a mask."""
        return self.name.lower().endswith(SUFFIXES)


class Selectable(ABC):
    """What has regions on one grid."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid."""

    @property
    @abstractmethod
    def affine(self) -> np.ndarray | None:
        """Voxel to millimetres, (4, 4); None on a surface."""

    @abstractmethod
    def roi_names(self) -> list[str]:
        """The families of regions."""

    @abstractmethod
    def rois(self, name: str) -> Rois:
        """One family; an unknown name is an NSDError."""

    @cached_property
    def _regions(self) -> dict[str, tuple[str, ...]]:
        return {}

    def regions(self, family: str) -> tuple[str, ...]:
        """Names of the regions of one family; its volume is read the first time only."""
        if family not in self._regions:
            self._regions[family] = tuple(self.rois(family).names.values())
        return self._regions[family]


def as_term(name: str | Path) -> str:
    """A family, a region or the path of a mask as it stands in an expression: in double quotes where it needs them.

    Raises
    ------
    NSDError
        If no way of writing it is read as that name.
    """
    text = str(name)
    for written in (text, f'"{text}"'):
        with suppress(NSDError):
            if parse(written) == [Term(text)]:
                return written
    raise NSDError(f"roi must have terms that can be written in it, got {text!r}. Rename it without double quotes.")


def unparse(terms: Sequence[Term]) -> str:
    """The expression that `parse` reads as these terms, of which the first joins by "+"."""
    return "".join(f" {term.operator} {as_term(term.name)}" for term in terms).removeprefix(" + ")


def with_masks(expression: str, change: Callable[[str], str]) -> str:
    """The expression with `change(path)` for the path of every mask; as it was written where that changes none."""
    terms = parse(expression)
    changed = [replace(term, name=change(term.name)) if term.is_mask else term for term in terms]
    return expression if changed == terms else unparse(changed)


def parse(expression: str) -> list[Term]:
    """Terms of an ROI expression, in order.

    Raises
    ------
    NSDError
        If a term or an operator is missing, or a quote is not closed.
    """
    if expression.count('"') % 2:
        raise NSDError(f'roi must close every double quote, got {expression!r}. Put " at both ends of a path.')
    pieces = OPERATOR.split(expression.strip())
    terms = [Term(_unquoted(name), operator) for name, operator in zip(pieces[::2], ["+", *pieces[1::2]], strict=True)]
    if any(not term.name or re.search(r"^[+&-](\s|$)|\s[+&-]$", term.name) for term in terms):
        raise NSDError(f"roi must have a term on both sides of every operator, got {expression!r}. {GRAMMAR}.")
    return terms


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


def select(subject: Selectable, expression: str) -> np.ndarray:
    """Voxels that an ROI expression selects.

    Parameters
    ----------
    subject : Selectable
        Has the regions and the grid.
    expression : str

    Returns
    -------
    (X, Y, Z) bool, or (2, vertices) on a surface

    Raises
    ------
    NSDError
        For an unknown or ambiguous name, an unreadable mask or one on another grid, or an empty selection.
    """
    chosen, counts = np.zeros(subject.shape, dtype=bool), []
    for term in parse(expression):
        mask = _mask_file(subject, term) if term.is_mask else _named(subject, term)
        counts.append(f"{term.name} has {int(mask.sum())}")
        chosen = JOIN[term.operator](chosen, mask)
    if not chosen.any():
        raise NSDError(
            f"ROI {expression} must have voxels above 0, got none (empty mask): {', '.join(counts)}. "
            "Choose another ROI or mask."
        )
    return chosen


def _mask_file(subject: Selectable, term: Term) -> np.ndarray:
    path = Path(term.name).expanduser()
    if not path.is_file():
        raise NSDError(
            f"ROI mask must be an existing NIfTI file, got {term.name}. "
            "Check the path; one that contains ' + ', ' & ' or ' - ' goes between double quotes."
        )
    if len(subject.shape) == 2:
        return read_surface_inside(path, subject.shape[1])
    inside, affine = read_inside(path, "ROI mask")
    check_grid(f"ROI mask {path}", (inside.shape, affine), (subject.shape, subject.affine), path)
    return inside


def _named(subject: Selectable, term: Term) -> np.ndarray:
    """A family, or a region of the one family that has it."""
    families = subject.roi_names()
    if term.name in families:
        return subject.rois(term.name).labels > 0
    family, _, region = term.name.rpartition("/")
    if family and family not in families:
        raise _unknown(subject, term.name, families)
    having = {one: parts for one in ([family] if family else families) if (parts := _parts(subject, one, region))}
    if not having:
        raise _unknown(subject, term.name, families)
    if len(having) > 1:
        raise NSDError(
            f"roi must name one region, got {region!r}, which {len(having)} families have: {', '.join(having)}. "
            f"Write {' or '.join(f'{one}/{region}' for one in having)}."
        )
    ((family, parts),) = having.items()
    rois = subject.rois(family)
    return np.isin(rois.labels, [label for label, name in rois.names.items() if name in parts and label > 0])


def _parts(subject: Selectable, family: str, region: str) -> set[str]:
    """Regions of a family that `region` stands for: itself, or the parts it joins."""
    names = _region_names(subject, family)
    return {region} & names or {name for name in names if _whole(name) == region}


def _region_names(subject: Selectable, family: str) -> set[str]:
    """A volume in the folder that holds no labels must not hide the regions of the others."""
    try:
        return set(subject.regions(family))
    except NSDError:
        return set()


def _whole(name: str) -> str:
    """Region that `name` is a part of, or nothing."""
    match = PART.fullmatch(name)
    return match[1] or match[2] if match else ""


def _unknown(subject: Selectable, name: str, families: list[str]) -> NSDError:
    regions = {family: _region_names(subject, family) for family in families}
    known = {one for names in regions.values() for one in names | {_whole(n) for n in names} - {""}}
    known |= {f"{family}/{one}" for family, names in regions.items() for one in names} if "/" in name else set(families)
    lower = {one.lower(): one for one in sorted(known)}
    close = [lower[one] for one in get_close_matches(name.lower(), lower, cutoff=0.55)]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    pieces = [piece.strip() for piece in re.split(r"[+&-]", name)]
    if "+" in name or "&" in name or (len(pieces) > 1 and set(pieces) <= known):
        hint += f"An operator needs a space on each side. {GRAMMAR}. "
    if (
        any(ending in name.lower() for ending in SUFFIXES)
        or "\\" in name
        or ("/" in name and name.rpartition("/")[0] not in families)
    ):
        hint += "The path of a mask that contains an operator goes between double quotes. "
    return NSDError(
        f"roi must be made of families, their regions or mask files, got {name!r}. "
        f"{hint}Families: {', '.join(families)}."
    )


def wants_all(text: str) -> bool:
    """Whether a list of sessions stands for every one."""
    return text.strip().lower() == "all"


def chosen_sessions(text: str, labels: list[str]) -> list[str]:
    """The sessions of `labels` that a list such as "1-4,7" names, in the order of `labels`.

    An item is a label as it stands, a number that a label has as its value, or a range of such numbers.

    Raises
    ------
    NSDError
        If an item is malformed, or names a session that is not in `labels`.
    """
    if wants_all(text):
        return list(labels)
    numbers = {int(label): label for label in labels if label.isdecimal()}
    wanted = {label for item in text.split(",") for label in _sessions_of(item.strip(), labels, numbers)}
    return [label for label in labels if label in wanted]


def _sessions_of(item: str, labels: list[str], numbers: dict[int, str]) -> set[str]:
    if item in labels:
        return {item}
    match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", item)
    if match:
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        named = {label for number, label in numbers.items() if first <= number <= last}
        if first <= last and len(named) == last - first + 1:
            return named
    raise NSDError(
        f"sessions must be all, or labels and ranges of the sessions there are ({listed(labels)}), such as 1-4,7; "
        f"got {item!r}. Name sessions that are there."
    )


def listed(labels: list[str]) -> str:
    """Sessions as one would write them: runs of numbers as ranges."""
    ranges: list[list[str]] = []
    for label in labels:
        last = ranges[-1][-1] if ranges else ""
        if label.isdecimal() and last.isdecimal() and int(label) == int(last) + 1:
            ranges[-1].append(label)
        else:
            ranges.append([label])
    return ", ".join(part[0] if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in ranges)
