"""Messages between a front end and the engine: a JSON header and the raw bytes of its arrays, over a pipe."""

import json
import struct
from typing import IO, Any

import numpy as np

LENGTH = struct.Struct("<Q")
LONGEST = 2**33
"""Bytes of a header or array that a sane peer can announce; a larger number means that something else wrote here."""


class WireError(OSError):
    """The other side closed the pipe in the middle of a message, or wrote something that is none."""


def send(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Write one message: JSON values, and NumPy arrays at its top level."""
    arrays = {key: np.asarray(v, order="C") for key, v in message.items() if isinstance(v, np.ndarray)}
    plain = {key: value for key, value in message.items() if key not in arrays}
    layout = [[key, str(a.dtype), list(a.shape)] for key, a in arrays.items()]
    header = json.dumps([plain, layout]).encode()
    stream.write(LENGTH.pack(len(header)) + header)
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """Read one message; None where the other side has closed the pipe between messages.

    Raises
    ------
    WireError
        If the pipe ends inside a message or holds something else.
    """
    start = stream.read(LENGTH.size)
    if not start:
        return None
    try:
        plain, layout = json.loads(_exactly(stream, LENGTH.unpack(start)[0]))
    except (struct.error, ValueError, TypeError) as error:
        raise WireError(f"a message must start with its header, got: {error}") from error
    for key, dtype, shape in layout:
        kind = np.dtype(dtype)
        data = _exactly(stream, kind.itemsize * int(np.prod(shape, dtype=np.int64)))
        plain[key] = np.frombuffer(data, kind).reshape(shape)
    return plain


def _exactly(stream: IO[bytes], n: int) -> bytes:
    if n > LONGEST:
        raise WireError(f"a part of a message must be at most {LONGEST} bytes, got {n}")
    data = stream.read(n)
    if len(data) != n:
        raise WireError(f"the pipe must deliver {n} bytes, got {len(data)}: the other side ended")
    return data
