"""The reader against the definition, in float64, on files of every layout."""

import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.params import BetasParams
from tests.support.nsd.tree import AFFINE, SHAPE, N, expected, hdf5, volume


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (N, 1, 1, 1)},
        {"chunks": (N, 1, 1, 1), "compression": "gzip"},
        {"chunks": (N, 1, 1, 1), "dtype": ">i2"},
        {"chunks": (100, 2, 3, 4)},
        {"chunks": (1, 5, 6, 7)},
        {},
    ],
    ids=["per-voxel", "per-voxel gzip", "big-endian", "odd blocks", "per-trial", "contiguous"],
)
def test_hdf5_layouts_agree_with_the_definition(tree, options):
    for session, raw in tree.raw.items():
        hdf5(tree.betas / f"betas_session{session:02d}.hdf5", raw, **options)
    betas = nsd.Subject(tree.root, "subj02").betas()
    values, ids = expected(tree)
    np.testing.assert_allclose(betas.data, values, atol=2e-6)
    np.testing.assert_array_equal(betas.stimulus_ids, ids)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_sessions_agree_with_the_definition(tree, suffix):
    for session, raw in tree.raw.items():
        (tree.betas / f"betas_session{session:02d}.hdf5").unlink()
        volume(tree.betas / f"betas_session{session:02d}.{suffix}", raw)
    betas = nsd.Subject(tree.root, "subj02").betas()
    np.testing.assert_allclose(betas.data, expected(tree)[0], atol=2e-6)


def test_small_blocks_read_the_same(tree, monkeypatch):
    from napari_neuraldiffuser.core.nsd.reading import sessions

    whole = nsd.Subject(tree.root, "subj02").betas().data
    monkeypatch.setattr(sessions, "BLOCK_BYTES", 210 * 8 * 7)  # seven trials at a time, 750 is no multiple
    for session, raw in tree.raw.items():
        (tree.betas / f"betas_session{session:02d}.hdf5").unlink()
        volume(tree.betas / f"betas_session{session:02d}.nii.gz", raw)
    np.testing.assert_array_equal(nsd.Subject(tree.root, "subj02").betas().data, whole)


def test_unwritten_chunks_are_zero_and_dropped(tree):
    """The simulator, like a sparse NSD file, leaves voxels outside the brain unwritten."""
    import h5py

    inside = np.argwhere(tree.mask)
    gone = tuple(inside[3])
    for session, raw in tree.raw.items():
        with h5py.File(tree.betas / f"betas_session{session:02d}.hdf5", "w") as file:
            dataset = file.create_dataset("betas", (N, *SHAPE[::-1]), "<i2", chunks=(N, 1, 1, 1))
            for x, y, z in inside:
                if (x, y, z) != gone:
                    dataset.id.write_direct_chunk((0, z, y, x), np.ascontiguousarray(raw[x, y, z]).tobytes())
    betas = nsd.Subject(tree.root, "subj02").betas()
    assert betas.dropped == {"constant": 1}
    np.testing.assert_allclose(betas.data, np.delete(expected(tree)[0], 3, axis=1), atol=2e-6)
    np.testing.assert_array_equal(betas.voxels, np.delete(inside, 3, axis=0))


def test_geometry_trials_and_rows(tree):
    subject = nsd.Subject(tree.root, "subj02")
    betas = subject.betas()
    assert subject.shape == betas.shape == SHAPE
    np.testing.assert_allclose(betas.affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(subject.trials["stimulus_id"][: 2 * N], tree.ids[: 2 * N])
    assert len(subject.trials) == 40 * N  # no responses.tsv: what NSD's subject 2 completed
    assert "3, 4" in betas.notes[0]
    counts = pd.Series(tree.ids[: 2 * N]).value_counts()
    np.testing.assert_array_equal(betas.repeats, counts.loc[betas.stimulus_ids])
    # numbers 1 and 1000 of the subject's images; 1001 is its own
    np.testing.assert_array_equal(betas.stimulus_ids[betas.shared], np.unique(tree.ids[tree.shared]))
    assert betas.shared.sum() == 2
    image = betas.to_volume(np.arange(betas.n_voxels) + 1.0)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[tree.mask], np.arange(betas.n_voxels) + 1)
    assert np.asarray(image.dataobj)[~tree.mask].max() == 0
    assert betas.to_volume(np.ones((2, betas.n_voxels))).shape == (*SHAPE, 2)


