"""Writing files so that a killed run leaves nothing half-written, and knowing what a file was made from."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.core.base.errors import UserError


class OutputError(UserError, OSError):
    """An output folder or file cannot be written; the message names it and the remedy."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same suffixes; rename it into place on success only.

    Raises
    ------
    OutputError
        If the folder cannot be created or written.
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
        raise OutputError(
            f"{folder} must be a folder that can be written, got: {error.strerror or error}. "
            "Choose another output folder or change its permissions."
        ) from error


def located(path: str | Path) -> str:
    """A path that means the same in every folder, and for `~` too; nothing stays nothing."""
    # pathlib raises where nobody has the name after ~
    return str(Path(os.path.expanduser(path)).absolute()) if str(path) else ""


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=_plain) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`: equal inputs and parameters give equal fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, tuples and paths as JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)
