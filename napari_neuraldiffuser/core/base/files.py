"""Writing files so that a killed run leaves nothing half-written, and knowing what a file was made from."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.core.base.errors import UserError

if TYPE_CHECKING:
    import numpy as np


FULL = re.compile(r"No space left on device|Disk quota exceeded|\b[Ee]rrno(?: = | )(?:28|122)\b")
"""What errors say of a full disk or quota; those of HDF5 have no number of their own."""


class Place(property):
    """A path as an attribute of a class that has a method `place(pattern)`, declared by its pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __get__(self, instance: Any, owner: type | None = None, /) -> Path:  # type: ignore[override]
        return instance.place(self.pattern)


class OutputError(UserError, OSError):
    """An output folder or file cannot be written; the message names it and the remedy."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same suffixes; rename it into place on success only.

    Raises
    ------
    OutputError
        If the folder cannot be created or written, or its disk is full.
    """
    path = Path(path)
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; derivatives are shared like any other file
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if is_full(error) and not isinstance(error, UserError):
            raise OutputError(f"{path.name} cannot be written: {full_disk(path.parent)}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def make_folder(folder: str | Path) -> Path:
    """Create `folder` with its parents and check that it takes files."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if is_full(error):
            raise OutputError(f"{folder} cannot be written: {full_disk(folder)}") from error
        raise OutputError(
            f"{folder} must be a folder that can be written, got: {error.strerror or error}. "
            "Choose another output folder or change its permissions."
        ) from error


HEAD = 64
"""Bytes that tell a pointer or a page."""
WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
PAGE = ("a web page in its place", "Log in where it comes from and download the file itself.")
POINTERS = {
    # how a file begins that stands for another -> what it is, and how to get the other
    b"version https://git-lfs": ("a pointer of Git LFS", "Run git lfs pull in its folder, or download it again."),
    b"version https://git-xet": ("a pointer of Git Xet", "Run git xet pull in its folder, or download it again."),
    b"/annex/objects/": ("a pointer of git-annex", "Run git annex get or datalad get on it, or download it again."),
}


def file_trouble(path: str | Path) -> str:
    """What is wrong with a file whatever its format, with the remedy; nothing where it can be read and has content."""
    fault = file_fault(path)
    return ". ".join(fault) if fault else ""


def file_fault(path: str | Path) -> tuple[str, str] | None:
    """What is wrong with a file whatever its format, and the remedy; None where it can be read and has content."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(HEAD)
    except FileNotFoundError:
        if os.path.islink(path):
            return "a link to a file that is not there", "Fetch that file (datalad get)."
        return "no such file", "Check the path."
    except IsADirectoryError:
        return "a folder", "Choose the file in it."
    except PermissionError:
        return "no permission to read it", "Change its permissions."
    except OSError as error:
        return f"{error.strerror or error}", "Check the disk."
    if not start:
        return "an empty file (0 bytes)", "Copy or download it again."
    if WEB_PAGE.match(start):
        return PAGE
    return next((told for mark, told in POINTERS.items() if start.startswith(mark)), None)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or FULL.search(str(error)) is not None


def full_disk(place: str | Path) -> str:
    """A sentence about the full disk that a file or folder lies on, and what helps."""
    path = Path(place).absolute()
    there = next(one for one in (path, *path.parents) if one.exists())
    free = shutil.disk_usage(there).free
    return (
        f"the disk of {place} is full ({free:,} bytes free, or a quota is used up). Free space there, or choose a "
        "folder on another disk."
    )


def located(path: str | Path) -> str:
    """A path that means the same in every folder, and for `~` too; nothing stays nothing."""
    # pathlib raises where nobody has the name after ~
    return str(Path(os.path.expanduser(path)).absolute()) if str(path) else ""


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=_plain) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file, with or without a byte-order mark."""
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def json_object(path: str | Path) -> dict[str, Any] | None:
    """What a JSON file of an object says; None where it is not there, unreadable or something else."""
    with suppress(OSError, ValueError):
        found = read_json(path)
        return found if isinstance(found, dict) else None
    return None


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`: equal inputs and parameters give equal fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_versions(paths: Iterable[str | Path]) -> list[list[Any]]:
    """Path, size and time of change of every file that is there: differs as soon as one of them was written again."""
    found = [(Path(p), Path(p).stat()) for p in paths if str(p) and Path(p).is_file()]
    return [[str(path), about.st_size, about.st_mtime_ns] for path, about in found]


def array_digest(*arrays: "np.ndarray") -> str:
    """SHA-256 over the types, shapes and bytes of arrays."""
    import numpy as np

    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, tuples and paths as JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)
