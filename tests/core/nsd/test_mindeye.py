"""MindEye2's prepared files."""

import io
import tarfile

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


N_TRAIN, N_TEST, SESSIONS = 9000, 1000, 40


def full_size(seed=0):
    """A subject of 30,000 trials: 10,000 images shown three times, a thousand of them shared; two voxels of betas."""
    rng = np.random.default_rng(seed)
    images = rng.choice(73_000, N_TRAIN + N_TEST, replace=False)
    shown = rng.permutation(np.repeat(np.arange(len(images)), 3))
    table = np.full((len(shown), 17), -1.0)
    table[:, 0], table[:, 5], table[:, 16] = images[shown], np.arange(len(shown)), shown >= N_TRAIN
    table[:, 2] = np.arange(len(shown)) // 750 + 1
    table[rng.choice(len(table), 5000, replace=False), 9] = -1  # no response: not a missing trial
    return table, rng.normal(size=(len(shown), 2)).astype(np.float32)


def check(betas, table, values):
    _, test = betas.split()
    assert (len(betas), len(test), int(test.repeats.sum())) == (N_TRAIN + N_TEST, N_TEST, 3 * N_TEST)
    assert betas.notes == [] and betas.dropped == {} and betas.space == "mindeye2"
    for one in (0, 17, len(betas) - 1):
        rows = table[:, 0] == betas.stimulus_ids[one]
        np.testing.assert_allclose(betas.data[one], values[rows].mean(0), rtol=1e-5, atol=1e-6)
        assert betas.shared[one] == table[rows, 16].any()


def test_the_whole_of_a_subject_with_its_new_test_split(tmp_path):
    table, values = full_size()
    with h5py.File(tmp_path / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = values
    np.save(tmp_path / "behav.npy", table[np.random.default_rng(1).permutation(len(table))])
    check(nsd.mindeye_betas(tmp_path / "betas_all_subj01_fp32_renorm.hdf5", tmp_path / "behav.npy"), table, values)


def write_tars(folder, table, sessions):
    """As webdataset writes them: for each sample several arrays, of which one is the trial's own row."""
    for split, flag in (("train", 0), ("new_test", 1)):
        (folder / split).mkdir(parents=True)
        for session in range(1, sessions + 1):
            with tarfile.open(folder / split / f"{session - 1}.tar", "w") as tar:
                for k, row in enumerate(table[(table[:, 2] == session) & (table[:, 16] == flag)]):
                    for name, value in (
                        ("behav", row[None]),
                        ("past_behav", row[None] + 1),
                        ("olds_behav", -row[None]),
                    ):
                        content = io.BytesIO()
                        np.save(content, value)
                        about = tarfile.TarInfo(f"sample{k:09d}.{name}.npy")
                        about.size = len(content.getvalue())
                        tar.addfile(about, io.BytesIO(content.getvalue()))
    (folder / "test").mkdir()
    (folder / "test/0.tar").write_bytes(b"of an earlier release")


def test_the_tar_files_give_what_one_table_gives(tmp_path):
    table, values = full_size(2)
    table, values = table[:1500], values[:1500]
    write_tars(tmp_path / "wds/subj01", table, 2)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["betas"] = values
    np.save(tmp_path / "behav.npy", table)
    by_tar = nsd.mindeye_betas(tmp_path / "b.hdf5", tmp_path / "wds/subj01")
    by_table = nsd.mindeye_betas(tmp_path / "b.hdf5", tmp_path / "behav.npy")
    for name in ("data", "stimulus_ids", "shared", "repeats"):
        np.testing.assert_array_equal(getattr(by_tar, name), getattr(by_table, name))


def test_tar_files_that_do_not_serve_are_named(tmp_path):
    table, values = full_size(3)
    write_tars(tmp_path / "s", table[:750], 1)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["betas"] = values[:750]
    (tmp_path / "s/new_test/0.tar").rename(tmp_path / "s/train/1.tar")
    with pytest.raises(nsd.NSDError, match="must hold tar files in train and new_test, got none in new_test"):
        nsd.mindeye_betas(tmp_path / "b.hdf5", tmp_path / "s")
    (tmp_path / "s/train/0.tar").rename(tmp_path / "s/new_test/0.tar")
    with pytest.raises(nsd.NSDError, match="1.tar must hold trials of other than shared images, got"):
        nsd.mindeye_betas(tmp_path / "b.hdf5", tmp_path / "s")
    (tmp_path / "s/train/1.tar").write_bytes(b"x" * 2000)
    with pytest.raises(nsd.NSDError, match="must be a tar file of MindEye2's behaviour"):
        nsd.mindeye_betas(tmp_path / "b.hdf5", tmp_path / "s")


def test_as_own_scans_it_is_refused_with_the_reason(tmp_path):
    from napari_neuraldiffuser.core.nsd.reading.series import open_series

    with h5py.File(tmp_path / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = np.zeros((9, 5), np.float32)
    with pytest.raises(nsd.NSDError, match="own scans must have voxel positions for maps, got a matrix of 9 trials"):
        open_series(tmp_path / "betas_all_subj01_fp32_renorm.hdf5")
    with h5py.File(tmp_path / "betas_session01.hdf5", "w") as file:
        file["betas"] = np.zeros((750, 5, 4, 3), np.int16)
    with pytest.raises(nsd.NSDError, match="got a session of NSD, .*Give the folder that holds nsddata"):
        open_series(tmp_path / "betas_session01.hdf5")
