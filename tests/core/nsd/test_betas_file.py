"""Betas as a file: the same bits, and facts without the data."""

from dataclasses import fields

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from tests.support.stand_ins import make_betas


def some_betas(**changes):
    rng = np.random.default_rng(0)
    betas = make_betas(rng.normal(size=(6, 11)).astype(np.float32), [9, 3, 70000, 4, 5, 6])
    betas.shared = np.array([False, True, False, True, True, False])
    betas.repeats = np.array([1, 3, 2, 2, 1, 1])
    betas.notes, betas.dropped = ["session 3 is missing"], {"constant": 2, "NaN": 0}
    for name, value in changes.items():
        setattr(betas, name, value)
    return betas


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"voxels": None, "affine": None, "shape": None},
        {"stimulus_names": ["a", 'b\n"c"'], "space": "native"},
        {"stimulus_names": [f"stimulus number {k}" for k in range(5000)]},
    ],
)
def test_what_is_read_is_what_was_written(tmp_path, changes):
    betas = some_betas(**changes)
    nsd.save_betas(betas, tmp_path / "betas.h5")
    found = nsd.load_betas(tmp_path / "betas.h5")
    for f in fields(betas):
        one, other = getattr(betas, f.name), getattr(found, f.name)
        np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))
        assert type(one) is type(other), f.name


def test_equal_betas_are_equal_files(tmp_path):
    for name in ("one", "other"):
        nsd.save_betas(some_betas(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_facts_count_rows_and_say_what_was_dropped(tmp_path):
    nsd.save_betas(some_betas(), tmp_path / "betas.h5")
    facts = nsd.betas_facts(tmp_path / "betas.h5")
    assert facts == {
        "n_train": 3,
        "n_test": 3,
        "trials_per_test_image": 2.0,
        "n_voxels": 11,
        "notes": ["session 3 is missing", "2 voxels dropped: constant in at least one session."],
        "noise_ceiling": {},
    }
    first = nsd.betas_facts(tmp_path / "betas.h5", 2)
    assert (first["n_test"], first["trials_per_test_image"]) == (2, 2.5)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    for name in ("text.h5", "other.h5", "absent.h5"):
        for read in (nsd.load_betas, nsd.betas_facts):
            with pytest.raises(nsd.NSDError, match=f"{name} must be (a file of )?prepared betas"):
                read(tmp_path / name)
