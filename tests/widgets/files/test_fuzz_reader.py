"""Damaged NIfTI files end in a ReadError that names the file, or in a volume; never in another exception."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.widgets.files import reader
from napari_neuraldiffuser.widgets.files.reader import ReadError, read_volume
from napari_neuraldiffuser.widgets.files.writer import layer_to_nifti
from tests.support.damage import damaged

pytestmark = pytest.mark.fuzz
MUTATIONS = 300


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_nifti(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = tmp_path / f"x{suffix}"
    nib.save(nib.Nifti1Image(rng.normal(size=(5, 6, 7)).astype(np.float32), np.eye(4)), path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(whole, rng, 352))
        try:
            data, _, kind = read_volume(path)
        except ReadError as error:
            assert path.name in str(error)
            refused += 1
        else:
            assert data.ndim in (3, 4)
            assert kind in ("image", "labels")
    assert 0 < refused < MUTATIONS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_nifti_read_one_volume_at_a_time(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(reader, "LAZY_BYTES", 0)
    rng = np.random.default_rng(0)
    path = tmp_path / f"x{suffix}"
    nib.save(nib.Nifti1Image(rng.normal(size=(5, 6, 7, 3)).astype(np.float32), np.eye(4)), path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(whole, rng, 352))
        try:
            data, keywords, kind = read_volume(path)
            last = np.asarray(data[-1])
        except ReadError as error:
            assert path.name in str(error)
            refused += 1
        else:
            assert last.shape == data.shape[1:]
            if data.size < 10**6:
                assert layer_to_nifti((data, keywords, kind)).ndim == data.ndim
    assert 0 < refused < MUTATIONS
