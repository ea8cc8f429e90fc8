"""Messages over a pipe: arrays arrive bit for bit, and a broken pipe is an error and not a hang or a wrong value."""

import io

import numpy as np
import pytest

from napari_neuraldiffuser.core.engine import wire

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::-1],
    np.array(2.5),
    np.zeros((3, 0, 2), np.float32),
    np.array([[np.nan, np.inf]], dtype=">f8"),
    np.array([True, False]),
]


def through(*messages):
    stream = io.BytesIO()
    for message in messages:
        wire.send(stream, message)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_arrive_bit_for_bit(array):
    got = wire.receive(through({"event": "x", "array": array, "n": 3}))
    assert got["n"] == 3
    assert got["array"].dtype == array.dtype
    assert got["array"].shape == array.shape
    assert got["array"].tobytes() == np.ascontiguousarray(array).tobytes()


def test_messages_keep_their_order_and_the_end_is_none():
    stream = through({"a": 1}, {"b": np.ones(2)}, {"c": "é\n"})
    assert wire.receive(stream) == {"a": 1}
    assert list(wire.receive(stream)) == ["b"]
    assert wire.receive(stream) == {"c": "é\n"}
    assert wire.receive(stream) is None


def test_every_cut_is_noticed():
    whole = through({"a": 1, "x": np.arange(4)}).getvalue()
    for end in range(1, len(whole)):
        with pytest.raises(wire.WireError):
            wire.receive(io.BytesIO(whole[:end]))


@pytest.mark.parametrize("junk", [b"Traceback (most recent call last)", b"\0" * 64, b"\x05" + b"\0" * 7 + b"hello"])
def test_something_else_in_the_pipe_is_noticed(junk):
    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(junk))
