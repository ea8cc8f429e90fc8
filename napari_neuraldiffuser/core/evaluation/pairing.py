"""Which seen picture each reconstruction is of: decided by identity of names, or not at all.

One rule must hold for the whole folder.  The rules are tried from the most to the least specific, and the first that
finds one seen picture for every reconstruction counts; what no rule pairs as a whole is refused and listed, as scores
of some pictures, or of wrong pairs, would pass for those of all.  A number that two names happen to share is no rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import json_object
from napari_neuraldiffuser.core.base.names import KINDS, LABELS, NSD_NUMBERS, NUMBERS, entity, without_entities
from napari_neuraldiffuser.core.base.tables import spelled
from napari_neuraldiffuser.core.evaluation.name_patterns import NamePattern

LISTED = 5
NO_STIMULUS = ("slices", "views", "profile")
"""Kinds of pictures of an output folder that are of no stimulus."""
REMEDY = (
    "Name reconstructions by the whole name of their seen picture, or say how names are made: "
    "--pattern 'img_{stimulus}_{repeat}' --seen-pattern '{stimulus}'."
)

SIDECAR = " What the numbers of a run stand for is in sub-XX_recon.json beside its images: copy it too."


class ImageFolderError(UserError):
    """Image folders that cannot be read or paired; the message lists the files and names the remedy."""


@dataclass(frozen=True)
class Named:
    """A picture file and what its name says.

    Attributes
    ----------
    path : Path
    below : str
        Path below its folder, without ending.
    given : dict of str to str or None
        Values of the user's pattern; None without one.
    labels : dict of str to str
        Own scans' labels by the number in our names, from the sidecar beside the file.
    nsd : bool
        Whether the sidecar says that numbers are NSD's ids.
    """

    path: Path
    below: str
    given: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    nsd: bool = False

    @property
    def stem(self) -> str:
        return self.below.rsplit("/", 1)[-1]

    @property
    def number(self) -> str | None:
        """Value of the `stim` entity in the name."""
        return entity(self.stem, "stim")

    @property
    def label(self) -> str | None:
        """Own scans' label that our name stands for, as a path below the folder of pictures."""
        label = (self.labels or {}).get(self.number or "")
        return label and label.replace("\\", "/")

    @property
    def plain_number(self) -> str | None:
        """The number, unless it is known to be a place in some subject's own list of labels."""
        return None if self.labels else self.number

    @property
    def arm(self) -> str:
        return (self.given or {}).get("arm") or entity(self.stem, "desc") or "recon"

    @property
    def repeat(self) -> int:
        said = (self.given or {}).get("repeat") or entity(self.stem, "rep") or ""
        return int(said) if said.isdigit() else 1


@dataclass(frozen=True)
class Rule:
    """How a reconstruction's name leads to a seen picture's: both give a text, and equal ones are a pair.

    Attributes
    ----------
    what : str
        For messages.
    recon, seen : callable
        Text of a reconstruction or None; texts of a seen picture.
    """

    what: str
    recon: Callable[[Named], str | None]
    seen: Callable[[Named], list[str | None]]


def _whole(named: Named) -> list[str | None]:
    """By what a seen picture may be called as a whole."""
    return [named.below, named.below + named.path.suffix, named.stem, named.path.name]


def _given(named: Named) -> list[str | None]:
    """What the pattern of the seen pictures says; without one, all that one may be called by."""
    return [named.given["stimulus"]] if named.given else [*_whole(named), named.plain_number]


def _stim(named: Named) -> str | None:
    return f"stim-{named.plain_number}" if named.plain_number else None


RULES = (
    Rule("labels of own scans", lambda r: r.label, _whole),
    # of two runs: the same label may have another number in each
    Rule("labels of own scans", lambda r: r.label, lambda s: [s.label]),
    # spelled alike, as nothing need say what the number counts
    Rule("stim entities", _stim, lambda s: [_stim(s)]),
    Rule("NSD's ids", lambda r: r.number if r.nsd else None, lambda s: [*_whole(s), s.plain_number]),
    Rule("whole paths", lambda r: r.below, lambda s: [s.below]),
    Rule("whole names", lambda r: r.stem, lambda s: [s.stem]),
    Rule("names without rep and desc", lambda r: without_entities(r.stem, "rep", "desc"), _whole),
)
WITH_PATTERN = (Rule("the pattern", lambda r: (r.given or {}).get("stimulus"), _given),)
WITH_SEEN_PATTERN = (
    Rule("labels of own scans", lambda r: r.label, _given),
    # the user says that the numbers are the same, but of labelled pictures it is known that they are not
    Rule("numbers of stimuli", lambda r: r.plain_number, lambda s: [] if s.labels else _given(s)),
    Rule("names without rep and desc", lambda r: without_entities(r.stem, "rep", "desc"), _given),
)


@dataclass(frozen=True)
class Pairs:
    """Reconstructions with the seen picture of each, the rule that paired them, and what is worth a note."""

    pairs: list[tuple[Named, Path]]
    rule: str
    notes: list[str]


