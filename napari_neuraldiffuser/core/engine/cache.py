"""Files of a Study's cache: what they were made from, betas as they were read, and making room."""

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.nsd import Betas, NSDError, load_betas

FORGOTTEN = 24 * 3600
"""Seconds after which a temporary file is one that a killed process left."""


def kept_betas(path: Path) -> Betas | None:
    """Betas of the cache; None, and the file deleted, where it is not there or damaged."""
    if not path.is_file():
        return None
    try:
        betas = load_betas(path)
    except (NSDError, KeyError, ValueError):
        path.unlink(missing_ok=True)
        return None
    path.touch()
    return betas


def keep_newest(folder: Path, n: int) -> None:
    """Delete all but the `n` files of a folder that were written or used last."""
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # the engine of another window may have deleted it
            if path.is_file() and not path.name.startswith("."):
                found.append((path.stat().st_mtime_ns, path))
    for _, old in sorted(found)[:-n]:
        old.unlink(missing_ok=True)


def keep_newest_folders(folders: Iterable[Path], mark: str, n: int) -> None:
    """Delete all but the `n` folders whose file `mark` was written or used last; folders without it stay."""
    found = []
    for folder in folders:
        with suppress(OSError):  # a file in its place, or the engine of another window deleted it
            found.append(((folder / mark).stat().st_mtime_ns, folder))
    for _, old in sorted(found)[:-n]:
        shutil.rmtree(old, ignore_errors=True)


def partial_runs(runs: Path, mark: str) -> list[Path]:
    """Folders of runs whose file `mark` says that they were stopped early; one that cannot be read is none."""
    found = []
    for path in runs.glob(f"*/{mark}"):
        with suppress(OSError, ValueError):
            if read_json(path)["complete"] is False:
                found.append(path.parent)
    return found


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def sweep(folder: Path) -> None:
    """Delete temporary files of processes that were killed in the middle of writing."""
    for place, _, files in os.walk(folder):
        for name in files:
            if name.startswith(".tmp-"):
                path = Path(place) / name
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > FORGOTTEN:
                        path.unlink()
