"""The names of everything that a run writes, declared once, and a check of an output folder against them.

The stock BIDS patterns know none of our suffixes (embeddings, recon, contribution).  Names follow the BIDS derivatives
rules: entities `key-value` joined by `_`, the suffix last, every file of a subject prefixed with its `sub-<label>`, a
JSON sidecar of the same stem, one for a whole folder of images (the inheritance principle).  Standard library only.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

IGNORED = ("work", "nsd")
"""Folders of OUT_DIR that are no results: caches of the engine, and the demo's simulated raw data."""
VALUE = "[0-9A-Za-z]+"
NONE, OWN, FOLDER = "none", "own", "folder"


@dataclass(frozen=True)
class Pattern:
    """Files of one kind.

    Attributes
    ----------
    what : str
        For complaints and documentation.
    path : str
        Path below OUT_DIR: `{sub}` is the subject's `sub-<label>`, `{<entity>}` the value of an entity.
    sidecar : str
        Where the sidecar is: "none" needs one, "own" is the same stem with .json, "folder" is `<sub>_<suffix>.json`
        beside it.
    is_sidecar : bool
        Whether files of this kind are sidecars and must say what made them.
    """

    what: str
    path: str
    sidecar: str = NONE
    is_sidecar: bool = False

    @property
    def regex(self) -> re.Pattern[str]:
        """The path as a regular expression; the second mention of an entity must repeat the first."""
        seen: set[str] = set()

        def part(match: re.Match[str]) -> str:
            name = match[1]
            if name in seen:
                return f"(?P={name})"
            seen.add(name)
            return f"(?P<{name}>{ENTITIES.get(name, VALUE)})"

        pieces = re.split(r"(\{\w+\})", self.path)
        text = (re.sub(r"\{(\w+)\}", part, p) if p.startswith("{") else re.escape(p) for p in pieces)
        return re.compile("".join(text))


ENTITIES = {
    "sub": f"sub-{VALUE}",
    "stim": r"\d{5,}",
    "rep": r"[1-9]\d*",
    "arm": "unguided|guided",
    "shown": "seen|start",
}
"""What the value of an entity looks like where that is not any run of letters and digits."""
SUBJECT = "{sub}/{sub}_"
PATTERNS = (
    Pattern("dataset description", "dataset_description.json"),
    Pattern("subject's page", "{sub}.html"),
    Pattern("decoded embeddings", SUBJECT + "desc-{decoder}_embeddings.h5", OWN),
    Pattern("their sidecar", SUBJECT + "desc-{decoder}_embeddings.json", is_sidecar=True),
    Pattern("scores of every image", SUBJECT + "desc-recon_scores.tsv", OWN),
    Pattern("their sidecar", SUBJECT + "desc-recon_scores.json", is_sidecar=True),
    Pattern("summary of the scores", SUBJECT + "desc-summary_scores.json"),
    Pattern("failed stimuli", SUBJECT + "desc-failed_stimuli.tsv", OWN),
    Pattern("their sidecar", SUBJECT + "desc-failed_stimuli.json", is_sidecar=True),
    Pattern("contribution table", SUBJECT + "contribution.tsv", OWN),
    Pattern("its sidecar", SUBJECT + "contribution.json", is_sidecar=True),
    Pattern("contribution map", SUBJECT + "space-{space}_target-{target}_contribution.nii.gz", OWN),
    Pattern("its sidecar", SUBJECT + "space-{space}_target-{target}_contribution.json", is_sidecar=True),
    Pattern("reconstruction", "{sub}/recon/{sub}_stim-{stim}_rep-{rep}_desc-{arm}_recon.png", FOLDER),
    Pattern("seen image or starting point", "{sub}/recon/{sub}_stim-{stim}_desc-{shown}_recon.png", FOLDER),
    Pattern("sidecar of the images", "{sub}/recon/{sub}_recon.json", is_sidecar=True),
    Pattern("picture of a contribution map", "{sub}/figures/{sub}_target-{target}_contribution.png"),
    Pattern("anatomy", "{sub}/anat/{sub}_space-{space}_T1w.nii.gz", OWN),
    Pattern("its sidecar", "{sub}/anat/{sub}_space-{space}_T1w.json", is_sidecar=True),
    Pattern("regions", "{sub}/anat/{sub}_space-{space}_seg-{seg}_dseg.nii.gz", OWN),
    Pattern("their table", "{sub}/anat/{sub}_space-{space}_seg-{seg}_dseg.tsv", OWN),
    Pattern("their sidecar", "{sub}/anat/{sub}_space-{space}_seg-{seg}_dseg.json", is_sidecar=True),
    Pattern("group's page", "group.html"),
    Pattern("group's scores", "group_desc-recon_scores.tsv", OWN),
    Pattern("their sidecar", "group_desc-recon_scores.json", is_sidecar=True),
    Pattern("group's summary", "group_desc-summary_scores.json"),
    Pattern("group's contribution table", "group_contribution.tsv", OWN),
    Pattern("its sidecar", "group_contribution.json", is_sidecar=True),
)


