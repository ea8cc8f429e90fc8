"""Streaming of targets: rows matched by stimulus, any order, block boundaries, repeats."""

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core.decoding import DecodingError, targets
from napari_neuraldiffuser.core.networks.embeddings import TargetFile
from tests.support.stand_ins import make_targets


@pytest.fixture
def stored(tmp_path):
    y = np.random.default_rng(1).standard_normal((150, 22)).astype(np.float32)
    make_targets(y, np.arange(150) * 3).save(tmp_path / "targets.h5")
    with TargetFile(tmp_path / "targets.h5") as file:
        yield y, file


@pytest.mark.parametrize("step_bytes", [1, 2**26])
def test_rows_in_any_order_and_with_repeats(stored, monkeypatch, step_bytes):
    monkeypatch.setattr(targets, "BYTES_AT_ONCE", step_bytes)
    y, file = stored
    wanted = np.random.default_rng(2).integers(0, 150, 77)
    rows = targets.match_rows(file.stimulus_ids, wanted * 3)
    got = targets.gather(file, "c", rows, np.float64)
    np.testing.assert_array_equal(got, y[wanted, 8:14])
    assert got.dtype == np.float64


def test_blocks_are_small_and_cover_every_row_once(stored, monkeypatch):
    monkeypatch.setattr(targets, "BYTES_AT_ONCE", 1)
    y, file = stored
    rows = targets.match_rows(file.stimulus_ids, file.stimulus_ids[::-1])
    parts = list(targets.blocks(file, "z", rows, np.float32))
    assert max(len(values) for _, values in parts) <= 16
    assert sorted(np.concatenate([p for p, _ in parts])) == list(range(150))


def test_blocks_skip_what_no_beta_needs(stored, monkeypatch):
    monkeypatch.setattr(targets, "BYTES_AT_ONCE", 1)
    _, file = stored
    rows = targets.match_rows(file.stimulus_ids, np.array([0, 447]))
    assert [len(values) for _, values in targets.blocks(file, "z", rows, np.float32)] == [1, 1]


def test_summary_is_mean_and_columns(stored):
    y, file = stored
    rows = targets.match_rows(file.stimulus_ids, file.stimulus_ids[10:99])
    mean, chosen = targets.summary(file, "g02", rows, np.float32, np.array([0, 3, 7]))
    np.testing.assert_allclose(mean, y[10:99, 14:].astype(np.float64).mean(0), atol=1e-3)
    half = y[10:99, 14:]
    np.testing.assert_allclose(chosen, half[:, [0, 3, 7]], atol=1e-3)


def test_first_missing_stimulus_is_named():
    with pytest.raises(DecodingError, match=r"none for stimulus 5 \(2 of 4 missing\)"):
        targets.match_rows(np.array([1, 2, 3]), np.array([3, 5, 1, 9]))
    with pytest.raises(DecodingError, match="stimulus 1"):
        targets.match_rows(np.array([], dtype=int), np.array([1]))


def test_not_finite_targets_are_refused(tmp_path):
    y = np.ones((5, 22), np.float32)
    y[3, 9] = np.inf
    rows = targets.match_rows(np.arange(5), np.arange(5))
    with pytest.raises(DecodingError, match="'c'.*must be finite"):
        targets.summary(make_targets(y), "c", rows, np.float32, np.array([0]))


def test_names_need_targets_of_the_project(tmp_path):
    with pytest.raises(DecodingError, match="some of"):
        targets.target_names({"x": np.zeros((3, 2))})
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["c"], file["z"] = np.zeros((3, 2, 2)), np.zeros((3, 4, 2, 2))
        assert targets.target_names(file) == ("z", "c")
        assert targets.target_shape(file, "z") == (4, 2, 2)
