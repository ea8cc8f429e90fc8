"""Pickled dictionaries of arrays: equal to what NumPy's own reader gives, and nothing that they ask for is run."""

import io
import os
import pickle
import struct

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.safe_npy import MAPPED, SafeNpyError, load_dict

RNG = np.random.default_rng(0)
BIG = RNG.normal(size=(21, 31, 17, 30)).astype(np.float32)


def contents(betas=BIG):
    return {
        "betasmd": betas,
        "fortran": np.asfortranarray(betas[..., ::2]),
        "R2": betas[..., 0].copy(),
        "swapped": np.arange(5, dtype=">i4"),
        "none": None,
        "pcnum": np.int64(4),
        "tr": 1.6,
        "flag": np.bool_(True),
        "empty": np.array([]),
        "list": [np.arange(3), np.zeros((0, 4)), [1, "text", b"bytes", (2.5, False)]],
        "text": np.array(["ab", "c"]),
        "objects": np.array([np.arange(2), None, "x"], dtype=object),
        "params": {"wantlibrary": 1, "fracs": np.linspace(1, 0.05, 20), "deep": {"a": {"b": [1, 2]}}},
        3: -(2**70),
    }


def same(got, want):
    assert type(got) is type(want) or isinstance(want, np.ndarray)
    if isinstance(want, np.ndarray):
        assert got.shape == want.shape and got.dtype.newbyteorder("=") == want.dtype.newbyteorder("=")
        if want.dtype.hasobject:
            for a, b in zip(got.ravel(), want.ravel(), strict=True):
                same(a, b)
        else:
            np.testing.assert_array_equal(got, want)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
    else:
        assert got == want


def test_what_numpy_saves_comes_back(tmp_path):
    np.save(tmp_path / "x.npy", contents())
    found = load_dict(tmp_path / "x.npy")
    same(found, contents())
    same(found, np.load(tmp_path / "x.npy", allow_pickle=True).item())
    assert isinstance(found["betasmd"], np.memmap) and BIG.nbytes > MAPPED
    assert not isinstance(found["R2"], np.memmap)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_every_protocol_and_the_names_of_numpy_1(tmp_path, protocol, old):
    write(tmp_path / "x.npy", contents(BIG[:3, :4]), protocol, old)
    same(load_dict(tmp_path / "x.npy"), contents(BIG[:3, :4]))


def write(path, value, protocol=4, old=False):
    """As `numpy.save` does, of any protocol, and with NumPy 1's name of its core where `old`."""
    outer = np.empty((), dtype=object)
    outer[()] = value
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
        content = pickle.dumps(outer, protocol=protocol)
        if old:
            new, former = b"numpy._core.", b"numpy.core."
            content = (
                content.replace(b"c" + new, b"c" + former)
                if protocol < 4
                else content.replace(b"\x8c\x16" + new + b"multiarray", b"\x8c\x15" + former + b"multiarray")
            )
            if protocol >= 4:  # a frame says how long it is
                first = content.index(b"\x95")
                (size,) = struct.unpack("<Q", content[first + 1 : first + 9])
                content = content[: first + 1] + struct.pack("<Q", size - 1) + content[first + 9 :]
        stream.write(content)


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("call", "args"),
    [
        (os.system, "touch {}"),
        (eval, "open({!r}, 'w')"),
        (getattr, "__class__"),
        (os.mkdir, "{}"),
        (np.load, "{}"),
        (io.open, "{}"),
    ],
)
def test_a_malicious_file_runs_nothing(tmp_path, protocol, call, args):
    mark = tmp_path / "ran"
    for value in (Evil(call, args.format(str(mark))), {"betasmd": [Evil(call, args.format(str(mark)))]}):
        write(tmp_path / "x.npy", value, protocol)
        with pytest.raises(SafeNpyError, match="arrays, numbers, text, lists and dicts only, got .*It was not opened"):
            load_dict(tmp_path / "x.npy")
        assert not mark.exists()


def raw(path, opcodes):
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
        stream.write(opcodes)


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02cposix\nsystem\n.",
        b"\x80\x02(S'true'\niposix\nsystem\n.",  # INST
        b"\x80\x02(cposix\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02S'x'\nQ.",  # BINPERSID
        b"\x80\x02Px\n.",  # PERSID
        b"\x80\x02cnumpy\nndarray\n.",  # a stand-in itself
        b"\x80\x02cnumpy\nndarray\n}(S'set_state'\ncnumpy\ndtype\nub.",  # a stand-in changed
        b"\x80\x02]}b.",  # a state for a list
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x02cnumpy\nrecarray\n.",
    ],
)
def test_opcodes_that_ask_for_more_than_data_are_refused(tmp_path, opcodes):
    raw(tmp_path / "x.npy", opcodes)
    with pytest.raises(SafeNpyError, match="lists and dicts only"):
        load_dict(tmp_path / "x.npy")


def test_dtypes_that_hold_pointers_or_fields_are_refused(tmp_path):
    for value in (np.zeros(2, [("a", "f4")]), np.zeros(2, "M8[s]"), np.zeros(2, "V3")):
        write(tmp_path / "x.npy", {"a": value})
        with pytest.raises(SafeNpyError, match="lists and dicts only|damaged"):
            load_dict(tmp_path / "x.npy")


def test_damaged_files_have_a_sentence_and_never_a_traceback(tmp_path):
    np.save(tmp_path / "x.npy", contents())
    whole = (tmp_path / "x.npy").read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for k in range(120):
        damaged = bytearray(whole)
        if k % 3:
            place = rng.integers(0, 3000 if k % 2 else len(whole))
            damaged[place] = rng.integers(256)
        else:
            damaged = damaged[: rng.integers(len(whole))]
        (tmp_path / "y.npy").write_bytes(damaged)
        try:
            load_dict(tmp_path / "y.npy")
        except SafeNpyError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30


def test_other_files_are_named(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(4))
    with pytest.raises(SafeNpyError, match="x.npy must be a dictionary of arrays, got ndarray"):
        load_dict(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([1, None], dtype=object))
    with pytest.raises(SafeNpyError, match="got ndarray"):
        load_dict(tmp_path / "x.npy")
    with pytest.raises(SafeNpyError, match="no such file"):
        load_dict(tmp_path / "none.npy")
    (tmp_path / "x.npy").write_bytes(b"not one")
    with pytest.raises(SafeNpyError, match="damaged file"):
        load_dict(tmp_path / "x.npy")
