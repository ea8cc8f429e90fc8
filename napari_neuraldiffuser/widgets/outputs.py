"""What a front end finds in this project's output folder.  Standard library only."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

CONTRIBUTION = re.compile(r"sub-[0-9A-Za-z]+_space-\w+_target-(?P<target>\w+)_contribution\.nii\.gz")


class OutputFolderError(ValueError):
    """A folder is not one that `neuraldiffuser run` or `demo` wrote."""


@dataclass(frozen=True)
class SubjectOutputs:
    """Contribution maps and ROI table of one subject.

    Attributes
    ----------
    label : str
        "sub-01".
    maps : dict
        Target name ("z", "c", "g02" ...) to the NIfTI file of voxel contributions.
    table : Path or None
        TSV with columns roi, target, share, se, n_voxels.
    """

    label: str
    maps: dict[str, Path]
    table: Path | None


def find_subjects(folder: str | Path) -> dict[str, SubjectOutputs]:
    """Subjects with contribution maps below `folder`, which is OUT_DIR or one OUT_DIR/sub-XX.

    Raises
    ------
    OutputFolderError
        If no contribution map is there.
    """
    folder = Path(folder)
    candidates = [folder] if folder.name.startswith("sub-") else sorted(folder.glob("sub-*"))
    subjects = [_subject(path) for path in candidates if path.is_dir()]
    found = {subject.label: subject for subject in subjects if subject.maps}
    if not found:
        raise OutputFolderError(
            f"folder must hold sub-XX/sub-XX_space-*_target-*_contribution.nii.gz, got {folder}. "
            "Choose the output folder of neuraldiffuser demo or run."
        )
    return found


def _subject(path: Path) -> SubjectOutputs:
    matches = {p: CONTRIBUTION.fullmatch(p.name) for p in sorted(path.glob("*_contribution.nii.gz"))}
    maps = {m["target"]: p for p, m in matches.items() if m}
    table = path / f"{path.name}_contribution.tsv"
    return SubjectOutputs(path.name, maps, table if table.exists() else None)


def roi_shares(table: Path, target: str) -> list[tuple[str, float, float]]:
    """Rows (roi, share, standard error) of one target, largest share first.

    Raises
    ------
    OutputFolderError
        If the table lacks a column or holds something that is not a number.
    """
    with open(table, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row.get("target") == target]
    try:
        shares = [(row["roi"], float(row["share"]), float(row["se"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise OutputFolderError(
            f"{table} must have the columns roi, target, share and se, got a row without a usable {error}. "
            "Run the contribution step again."
        ) from error
    return sorted(shares, key=lambda row: -row[1])