def test_single_trials_without_zscore_are_percent_signal(tree):
    params = BetasParams(zscore=False, average_repeats=False)
    betas = nsd.Subject(tree.root, "subj02", params).betas()
    raw = np.concatenate([tree.raw[k][tree.mask].T for k in (1, 2)]) / 300.0
    np.testing.assert_allclose(betas.data, raw, rtol=1e-6)
    np.testing.assert_array_equal(betas.stimulus_ids, tree.ids[: 2 * N])
    np.testing.assert_array_equal(betas.shared, tree.shared[: 2 * N])
    assert set(betas.repeats) == {1}


def test_a_missing_session_is_skipped_with_a_note(tree):
    (tree.betas / "betas_session01.hdf5").unlink()
    tree.raw.pop(1)
    betas = nsd.Subject(tree.root, "subj02").betas()
    np.testing.assert_allclose(betas.data, expected(tree)[0], atol=2e-6)
    assert betas.notes[0].startswith("sessions not found and skipped: 1, 3")


def test_nan_constant_and_invalid_voxels_are_dropped_and_counted(tree):
    where = np.argwhere(tree.mask)
    values = tree.raw[2].astype(np.float32) / 300
    values[tuple(where[0])] = np.nan
    values[tuple(where[1])] = 0.25
    (tree.betas / "betas_session02.hdf5").unlink()
    volume(tree.betas / "betas_session02.nii.gz", values)
    valid = np.ones(SHAPE, np.int16)
    valid[tuple(where[2])] = 0
    volume(tree.roi.parent / "valid_session01.nii.gz", valid)
    betas = nsd.Subject(tree.root, "subj02").betas()
    assert betas.dropped == {"invalid": 1, "nan": 1, "constant": 1}
    np.testing.assert_array_equal(betas.voxels, where[3:])
    np.testing.assert_allclose(betas.data, expected(tree)[0][:, 3:], atol=2e-6)


def test_split_and_subset(tree):
    betas = nsd.Subject(tree.root, "subj02").betas()
    train, test = betas.split()
    assert (len(train), len(test)) == (8, 2) and not train.shared.any() and test.shared.all()
    some = betas.subset(betas.stimulus_ids[[4, 0]])
    np.testing.assert_array_equal(some.data, betas.data[[4, 0]])
    with pytest.raises(nsd.NSDError, match="stimulus_ids must be among"):
        betas.subset([72_999])
    with pytest.raises(nsd.NSDError, match="must hold test stimuli"):
        train.split()
    with pytest.raises(nsd.NSDError, match="must hold training stimuli"):
        test.split()


def test_anatomy_and_noise_ceiling(tree):
    subject = nsd.Subject(tree.root, "subj02")
    assert subject.anatomy() is None
    volume(subject.layout.anatomy, np.ones(SHAPE, np.float32))
    assert subject.anatomy().shape == SHAPE
    volume(tree.betas / "ncsnr.nii.gz", np.full(SHAPE, 0.5, np.float32))
    # 100 * .25 / (.25 + 1/3)
    np.testing.assert_allclose(np.asarray(subject.noise_ceiling().dataobj), 42.857143, rtol=1e-6)


def test_responses_set_the_sessions_and_must_agree(tree):
    subject = nsd.Subject(tree.root, "subj02")
    n = 2 * N
    runs = np.tile(np.repeat(np.arange(1, 13), [63, 62] * 6), 2)
    table = pd.DataFrame({"SESSION": np.arange(n) // N + 1, "RUN": runs, "TRIAL": 1, "73KID": tree.ids[:n] + 1})
    table["TRIAL"] = table.groupby(["SESSION", "RUN"]).cumcount() + 1
    subject.layout.responses.parent.mkdir(parents=True)
    table.to_csv(subject.layout.responses, sep="\t", index=False)
    assert len(subject.trials) == n and nsd.Subject(tree.root, "subj02").betas().notes == []
    table.loc[800, "73KID"] += 1
    table.to_csv(subject.layout.responses, sep="\t", index=False)
    with pytest.raises(nsd.NSDError, match="1 trials differ .first: trial 800"):
        _ = nsd.Subject(tree.root, "subj02").trials
