"""Looks for a text in every file of a folder, through compression."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np


def files_with(folder: Path, text: str) -> list[str]:
    """Files and folders below `folder` that have `text` in their name or, as they are or decompressed, in them."""
    wanted = text.encode()
    found = [path for path in sorted(folder.rglob("*")) if text in path.name or _has(path, wanted)]
    return [str(path.relative_to(folder)) for path in found]


def _has(path: Path, wanted: bytes) -> bool:
    if not path.is_file():
        return False
    # UTF-16 is how some formats write text
    forms = (wanted, wanted.decode().encode("utf-16-le"))
    return any(form in content for content in _contents(path) for form in forms)


def _contents(path: Path) -> Iterator[bytes]:
    raw = path.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    elif raw[:1] == b"\x78":
        yield zlib.decompress(raw)
    elif h5py.is_hdf5(path):
        yield from _hdf5(path)


def _hdf5(path: Path) -> Iterator[bytes]:
    """Names, attributes and datasets: a dataset may be compressed in the file."""
    found: list[bytes] = []

    def look(name: str, thing: h5py.Dataset | h5py.Group) -> None:
        found.extend([name.encode(), repr(dict(thing.attrs)).encode()])
        if isinstance(thing, h5py.Dataset):
            values = thing[()]
            found.append(values.tobytes() if isinstance(values, np.ndarray) else repr(values).encode())

    with h5py.File(path, "r") as file:
        look("", file)
        file.visititems(look)
    yield from found
