"""A check of an output folder against the table of names, and of what its JSON files say.  Standard library only."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from napari_neuraldiffuser.core.base.files import json_object
from napari_neuraldiffuser.core.base.names import KINDS, NO_RESULTS, Derivatives, kind_of, sidecar_of, unknown_to_bids
from napari_neuraldiffuser.core.outputs.complete import why_incomplete


def check(out_dir: str | Path) -> list[str]:
    """What in an output folder is not as declared; empty where all is well.

    Parameters
    ----------
    out_dir : str or Path

    Returns
    -------
    list of str
        One line each: unknown files, missing sidecars, sidecars without data or without what made them, an invalid
        description of the dataset, subjects that are not complete or not what their run left.
    """
    out_dir = Path(out_dir)
    paths = {path.relative_to(out_dir).as_posix() for path in _files(out_dir)}
    links: dict[str, str] = {}
    complaints = _check_description(out_dir / KINDS["description"].path, links) + _check_dataset(out_dir)
    for path in sorted(paths):
        kind = kind_of(path)
        if kind is None:
            complaints.append(f"{path}: no file that a run writes has this name.")
            continue
        wanted = sidecar_of(path, kind)
        if wanted and wanted not in paths:
            complaints.append(f"{path}: its sidecar {wanted} is missing.")
        if kind.is_sidecar:
            complaints += [f"{path}: {said}" for said in _check_sidecar(out_dir, path, paths, links)]
    subjects = sorted({path.split("/")[0] for path in paths if path.startswith("sub-") and "/" in path})
    whys = {label: why_incomplete(Derivatives(out_dir, label), pictures=True) for label in subjects}
    return complaints + [f"{label}: {why}." for label, why in whys.items() if why]


def _files(out_dir: Path) -> Iterator[Path]:
    for path in out_dir.rglob("*"):
        top = path.relative_to(out_dir).parts[0]
        if path.is_file() and top not in NO_RESULTS and not (top.startswith(".") and top.endswith(".lock")):
            yield path


def _check_sidecar(out_dir: Path, path: str, paths: set[str], links: dict[str, str]) -> list[str]:
    content = json_object(out_dir / path)
    if content is None:
        return ["must be a JSON object."]
    complaints = _check_generated_by(content)
    sources = content.get("Sources")
    if not isinstance(sources, list) or not all(isinstance(s, str) for s in sources):
        return [*complaints, "Sources must be a list of BIDS URIs."]
    if not any(sidecar_of(p, kind) == path for p in paths if (kind := kind_of(p)) is not None):
        complaints.append("there are no data of this sidecar.")
    return complaints + [said for source in sources if (said := _check_source(out_dir, source, links))]


def _check_source(out_dir: Path, source: str, links: dict[str, str]) -> str | None:
    match = re.fullmatch(r"bids:([0-9A-Za-z_.-]*):([^/\\][^\\]*)", source)
    if match is None or ".." in PurePosixPath(match[2]).parts:
        return f"a source must be bids:<dataset>:<path within it>, got {source!r}."
    if match[1]:
        return None if match[1] in links else f"DatasetLinks must say what {match[1]!r} is, which {source} names."
    return None if (out_dir / match[2]).exists() else f"its source {source} is not there."


def _check_generated_by(content: dict[str, Any]) -> list[str]:
    made_by = content.get("GeneratedBy")
    if isinstance(made_by, list) and made_by and all(isinstance(m, dict) and _text(m.get("Name")) for m in made_by):
        return []
    return ["GeneratedBy must be a list of objects with a Name."]


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_description(path: Path, links: dict[str, str]) -> list[str]:
    """BIDS's rules of a derivative's `dataset_description.json`; its links go to `links`."""
    content = json_object(path)
    if content is None:
        return [f"{path.name}: must be there and be a JSON object."]
    complaints = _check_generated_by(content)
    complaints += [f"{name} must be text." for name in ("Name", "BIDSVersion") if not _text(content.get(name))]
    if _text(content.get("BIDSVersion")) and not re.fullmatch(r"\d+\.\d+\.\d+", content["BIDSVersion"]):
        complaints.append(f"BIDSVersion must be a version such as 1.10.0, got {content['BIDSVersion']!r}.")
    if content.get("DatasetType") != "derivative":
        complaints.append(f"DatasetType must be derivative, got {content.get('DatasetType')!r}.")
    found = content.get("DatasetLinks", {})
    if not isinstance(found, dict) or not all(_text(v) and not _private(v) for v in found.values()):
        complaints.append("DatasetLinks must be URIs or relative paths by name.")
    else:
        links.update(found)
    return [f"{path.name}: {said}" for said in complaints]


def _check_dataset(out_dir: Path) -> list[str]:
    """What a BIDS validator asks of a dataset beside its description; not of a folder that has none."""
    if not (out_dir / KINDS["description"].path).is_file():
        return []
    ignored, readme = (out_dir / KINDS[name].path for name in ("ignored", "readme"))
    complaints = [] if readme.is_file() else [f"{readme.name}: must be there."]
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    if missing := set(unknown_to_bids()) - set(lines):
        complaints.append(f"{ignored.name}: must name what BIDS does not know, lacks {', '.join(sorted(missing))}.")
    return complaints


def _private(link: str) -> bool:
    """Whether a link names a place on one machine."""
    return link.startswith(("/", "~", "file:/")) or re.match(r"[A-Za-z]:[\\/]", link) is not None
