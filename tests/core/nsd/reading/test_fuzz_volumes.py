"""Damaged volumes end in an NSDError that names the file, or in values; never in another exception."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core.nsd import NSDError
from napari_neuraldiffuser.core.nsd.reading.images import place_note
from napari_neuraldiffuser.core.nsd.reading.sessions import iterate_nifti
from napari_neuraldiffuser.core.nsd.reading.volumes import open_volume, read_inside, read_labels
from tests.support.damage import damaged

pytestmark = pytest.mark.fuzz
MUTATIONS = 300
SMALL = 10**7
"""Voxels of a series that is read: a damaged header may speak of millions of volumes."""


def series(path):
    image = open_volume(path, "betas", 4, keep_file_open=True)
    place_note(image)
    if np.prod(image.shape, dtype=object) < SMALL:
        return [values for _, values in iterate_nifti(image, np.array([[0, 0, 0]]))]
    return []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("read", "shape"), [(read_labels, (5, 6, 7)), (read_inside, (5, 6, 7, 1)), (series, (5, 6, 1, 9))]
)
def test_damaged_volumes(tmp_path, suffix, read, shape):
    rng = np.random.default_rng(0)
    path = tmp_path / f"x{suffix}"
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    plain = nib.Nifti1Image(rng.integers(-1, 4, shape).astype(float), np.eye(4), header).to_bytes()
    packed = gzip.compress(plain)
    refused = 0
    for k in range(MUTATIONS):
        if suffix == ".nii":
            path.write_bytes(damaged(plain, rng, 352))
        else:  # before and after it was compressed
            path.write_bytes(gzip.compress(damaged(plain, rng, 352)) if k % 2 else damaged(packed, rng, len(packed)))
        try:
            read(path)
        except NSDError as error:
            assert path.name in str(error)
            refused += 1
    assert 0 < refused < MUTATIONS
