"""Keeps a second process out of what one process writes."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import json_object, make_folder

try:
    import fcntl
except ImportError:  # Windows: the holder that the file names must do
    fcntl = None  # type: ignore[assignment]


class BusyError(UserError):
    """Another process writes there; the message names it and what can be done."""


def output_lock(out_dir: str | Path, label: str) -> tuple[Path, str, str]:
    """What `held` needs for the results of a subject or the group; the file is hidden: it is no result."""
    return make_folder(out_dir) / f".{label}.lock", f"{label} in {out_dir}", "give another OUT_DIR"


@contextmanager
def held(path: Path, what: str, elsewhere: str) -> Iterator[None]:
    """Hold the lock file `path` inside the block; it goes with the block, however that ends.

    A lock whose holder has died on this machine is taken over.  Where a disk has file locks they decide, and elsewhere
    whether the process that the file names is alive.

    Parameters
    ----------
    path : Path
    what : str
        What is held, for the message.
    elsewhere : str
        What else could be done than to wait: "give another OUT_DIR".

    Raises
    ------
    BusyError
        If another process holds it, or one on another machine did not give it back.
    """
    file = _opened(path, what, elsewhere)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        file.close()


def _opened(path: Path, what: str, elsewhere: str) -> IO[str]:
    """The lock file, locked and with this process in it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            locks = _lock(file)
            holder = json_object(path) or {}
            if not locks and _may_live(holder):
                raise BlockingIOError
            if holder and holder.get("host") != socket.gethostname():
                raise BusyError(
                    f"{what} must be written by one process at a time, and {_name(holder)} has not ended it as far as "
                    f"{path} tells. Wait for its end, or delete that file if it has ended; or {elsewhere}."
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
                    file.flush()
                    return file
        except BlockingIOError as error:
            holder = json_object(path) or {}
            file.close()
            raise BusyError(
                f"{what} must be written by one process at a time, and {_name(holder)} does. "
                f"Wait for its end, or {elsewhere}."
            ) from error
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held it has just removed the file: there is another one now, or none


def _lock(file: IO[str]) -> bool:
    """Lock a file; False where the disk or the system has no locks, BlockingIOError where it is locked."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _may_live(holder: dict[str, Any]) -> bool:
    """Whether the process of this machine that a lock file names is alive."""
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return holder["pid"] != os.getpid()


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
