"""The mark of a complete subject: a run's last file, which vouches for all the others.

Who rewrites a subject removes it first, so that nobody takes files of two runs, or half of one, for a result.
"""

from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.files import file_digest, json_object, write_json
from napari_neuraldiffuser.core.base.names import Derivatives, kind_of

READ = (".json", ".tsv")
"""Files that figures are taken from: they are known again by their contents, the others by their size."""


def reopen(places: Derivatives) -> None:
    """Take the mark away, before the first file of a subject is written again."""
    places.complete.unlink(missing_ok=True)


def vouch(places: Derivatives) -> Path:
    """Write the mark of a subject whose every file is written.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    content = {
        "Description": "Written when everything else of this subject was; sizes, and SHA-256 of tables and JSON files.",
        "Files": {path.relative_to(places.out_dir).as_posix(): _about(path) for path in _files(places)},
    }
    write_json(places.complete, content)
    return places.complete


def _files(places: Derivatives) -> list[Path]:
    """What a run wrote of a subject: files of a declared kind."""
    inside = (p for p in places.folder.rglob("*") if p.is_file() and kind_of(p.relative_to(places.out_dir).as_posix()))
    return sorted({*inside, *([places.page] if places.page.is_file() else [])} - {places.complete})


def _about(path: Path) -> dict[str, Any]:
    digest = {"SHA256": file_digest(path)} if path.suffix in READ else {}
    return {"Size": path.stat().st_size, **digest}


def why_incomplete(places: Derivatives, pictures: bool = False) -> str:
    """Why a subject cannot be taken for complete, as the end of a sentence about it; empty where it can.

    Parameters
    ----------
    places : Derivatives
    pictures : bool
        Whether files count that no figure is taken from, too: images and volumes may go to save space.
    """
    if not places.complete.is_file():
        return f"has no {places.complete.name}, which a run writes at its end"
    files = (json_object(places.complete) or {}).get("Files")
    if not isinstance(files, dict) or not all(isinstance(about, dict) for about in files.values()):
        return f"has a {places.complete.name} that cannot be read"
    for name, about in files.items():
        path = Path(places.out_dir) / name
        if (pictures or path.suffix in READ) and not (path.is_file() and _about(path) == about):
            return f"has another {name} than its run left" if path.is_file() else f"lacks {name}, which its run left"
    return ""