def kind_of(path: str | PurePosixPath) -> Pattern | None:
    """The declared kind of a path below OUT_DIR, or None."""
    return next((p for p in PATTERNS if p.regex.fullmatch(str(path))), None)


def check(out_dir: str | Path) -> list[str]:
    """What in an output folder is not as declared; empty where all is well.

    Parameters
    ----------
    out_dir : str or Path

    Returns
    -------
    list of str
        One line each: unknown files, missing sidecars, sidecars without data or without what made them, an invalid
        description of the dataset.
    """
    out_dir = Path(out_dir)
    paths = {path.relative_to(out_dir).as_posix() for path in _files(out_dir)}
    links: dict[str, str] = {}
    complaints = _check_description(out_dir / "dataset_description.json", links)
    for path in sorted(paths):
        kind = kind_of(path)
        if kind is None:
            complaints.append(f"{path}: no file that a run writes has this name.")
            continue
        wanted = _sidecar_of(path, kind)
        if wanted and wanted not in paths:
            complaints.append(f"{path}: its sidecar {wanted} is missing.")
        if kind.is_sidecar:
            complaints += [f"{path}: {said}" for said in _check_sidecar(out_dir, path, paths, links)]
    return complaints


def _files(out_dir: Path) -> Iterator[Path]:
    for path in out_dir.rglob("*"):
        if path.is_file() and path.relative_to(out_dir).parts[0] not in IGNORED:
            yield path


def _sidecar_of(path: str, kind: Pattern) -> str | None:
    place = PurePosixPath(path)
    if kind.sidecar == OWN:
        return str(place.with_name(_stem(place.name) + ".json"))
    if kind.sidecar == FOLDER:
        subject, suffix = place.name.split("_", 1)[0], _stem(place.name).rsplit("_", 1)[1]
        return str(place.with_name(f"{subject}_{suffix}.json"))
    return None


def _stem(name: str) -> str:
    return name.removesuffix(".gz").rsplit(".", 1)[0]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_sidecar(out_dir: Path, path: str, paths: set[str], links: dict[str, str]) -> list[str]:
    content = _read(out_dir / path)
    if not isinstance(content, dict):
        return ["must be a JSON object."]
    complaints = _check_generated_by(content)
    sources = content.get("Sources")
    if not isinstance(sources, list) or not all(isinstance(s, str) for s in sources):
        return [*complaints, "Sources must be a list of BIDS URIs."]
    if not any(_sidecar_of(p, kind) == path for p in paths if (kind := kind_of(p)) is not None):
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
    content = _read(path)
    if not isinstance(content, dict):
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


def _private(link: str) -> bool:
    """Whether a link names a place on one machine."""
    return link.startswith(("/", "~", "file:/")) or re.match(r"[A-Za-z]:[\\/]", link) is not None
