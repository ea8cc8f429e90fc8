"""Files of a Study's cache: what they were made from, betas as they were read, and making room."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.nsd import Betas, NSDError, load_betas

FORGOTTEN = 24 * 3600
"""Seconds after which a temporary file is one that a killed process left."""


def stamp(paths: Iterable[str | Path]) -> list[list[Any]]:
    """Path, size and time of change of every file that is there: differs as soon as one of them was written again."""
    found = [(Path(p), Path(p).stat()) for p in paths if str(p) and Path(p).is_file()]
    return [[str(path), about.st_size, about.st_mtime_ns] for path, about in found]


def array_digest(*arrays: np.ndarray) -> str:
    """SHA-256 over the types, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def read_npz(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file of the cache; None, and the file deleted, where it is not there or damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, BadZipFile):
        path.unlink(missing_ok=True)
        return None
    path.touch()
    return arrays


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
        with suppress(FileNotFoundError):
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
    for path in folder.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN:
                path.unlink()