def pair(recon: Sequence[Path], seen: Sequence[Path], folders: tuple[Path, Path], patterns: tuple[str, str]) -> Pairs:
    """Find the seen picture of every reconstruction.

    Parameters
    ----------
    recon, seen : sequence of Path
        Picture files.
    folders : tuple of Path
        The folders that they lie in or below.
    patterns : tuple of str
        The user's patterns of both folders; empty without.

    Returns
    -------
    Pairs

    Raises
    ------
    ImageFolderError
        If a reconstruction has no seen picture, or more than one.
    PatternError
        If a pattern cannot be used.
    """
    mine, left = _fitting([_named(path, folders[0]) for path in recon if not _is_other(path)], patterns[0], "recon_dir")
    theirs, more = _fitting([_named(path, folders[1]) for path in _seen_only(seen)], patterns[1], "seen_dir")
    best = Pairs([], "", [])
    for rule in WITH_PATTERN if patterns[0] else WITH_SEEN_PATTERN if patterns[1] else RULES:
        found = _by_rule(rule, mine, theirs)
        if len(found.pairs) == len(mine):
            return Pairs(found.pairs, found.rule, [*left, *more, *found.notes])
        best = max(best, found, key=lambda one: len(one.pairs))
    raise _unpaired(best, mine, theirs, folders)


def _by_rule(rule: Rule, mine: Sequence[Named], theirs: Sequence[Named]) -> Pairs:
    """What one rule pairs; several candidates are an error, unless one of them is spelled alike."""
    index: dict[str, list[tuple[str, Named]]] = {}
    for named in theirs:
        for text in {text for text in rule.seen(named) if text}:
            index.setdefault(folded(text), []).append((text, named))
    pairs, respelled = [], []
    for named in mine:
        wanted = rule.recon(named)
        found = index.get(folded(wanted), []) if wanted else []
        alike = {one.path: one for spelling, one in found if spelling == wanted}
        candidates = alike or {one.path: one for _, one in found}
        if len(candidates) > 1:
            raise _doubtful(named, list(candidates))
        if any(path.samefile(named.path) for path in candidates):
            raise ImageFolderError(
                f"seen_dir must have other files than recon_dir, got {named.path} for both. Give the seen pictures."
            )
        pairs += [(named, path) for path in candidates]
        respelled += [named.path.name] if candidates and not alike else []
    notes = [f"{some(respelled)}: paired with names that are spelled otherwise (case, accents, zeros)."]
    return Pairs(pairs, rule.what, notes if respelled else [])


def folded(text: str) -> str:
    """A name without what is only spelling: letter case, composed or decomposed accents, zeros before a number."""
    alike = spelled(spelled(text).casefold())
    return str(int(alike)) if alike.isascii() and alike.isdigit() else alike


def _named(path: Path, folder: Path) -> Named:
    """A file with what the sidecar of our own images beside it says."""
    below = path.relative_to(folder).with_suffix("").as_posix()
    ours = KINDS["image"].entities(path.name) or KINDS["shown"].entities(path.name)
    about = (json_object(path.with_name(KINDS["images"].name(**ours))) if ours else None) or {}
    labels = about.get(LABELS)
    return Named(path, below, None, labels if isinstance(labels, dict) else None, about.get(NUMBERS) == NSD_NUMBERS)


def _is_other(path: Path) -> bool:
    """Whether a picture of an output folder is no reconstruction."""
    return any(KINDS[kind].entities(path.name) for kind in ("shown", *NO_STIMULUS))


def _seen_only(paths: Sequence[Path]) -> list[Path]:
    """Without our own reconstructions and starting points, which may lie beside what was seen."""
    shown = KINDS["shown"].entities
    mine = {p for p in paths if KINDS["image"].entities(p.name) or (shown(p.name) or {}).get("shown") == "start"}
    return [p for p in paths if p not in mine and not any(KINDS[kind].entities(p.name) for kind in NO_STIMULUS)]


def _fitting(named: list[Named], pattern: str, which: str) -> tuple[list[Named], list[str]]:
    """The files that fit a pattern, with its values, and a note on the others."""
    if not named:
        raise ImageFolderError(f"{which} must have pictures of its kind, got none. Choose another folder.")
    if not pattern:
        return named, []
    read = NamePattern(pattern).read
    fits = [Named(n.path, n.below, dict(given), n.labels, n.nsd) for n in named if (given := read(n.below))]
    if not fits:
        raise ImageFolderError(
            f"{which} must have names of the pattern {pattern!r}, got {some([n.below for n in named])}. Correct it."
        )
    left = [n.path.name for n in named if not read(n.below)]
    return fits, [f"{some(left)}: not of the pattern {pattern!r}, left out."] if left else []


def some(names: Sequence[str]) -> str:
    """The first few of some names, and how many there are."""
    more = f" ... ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _unpaired(
    best: Pairs, mine: Sequence[Named], theirs: Sequence[Named], folders: tuple[Path, Path]
) -> ImageFolderError:
    paired = {named.path for named, _ in best.pairs}
    missing = [named for named in mine if named.path not in paired]
    names = [named.path.name + (f" (of {named.label})" if named.label else "") for named in missing]
    ours = any(named.number and not named.labels and not named.nsd for named in [*missing, *theirs])
    return ImageFolderError(
        f"every reconstruction of {folders[0]} must have its seen picture in {folders[1]}, got none for "
        f"{len(missing)} of {len(mine)}: {some(names)}. {REMEDY}{SIDECAR if ours else ''}"
    )


def _doubtful(named: Named, candidates: Sequence[Path]) -> ImageFolderError:
    names = some(sorted(str(path) for path in candidates))
    return ImageFolderError(f"{named.path.name} must be of one seen picture, got several that fit: {names}. {REMEDY}")
