"""What a front end finds in this project's output folder.  Standard library only."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import KINDS, sidecar, stem


class OutputFolderError(UserError):
    """A folder is not one that `neuraldiffuser run` or `demo` wrote."""


@dataclass(frozen=True)
class SubjectOutputs:
    """Files of one subject."""

    label: str
    """Such as "sub-01"."""
    maps: dict[str, Path]
    """Target name ("z", "c", "g02" ...) to the NIfTI file of voxel contributions."""
    table: Path | None
    """TSV with columns roi, target, share, se, n_voxels."""
    folder: Path = Path()
    """OUT_DIR/sub-01."""
    anatomy: Path | None = None
    """T1 in the space of the maps."""
    regions: dict[str, Path] = field(default_factory=dict)
    """ROI family to its label volume; a TSV of the same stem names its labels."""
    surfaces: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Target name to the GIfTI file of each hemisphere, "L" and "R", where the betas were of a surface."""
    accuracies: dict[str, Path] = field(default_factory=dict)
    """Target name to the NIfTI file of what single regions decode."""
    pictures: dict[int, dict[tuple[str, int], Path]] = field(default_factory=dict)
    """Stimulus id to {("seen", 1): file, ("guided", 2): file, ...}; the number is the repeat."""

    @property
    def anything(self) -> bool:
        """Whether there is something to show."""
        return bool(self.maps or self.surfaces or self.anatomy or self.regions or self.pictures)


def subject_folders(folder: str | Path) -> list[Path]:
    """The sub-XX folders that `folder` is or holds; cheap, for folders of any kind."""
    folder = Path(folder)
    if folder.name.startswith("sub-"):
        return [folder] if folder.is_dir() else []
    if not (folder / KINDS["description"].path).is_file():
        return []
    return sorted(path for path in folder.glob("sub-*") if path.is_dir())


def find_outputs(folder: str | Path) -> dict[str, SubjectOutputs]:
    """Subjects of which anything can be shown in `folder`, which is OUT_DIR or one OUT_DIR/sub-XX.

    Raises
    ------
    OutputFolderError
        If there is none.
    """
    return _subjects(folder, "anything", "sub-XX with anat, recon or contribution maps")


def find_subjects(folder: str | Path) -> dict[str, SubjectOutputs]:
    """Subjects with contribution maps below `folder`, which is OUT_DIR or one OUT_DIR/sub-XX.

    Raises
    ------
    OutputFolderError
        If no contribution map is there.
    """
    return _subjects(folder, "maps", "sub-XX/sub-XX_space-*_target-*_contribution.nii.gz")


def _subjects(folder: str | Path, having: str, what: str) -> dict[str, SubjectOutputs]:
    folder = Path(folder)
    candidates = [folder] if folder.name.startswith("sub-") else sorted(folder.glob("sub-*"))
    subjects = {path.name: _subject(path) for path in candidates if path.is_dir()}
    on_surface = any(subject.surfaces for subject in subjects.values())
    subjects = {label: subject for label, subject in subjects.items() if getattr(subject, having)}
    if not subjects and on_surface:
        raise OutputFolderError(
            f"folder must hold maps of a volume for this page, got maps on a surface in {folder}. Open the folder in "
            "napari (File > Open Folder) for the map on both hemispheres; the page of the run has all of them."
        )
    if not subjects:
        raise OutputFolderError(
            f"folder must hold {what}, got {folder}. Choose the output folder of neuraldiffuser demo or run."
        )
    return subjects


def _subject(path: Path) -> SubjectOutputs:
    table = path / KINDS["shares"].name(sub=path.name)
    return SubjectOutputs(
        path.name,
        {said["target"]: file for file, said in KINDS["map"].find(path)},
        table if table.exists() else None,
        path,
        next((file for file, _ in KINDS["anatomy"].find(path)), None),
        {_family(file, said["seg"]): file for file, said in KINDS["regions"].find(path)},
        _surfaces(path),
        {said["target"]: file for file, said in KINDS["accuracy map"].find(path)},
        _pictures(path),
    )


def _surfaces(folder: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path, said in KINDS["surface map"].find(folder):
        found.setdefault(said["target"], {})[said["hemi"]] = path
    return found


def _family(path: Path, short: str) -> str:
    """The family's own name, which a file name cannot hold (prf-visualrois), from the sidecar."""
    try:
        return str(json.loads(sidecar(path).read_text(encoding="utf-8"))["Family"])
    except (OSError, ValueError, KeyError, TypeError):
        return short


def _pictures(folder: Path) -> dict[int, dict[tuple[str, int], Path]]:
    pictures: dict[int, dict[tuple[str, int], Path]] = {}
    for path, said in KINDS["shown"].find(folder):
        pictures.setdefault(int(said["stim"]), {})[said["shown"], 1] = path
    for path, said in KINDS["image"].find(folder):
        pictures.setdefault(int(said["stim"]), {})[said["arm"], int(said["rep"])] = path
    return dict(sorted(pictures.items()))


def region_names(volume: Path) -> dict[int, str]:
    """Label to name, from the TSV beside a label volume; empty where there is none.

    Raises
    ------
    OutputFolderError
        If the table has no columns index and name.
    """
    table = volume.with_name(f"{stem(volume.name)}.tsv")
    if not table.is_file():
        return {}
    try:
        with open(table, newline="", encoding="utf-8") as stream:
            return {int(row["index"]): row["name"] for row in csv.DictReader(stream, delimiter="\t")}
    except (KeyError, TypeError, ValueError) as error:
        raise OutputFolderError(
            f"{table} must have the columns index and name, got a row without a usable {error}. Run the job again."
        ) from error
