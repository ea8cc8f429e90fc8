"""Damaged NIfTI files end in a ReadError that names the file, or in a volume; never in another exception."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.widgets.reader import ReadError, read_volume

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]
MUTATIONS = 300


def damaged(whole: bytes, rng: np.random.Generator, header: int) -> bytes:
    """`whole` cut short, or with some bytes changed, mostly in its first `header` bytes."""
    if rng.random() < 0.2:
        return whole[: rng.integers(0, len(whole))]
    changed = np.frombuffer(whole, np.uint8).copy()
    end = header if rng.random() < 0.8 else len(changed)
    places = rng.integers(0, end, rng.integers(1, 8))
    changed[places] = rng.integers(0, 256, len(places))
    return changed.tobytes()


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
