"""Dictionaries that `numpy.save` pickled, read without running anything: arrays, numbers, text, lists and dicts only.

A pickle is a program, and a general unpickler runs what the file asks for.  This one knows five names of NumPy, each of
which stands for a plain object of this module; every other name is refused before it is looked up.  Large arrays are
mapped from the file where they lie and not read.
"""

import pickle  # noqa: S403, TID251 (only its reader of opcodes, every name of which is replaced below)
import struct
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import file_trouble

MAPPED = 2**20
"""Bytes from which an array is mapped and not read."""
KINDS = "biufcSU"
"""Kinds of NumPy types without pointers or fields."""
DAMAGED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, MemoryError, RecursionError, AssertionError, struct.error, OSError),
    *(SyntaxError, tokenize.TokenError),
)
"""What reading damaged opcodes raises."""


class SafeNpyError(UserError):
    """A pickled dictionary cannot be read, or asks for more than arrays, numbers, text, lists and dicts."""


class _Refused(pickle.UnpicklingError):
    """The file asks for something else than data."""


def load_dict(
    path: str | Path, name: str = "a dictionary of arrays", error: type[UserError] = SafeNpyError
) -> dict[Any, Any]:
    """Read a dictionary of a file that `numpy.save(path, {...})` wrote.

    Parameters
    ----------
    path : path
    name : str
        What it must be, for the message.
    error : type
        Class of the error that is raised.

    Returns
    -------
    dict
        Arrays of a megabyte or more are read-only `numpy.memmap`.

    Raises
    ------
    UserError
        Of class `error`: missing, damaged, no dictionary, or with objects of any other class.
    """
    if trouble := file_trouble(path):
        raise error(f"{path} must be {name}, got {trouble}")
    try:
        with open(path, "rb") as stream:
            found = _read(stream, Path(path))
    except _Refused as problem:
        raise error(
            f"{path} must hold arrays, numbers, text, lists and dicts only, got {problem}. It was not opened, as it "
            "could run a program: save plain arrays (numpy.savez, HDF5)."
        ) from problem
    except DAMAGED as problem:
        raise error(f"{path} must be {name}, got a damaged file ({problem}). Copy or write it again.") from problem
    if not isinstance(found, dict):
        raise error(f"{path} must be {name}, got {type(found).__name__}. Choose the file that holds the dictionary.")
    return found


def _read(stream: BinaryIO, path: Path) -> Any:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if not dtype.hasobject:
        return np.empty(0, dtype)
    outer = _plain(_Reader(stream, path).load())
    return outer.item() if isinstance(outer, np.ndarray) and shape == () and outer.shape == () else outer


@dataclass(frozen=True)
class _Mapped:
    """Bytes that stay in the file."""

    path: Path
    offset: int
    size: int


class _DType:
    """Stands for `numpy.dtype(code)`."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in f"{KINDS}O" or self.dtype.names:
            raise _Refused(f"values of type {code!r}")

    def set_state(self, state: tuple[Any, ...]) -> None:
        """(version, byte order, subarray, names, fields, ...)."""
        if state[2] is not None or state[3] is not None:
            raise _Refused("structured arrays")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for an array, which its state makes."""

    value: np.ndarray | None = None

    def set_state(self, state: tuple[Any, ...]) -> None:
        """(version, shape, dtype, Fortran order, bytes or list)."""
        self.value = _array(*state[-4:])


def _array(shape: tuple[int, ...], kind: _DType, fortran: Any, raw: Any) -> np.ndarray:
    dtype = kind.dtype
    order: Literal["C", "F"] = "F" if fortran else "C"
    n = int(np.prod(shape, dtype=object)) if shape else 1
    if dtype.hasobject:
        if not isinstance(raw, list) or len(raw) != n:
            raise ValueError("an array of objects of another length")
        items = np.empty(n, dtype=object)
        for k, item in enumerate(raw):
            items[k] = item
        return items.reshape(shape)
    if isinstance(raw, _Mapped):
        if raw.size != n * dtype.itemsize:
            raise ValueError(f"an array of {raw.size} bytes in place of {n * dtype.itemsize}")
        return np.memmap(raw.path, dtype, "r", raw.offset, tuple(shape), order)
    return np.frombuffer(raw if not isinstance(raw, str) else raw.encode("latin1"), dtype).reshape(shape, order=order)


def _scalar(kind: _DType, raw: Any) -> Any:
    return _array((), kind, False, raw)[()]


def _encode(text: str, coding: str) -> bytes:
    """How the oldest pickles hold bytes."""
    if coding != "latin1":
        raise _Refused(f"text in {coding}")
    return text.encode("latin1")


NAMES: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": lambda *_: _Array(),
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": lambda raw, kind, shape, order: _array(shape, kind, order == "F", raw),
    "ndarray": _Array,
    "dtype": _DType,
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",
}
"""What each name of a file stands for; those of NumPy without its prefix."""


OPCODES: Any = pickle._Unpickler
"""In Python, so that each opcode can be replaced; it has no type hints."""


class _Reader(OPCODES):  # type: ignore[misc]
    """The opcodes of `pickle` with names from `NAMES` only."""

    dispatch: dict[int, Any] = dict(OPCODES.dispatch)

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        super().__init__(stream)
        self._stream, self._path = stream, path
        self._end = path.stat().st_size

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for."""
        short = f"{module}.{name}".removeprefix("numpy._core.").removeprefix("numpy.core.").removeprefix("numpy.")
        if short not in NAMES:
            raise _Refused(f"{module}.{name}")
        return NAMES[short]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to another file")

    def get_extension(self, code: int) -> Any:
        raise _Refused(f"the extension {code}")

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _DType)):
            raise _Refused(f"a state for {type(self.stack[-1]).__name__}")
        self.stack[-1].set_state(state)

    def _bytes(self, size: int) -> None:
        """Take `size` bytes: large ones are left where they lie; pickles write those outside their frames."""
        if size > self._end:
            raise EOFError("fewer bytes than it announces")
        frame = self._unframer.current_frame
        if size < MAPPED or (frame and frame.tell() < len(frame.getbuffer())):
            return self.append(self.read(size))
        place = self._stream.tell()
        if place + size > self._end:
            raise EOFError(f"{self._end} of {place + size} bytes or more")
        self._stream.seek(size, 1)
        self.append(_Mapped(self._path, place, size))

    def _sized(self, code: str) -> None:
        self._bytes(struct.unpack(code, self.read(struct.calcsize(code)))[0])


_Reader.dispatch |= {
    pickle.BUILD[0]: _Reader._build,
    pickle.BINBYTES[0]: lambda self: self._sized("<I"),
    pickle.BINBYTES8[0]: lambda self: self._sized("<Q"),
    pickle.BYTEARRAY8[0]: lambda self: self._sized("<Q"),
}


def _plain(value: Any) -> Any:
    """The data that stand-ins stand for, throughout lists, tuples and dicts."""
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, _DType):
        return value.dtype
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        plain = np.empty(value.size, dtype=object)
        for k, item in enumerate(value.ravel()):
            plain[k] = _plain(item)
        return plain.reshape(value.shape)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if callable(value) or isinstance(value, _Mapped):
        raise _Refused("something else than data")
    return value
