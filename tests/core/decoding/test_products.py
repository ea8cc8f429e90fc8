"""Products with targets on disk against those with the whole array."""

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding import products, targets
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.networks.embeddings import TargetFile
from tests.support.stand_ins import linear_data, make_targets

N = 50


@pytest.fixture(params=["memory", "contiguous", "chunked"])
def stored(request, tmp_path):
    """Targets of 60 stimuli in half precision, their values, and rows of 50 betas with repeats in another order."""
    y = linear_data(60, 5)[1].astype(np.float16)
    made = make_targets(y)
    ids = np.random.default_rng(0).permutation(60)[:N]
    ids[3] = ids[4]
    if request.param == "memory":
        yield made, y[:, 14:].astype(np.float64)[ids], ids
        return
    made.save(tmp_path / "t.h5")
    if request.param == "chunked":
        with h5py.File(tmp_path / "t.h5", "a") as file:
            values = file["g/g02"][...]
            del file["g/g02"]
            file.create_dataset("g/g02", data=values, chunks=(7, 1, 3), compression="gzip")
    with TargetFile(tmp_path / "t.h5") as file:
        yield file, y[:, 14:].astype(np.float64)[ids], ids


def matrix(stored, dtype):
    made, y, ids = stored
    mean = y.mean(0)
    rows = targets.match_rows(made.stimulus_ids, ids)
    return products.TargetMatrix(made, "g02", rows, mean, np.dtype(dtype)), y - mean


def test_contiguous_files_are_mapped_and_others_are_not(stored):
    made, _, _ = stored
    got = targets.mapped(made["g02"])
    contiguous = isinstance(made["g02"], h5py.Dataset) and not made["g02"].chunks
    assert isinstance(got, np.memmap) == contiguous
    np.testing.assert_array_equal(got[5:9], made["g02"][5:9])


def test_a_file_that_took_the_place_of_an_open_one_is_not_mapped(tmp_path):
    for name, value in (("t.h5", 1.0), ("other.h5", 2.0)):
        with h5py.File(tmp_path / name, "w") as file:
            file["g"] = np.full((4, 3), value, np.float32)
    with h5py.File(tmp_path / "t.h5", "r") as opened:
        assert isinstance(targets.mapped(opened["g"]), np.memmap)
        (tmp_path / "other.h5").replace(tmp_path / "t.h5")
        np.testing.assert_array_equal(targets.mapped(opened["g"])[:], 1.0)


@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-9), (np.float32, 1e-4)])
@pytest.mark.parametrize("k", [1, 3, 70])
@pytest.mark.parametrize("block", [2**26, 1])
def test_products_equal_those_with_the_array(monkeypatch, stored, dtype, rtol, k, block):
    monkeypatch.setattr(targets, "BYTES_AT_ONCE", block)
    made, y = matrix(stored, dtype)
    rng = np.random.default_rng(1)
    weights, q = rng.standard_normal((k, N)), rng.standard_normal((k, y.shape[1]))
    got = made.weighted([(weights, products.EVERY)])
    assert got.dtype == dtype
    np.testing.assert_allclose(got, weights @ y, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(made.times([(q, products.EVERY)])[0], y @ q.T, rtol=rtol, atol=rtol)
    # columns with weights of their own, none for the last
    other, columns = rng.standard_normal((k, N)), [np.array([0, 3, 4]), np.array([5, 1])]
    got = made.weighted([(weights, columns[0]), (other, columns[1])])
    expected = np.zeros((k, y.shape[1]))
    for w, c in zip((weights, other), columns, strict=True):
        expected[:, c] = w @ y[:, c]
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
    for part, c in zip(made.times([(q[:, c], c) for c in columns]), columns, strict=True):
        np.testing.assert_allclose(part, y[:, c] @ q[:, c].T, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_and_panels_are_the_centred_targets(monkeypatch, stored, dtype):
    monkeypatch.setattr(targets, "BYTES_AT_ONCE", 1)
    made, y = matrix(stored, dtype)
    out = np.full_like(y, np.nan)
    for positions, rows in made.blocks():
        out[positions] = rows
    np.testing.assert_allclose(out, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.panel(slice(2, 5)), y[:, 2:5], rtol=1e-5, atol=1e-5)


def test_a_device_that_is_not_there_is_refused():
    import torch

    assert products.checked_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(DecodingError, match="decoder_device must be there, got cuda"):
            products.checked_device("cuda")
