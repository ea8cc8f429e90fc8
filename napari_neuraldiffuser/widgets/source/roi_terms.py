"""ROI expressions as ticks of a tree and back, by the grammar of `core.nsd.selection` itself.

Imports pandas with it: panels import it when there is something to show.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.nsd.selection import PART, Selectable, as_term, chosen_sessions, listed, parse, select

WITH, WITHOUT = "with", "without"
Key = tuple[str, str]
"""Family and region."""
Marks = dict[Key, str]
"""Regions that are used or left out; those that are neither are not in it."""

__all__ = ["Regions", "TermError", "as_term", "check", "chosen_sessions", "expression_of", "listed", "marks_of"]


class TermError(UserError):
    """A mask of an expression is not there."""


class Regions(Selectable):
    """The regions of a source as one voxel each, so that the grammar itself says which of them a term names.

    Parameters
    ----------
    families : dict
        Family to region to number of voxels, as `describe` gives them.
    """

    affine = np.eye(4)

    def __init__(self, families: Mapping[str, Mapping[str, int]]) -> None:
        self.families = {family: tuple(regions) for family, regions in families.items()}
        self.keys: list[Key] = [(family, one) for family, regions in self.families.items() for one in regions]

    @property
    def shape(self) -> tuple[int, ...]:
        """One voxel for each region."""
        return (len(self.keys),)

    def roi_names(self) -> list[str]:
        """The families."""
        return list(self.families)

    def rois(self, name: str) -> Rois:
        """One family, its regions numbered by their place among all."""
        names = {k + 1: region for k, (family, region) in enumerate(self.keys) if family == name}
        labels = np.array([k + 1 if k + 1 in names else 0 for k in range(len(self.keys))])
        return Rois(name, labels, names, self.affine)

    def named(self, term: str) -> set[Key]:
        """The regions that one term names; NSDError with what was probably meant where there is none."""
        return {self.keys[k] for k in np.flatnonzero(select(self, as_term(term)))}


def check(expression: str, regions: Regions | None) -> None:
    """Raise a UserError that says which term of an expression cannot be, and what could.

    Where the regions are not known yet, the grammar and the masks are checked.
    """
    for term in parse(expression):
        if not term.is_mask:
            if regions is not None:
                regions.named(term.name)
        elif not Path(term.name).expanduser().is_file():
            raise TermError(f"ROI mask must be an existing file, got {term.name}. Draw it again, or correct the path.")


def marks_of(expression: str, regions: Regions) -> Marks | None:
    """The ticks that mean the same as an expression; None where ticks cannot, as with masks and intersections."""
    marks: Marks = {}
    for term in parse(expression):
        adds_again = term.operator == "+" and WITHOUT in marks.values()
        if term.is_mask or term.operator == "&" or adds_again:
            return None
        marks |= dict.fromkeys(regions.named(term.name), WITHOUT if term.operator == "-" else WITH)
    return marks


def expression_of(marks: Marks, regions: Regions) -> str:
    """What is used, without what is left out, in the shortest names; empty where nothing is used."""
    used, left = ({key for key, mark in marks.items() if mark == kind} for kind in (WITH, WITHOUT))
    if not used:
        return ""
    for family, names in regions.families.items():
        mine = {(family, name) for name in names}
        if len(used & mine) > 1 and mine <= used | left:
            used |= mine  # "floc-faces - FFA" rather than every region but FFA
    return " - ".join([" + ".join(_names(used, regions)), *_names(left, regions)])


def _names(keys: set[Key], regions: Regions) -> Iterable[str]:
    for family, names in regions.families.items():
        mine = {(family, name) for name in names}
        if mine and mine <= keys:
            yield as_term(family)
        else:
            yield from dict.fromkeys(_short(key, keys & mine, regions) for key in regions.keys if key in keys & mine)


def _short(key: Key, chosen: set[Key], regions: Regions) -> str:
    """A region's own name, or that of the joined region where all its parts are chosen."""
    family, name = key
    whole = _whole(name)
    parts = {(family, one) for one in regions.families[family] if whole and _whole(one) == whole}
    if len(parts) > 1 and parts <= chosen:
        return _unambiguous(family, whole, parts, regions)
    return _unambiguous(family, name, {key}, regions)


def _whole(name: str) -> str:
    match = PART.fullmatch(name)
    return (match.group(1) or match.group(2)) if match else ""


def _unambiguous(family: str, name: str, keys: set[Key], regions: Regions) -> str:
    """The name where it means these regions alone, else with its family."""
    try:
        if regions.named(name) == keys:
            return as_term(name)
    except UserError:
        pass  # several families have it
    return as_term(f"{family}/{name}")
