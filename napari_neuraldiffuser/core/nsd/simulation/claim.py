"""Keeps the simulator out of folders whose data it did not write."""

from pathlib import Path

from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError


def claim(root: Path, marker: str, patterns: tuple[str, ...]) -> None:
    """Mark `root` as simulated before anything else is written there: an interrupted simulation can be begun again.

    Parameters
    ----------
    root : Path
    marker : str
        File below `root` that says so.
    patterns : tuple of str
        Globs of what the simulator writes into `root` itself.

    Raises
    ------
    NSDError
        If there is no marker, and files that one of the patterns names.
    """
    if (root / marker).is_file():
        return
    for found in sorted(path for pattern in patterns for path in root.glob(pattern)):
        if found.is_file() or any(path.is_file() for path in found.rglob("*")):
            raise NSDError(
                f"{root} must be empty or hold simulated data, got {found.name}, which was not simulated. "
                "Give an empty folder."
            )
    write_json(root / marker, {"recipe": "", "n_images": 0})
