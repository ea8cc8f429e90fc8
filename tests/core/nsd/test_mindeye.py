"""MindEye2's prepared files."""

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(9, 5)).astype(np.float32)
    behaviour = np.full((3, 4, 17), -1.0)
    order = rng.permutation(9)
    flat = behaviour.reshape(-1, 17)
    for row, trial in enumerate(order):
        flat[row, [0, 5, 16]] = 100 + trial % 4, trial, trial % 4 == 2
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["betas"] = betas
    np.save(tmp_path / "behav.npy", behaviour)
    return tmp_path / "b.hdf5", tmp_path / "behav.npy", betas, behaviour


def test_averages_and_missing_rows(files):
    betas = nsd.mindeye_betas(*files[:2])
    np.testing.assert_array_equal(betas.stimulus_ids, [100, 101, 102, 103])
    np.testing.assert_allclose(betas.data, [files[2][k::4].mean(0) for k in range(4)], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(betas.repeats, [3, 2, 2, 2])
    np.testing.assert_array_equal(betas.shared, [False, False, True, False])
    assert betas.notes == ["3 missing trials (-1) left out"] and betas.voxels is None
    with pytest.raises(nsd.NSDError, match="voxel positions"):
        betas.to_volume(np.zeros(5))


def test_single_trials(files):
    np.testing.assert_array_equal(nsd.mindeye_betas(*files[:2], average_repeats=False).data, files[2])


def test_tables_that_do_not_fit(files):
    path, behav, _, table = files
    table[0, 0, 5] = 9
    np.save(behav, table)
    with pytest.raises(nsd.NSDError, match="each of the 9 trials"):
        nsd.mindeye_betas(path, behav)
    np.save(behav, table[..., :5])
    with pytest.raises(nsd.NSDError, match="17 columns"):
        nsd.mindeye_betas(path, behav)
    path.write_bytes(path.read_bytes()[:900])
    np.save(behav, table)
    with pytest.raises(nsd.NSDError, match="truncated"):
        nsd.mindeye_betas(path, behav)
