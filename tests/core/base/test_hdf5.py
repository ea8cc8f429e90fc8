"""HDF5 files of every condition: each cause has its own sentence, and disks without file locks are read."""

import errno
import fcntl
import os

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5, dataset_of, is_whole, open_hdf5, reading_hdf5


class Refused(UserError):
    """The class that a caller asks for."""


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "betas.hdf5"
    with h5py.File(path, "w") as file:
        file["betas"] = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        file["series"] = np.zeros(50000)
    return path


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def absent(path):
    path.unlink()


def dangling(path):
    path.unlink()
    path.symlink_to("/nowhere/annex/objects/x")


def folder(path):
    path.unlink()
    path.mkdir()


def left_open(path):
    """As a program that was killed while it wrote in HDF5's newest format leaves it: flag byte 11 of superblock 3."""
    with h5py.File(path, "w", libver="latest") as file:
        file["betas"] = 1
        file.flush()
        content = path.read_bytes()
    path.write_bytes(content)


CONDITIONS = [
    (absent, "no such file. Check the path"),
    (dangling, "a link to a file that is not there.*datalad get"),
    (folder, "a folder. Choose the file in it"),
    (lambda path: path.write_bytes(b""), r"an empty file \(0 bytes\)"),
    (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "a web page in its place. Log in"),
    (lambda path: path.write_bytes(b"\n <HTML><head>"), "a web page in its place. Log in"),
    (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "pointer of Git LFS.*git lfs pull",
    ),
    (lambda path: path.write_bytes(b"version https://git-xet.org/spec/v1\n"), "pointer of Git Xet.*git xet pull"),
    (lambda path: path.write_bytes(b"/annex/objects/MD5E-s1--2\n"), "pointer of git-annex.*datalad get"),
    (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file"), "another format than HDF5"),
    (lambda path: np.save(path.open("wb"), np.ones(3)), "another format than HDF5"),
    (cut, "truncated file"),
    (left_open, "not closed by what wrote it.*h5clear"),
]


@pytest.mark.parametrize(("spoil", "told"), CONDITIONS)
def test_each_condition_has_its_own_sentence(whole, spoil, told):
    spoil(whole)
    with pytest.raises(Refused, match=f"betas.hdf5 must be a file of betas, got .*{told}") as caught:
        open_hdf5(whole, "a file of betas", Refused)
    others = {cause.split(".")[0] for _, cause in CONDITIONS} - {told.split(".")[0]}
    assert not any(cause in str(caught.value) for cause in others)


def test_a_file_that_another_program_writes(whole):
    with open(whole, "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another program is writing. Close that program"):
            open_hdf5(whole, "a file of betas", Refused)
        with pytest.raises(UserError, match="another program"):
            is_whole(whole)  # it may become whole: nothing to be deleted and made anew
    assert is_whole(whole)


@pytest.fixture
def without_locks(monkeypatch):
    """A disk whose locks fail as `number` says, seen from h5py."""
    real = h5py.File

    def pretend(number):
        def opened(path, mode="r", locking=None, **options):
            if locking is not False:
                text = f"Unable to synchronously open file (unable to lock file, errno = {number}, error message = 'x')"
                raise OSError(number, text)
            return real(path, mode, locking=False, **options)

        monkeypatch.setattr(h5py, "File", opened)

    return pretend


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_disks_without_file_locks_serve(whole, tmp_path, without_locks, number):
    without_locks(number)
    with open_hdf5(whole, "a file of betas") as file:
        assert file["betas"][1, 2, 3] == 23
    with creating_hdf5(tmp_path / "new.h5") as file:
        file["x"] = 1
    assert is_whole(tmp_path / "new.h5")
    with open_hdf5(tmp_path / "grows.h5", "a file of betas", mode="a") as file:
        file["x"] = 1


def test_a_disk_with_locks_is_not_read_past_a_lock(whole, without_locks):
    without_locks(errno.EAGAIN)
    with pytest.raises(Refused, match="another program is writing"):
        open_hdf5(whole, "a file of betas", Refused)


def test_what_cannot_be_read_later_is_named_too(whole):
    with pytest.raises(Refused, match="betas.hdf5 must be a file of betas, got compression that is not known"):
        with reading_hdf5(whole, "a file of betas", Refused):
            raise OSError("Can't synchronously read data (can't open directory: /usr/local/hdf5/lib/plugin)")
    with pytest.raises(Refused, match="got Input/output error. Check the disk"):
        with reading_hdf5(whole, "a file of betas", Refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_whole_file(whole, tmp_path):
    assert is_whole(whole)
    assert not is_whole(tmp_path / "absent.h5")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("text")
    cut(whole)
    assert not any(map(is_whole, (tmp_path / "empty.h5", tmp_path / "text.h5", whole)))


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), creating_hdf5(tmp_path / "x.h5") as file:
        file["x"] = 1
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_datasets_that_are_none(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["betas"] = np.ones((2, 2))
    layout = h5py.VirtualLayout((2, 2), "f4")
    layout[:] = h5py.VirtualSource("nowhere.h5", "betas", (2, 2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["group/inside"] = np.ones((2, 2))
        file["flat"], file["words"], file["complex"] = np.ones(4), np.array([[b"a"]]), np.ones((2, 2), complex)
        file["nothing"] = np.ones((0, 2))
        file["linked"], file["broken"] = h5py.ExternalLink("other.h5", "betas"), h5py.SoftLink("/absent")
        file.create_virtual_dataset("virtual", layout)
        file["good"] = file["soft"] = np.ones((2, 2), ">i2")
        file["also"] = h5py.SoftLink("/good")
        causes = {
            "group": "a group of inside",
            "flat": r"got shape \(4,\)",
            "words": "of real numbers",
            "complex": "of real numbers",
            "nothing": r"got shape \(0, 2\)",
            "linked": "a link to other.h5",
            "broken": "got a link to '/absent', which is not in it",
            "absent": "got also, broken, complex",
            "virtual": "lie in other files",
        }
        for key, cause in causes.items():
            with pytest.raises(Refused, match=f"x.h5 must hold a dataset '{key}' of 2 axes .trial, voxel.* {cause}"):
                dataset_of(file, key, ("trial", "voxel"), "betas", Refused)
        assert all(dataset_of(file, key, ("trial", "voxel"), "betas").shape == (2, 2) for key in ("good", "also"))


def test_writing_goes_by_way_of_a_temporary_file(tmp_path):
    """As every file of the project, so that a killed run leaves none that is half written."""
    with creating_hdf5(tmp_path / "x.h5"):
        assert not (tmp_path / "x.h5").exists()
    with atomic_path(tmp_path / "y.h5"):
        pass
    assert (tmp_path / "x.h5").stat().st_mode == (tmp_path / "y.h5").stat().st_mode
