"""Opening HDF5 files: whatever can be wrong with one has a sentence of its own, and disks without file locks serve."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path, file_trouble

LOCK_ERROR = re.compile(r"unable to lock file, errno = (\d+)")
DAMAGED = ("truncated file", "file signature not found", "bad object header", "bad superblock", "addr overflow")
"""What HDF5 says of a file that a killed run or a broken download left."""


class Hdf5Error(UserError):
    """An HDF5 file cannot be used as it is; the message names it, why, and the remedy."""


def open_hdf5(path: str | Path, name: str, error: type[UserError] = Hdf5Error, mode: str = "r") -> h5py.File:
    """Open an HDF5 file.

    Parameters
    ----------
    path : path
    name : str
        What the file must be, for the message, such as "a decoder file".
    error : type
        Class of the error that is raised.
    mode : "r" or "a"
        As of h5py.

    Raises
    ------
    UserError
        Of class `error`: missing, a folder, empty, not readable, not HDF5, cut off, locked or left open by another
        program.
    """
    fresh = mode != "r" and not Path(path).exists()
    if not fresh and (trouble := file_trouble(path)):
        raise error(f"{path} must be {name}, got {trouble}")
    try:
        return _with_or_without_locks(path, mode)
    except OSError as problem:
        raise error(f"{path} must be {name}, got {_cause(problem)}") from problem


@contextmanager
def reading_hdf5(path: str | Path, name: str, error: type[UserError] = Hdf5Error) -> Iterator[h5py.File]:
    """An open HDF5 file; what cannot be read inside the block is an `error` as well."""
    with open_hdf5(path, name, error) as file:
        try:
            yield file
        except OSError as problem:
            if isinstance(problem, UserError):
                raise
            raise error(f"{path} must be {name}, got {_cause(problem)}") from problem


@contextmanager
def creating_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """A new HDF5 file for writing; it is at `path` when the block ends without an error."""
    with atomic_path(path) as temporary, _with_or_without_locks(temporary, "w") as file:
        yield file


def is_whole(path: str | Path) -> bool:
    """Whether an HDF5 file is there and complete; a file that is there but locked or not readable is an Hdf5Error."""
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return False
    try:
        open_hdf5(path, "an HDF5 file").close()
    except Hdf5Error as problem:
        if any(words in str(problem.__cause__) for words in DAMAGED):
            return False
        raise
    return True


def dataset_of(
    file: h5py.File, key: str, axes: tuple[str, ...], name: str, error: type[UserError] = Hdf5Error
) -> h5py.Dataset:
    """A dataset of numbers that lies in the file itself.

    Parameters
    ----------
    file : h5py.File
    key : str
        Its place in the file.
    axes : tuple of str
        What its axes are; it must have as many.
    name : str
        What the file is, for the message.
    error : type
        Class of the error that is raised.

    Raises
    ------
    UserError
        Of class `error`: absent, a group, in another file, of other axes, empty, or not real numbers.
    """
    wanted = f"{file.filename} must hold a dataset {key!r} of {len(axes)} axes ({', '.join(axes)}) for {name}"
    link = file.get(key, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise error(f"{wanted}, got a link to {link.filename}. Copy the dataset into the file (h5repack, h5copy).")
    found = file.get(key)
    if found is None and isinstance(link, h5py.SoftLink):
        raise error(f"{wanted}, got a link to {link.path!r}, which is not in it. Choose the file that holds it.")
    if found is None:
        raise error(f"{wanted}, got {', '.join(sorted(file)) or 'nothing'}. Choose the file that holds it.")
    if not isinstance(found, h5py.Dataset):
        raise error(
            f"{wanted}, got a group of {', '.join(sorted(found)) or 'nothing'}. Save one array under this name."
        )
    if found.is_virtual or found.external:
        raise error(f"{wanted}, got one whose numbers lie in other files. Write them into one file.")
    if found.ndim != len(axes) or not found.size:
        raise error(f"{wanted}, got shape {found.shape}. Choose the file of that layout.")
    if found.dtype.kind not in "iuf":
        raise error(f"{wanted}, of real numbers, got {found.dtype}. Save it as float32 or int16.")
    return found


def _with_or_without_locks(path: str | Path, mode: str) -> h5py.File:
    """HDF5 locks every file that it opens, which some network disks cannot do: there it is opened without."""
    try:
        return h5py.File(path, mode)
    except OSError as problem:
        locked = LOCK_ERROR.search(str(problem))
        if not locked or int(locked[1]) in (errno.EAGAIN, errno.EACCES):
            raise
        return h5py.File(path, mode, locking=False)


def _cause(problem: OSError) -> str:
    """Why HDF5 could not open or read a file, and what to do."""
    said = str(problem)
    if LOCK_ERROR.search(said):
        return "a file that another program is writing. Close that program, or wait until it is done."
    if "file signature not found" in said:
        return "a file of another format than HDF5. Choose another, or save it as HDF5."
    if "truncated file" in said:
        return "a truncated file: some of its end is missing. Download or write it again."
    if "already open for write" in said or "consistency flags" in said:
        return "a file that was not closed by what wrote it. Write it again, or repair it (h5clear -s)."
    if "filter" in said or "plugin" in said:
        return f"compression that is not known here ({said}). Save it with gzip or uncompressed (h5repack)."
    if isinstance(problem, PermissionError):
        return "a file that may not be changed. Change its permissions."
    if problem.errno:
        return f"{problem.strerror}. Check the disk."
    return f"a damaged file ({said}). Download or write it again."
