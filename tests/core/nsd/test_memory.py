"""Streaming never holds two sessions, nor one whole volume series."""

import tracemalloc

import numpy as np

from napari_neuraldiffuser.core import nsd
from tests.support.nsd.tree import N, hdf5, make_tree, volume


def peak(tree, n_voxels):
    """Peak traced bytes of reading, in units of one masked session (750 trials, float32)."""
    subject = nsd.Subject(tree.root, "subj02")
    _ = subject.trials, subject.shape
    tracemalloc.start()
    betas = subject.betas()
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert betas.n_voxels == n_voxels
    return top / (N * n_voxels * 4)


def test_peak_does_not_grow_with_sessions_nor_with_the_volume(tmp_path):
    shape = (30, 30, 20)
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, np.int16)
    mask[5:25, 5:25, 5:10] = 1
    few, many = make_tree(tmp_path / "few", ()), make_tree(tmp_path / "many", ())
    raw = rng.integers(-900, 900, (*shape, N), dtype=np.int16)
    for tree, count in ((few, 1), (many, 4)):
        volume(tree.roi / "nsdgeneral.nii.gz", mask)
        for session in range(1, count + 1):
            hdf5(tree.betas / f"betas_session{session:02d}.hdf5", raw + np.int16(session), chunks=(N, 1, 1, 1))
    one, four = peak(few, 2000), peak(many, 2000)
    # float32 session, its int16 source, z-scoring's masks: under two sessions' worth; the whole file would
    # be 4.5
    assert one < 1.9
    assert four < one + 0.1
