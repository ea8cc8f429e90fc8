"""Further sessions as test sets against the definition, in float64, and what is refused."""

import h5py
import numpy as np
import pytest
import scipy.io

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.fields import ParamError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd import NSDError
from napari_neuraldiffuser.core.nsd.describe import stimuli_used
from napari_neuraldiffuser.core.params import BetasParams
from tests.support.nsd.further_files import Imagery, Synthetic
from tests.support.nsd.surface_tree import make_surface, write_mgh
from tests.support.nsd.tree import N, hdf5


def opened(root, test_set="synthetic", params=None, **more):
    return nsd.open_source(Source(nsd_dir=str(root), subject="subj02", test_set=test_set, **more), params)


def zscored(raw):
    values = raw.astype(float) / 300
    return (values - values.mean(0)) / values.std(0)


def core_rows(tree):
    """Training rows by definition: sessions are z-scored with the shared images' trials, which have no row."""
    parts = [zscored(raw[tree.mask].T) for _, raw in sorted(tree.raw.items())]
    trials, n = np.concatenate(parts), N * len(parts)
    ids, shared = tree.ids[:n], tree.shared[:n]
    wanted = np.unique(ids[~shared])
    return np.array([trials[ids == one].mean(0) for one in wanted]), wanted


def test_rows_agree_with_the_definition(tree):
    files = Synthetic(tree.root).write()
    betas = opened(tree.root).betas()
    train, test = betas.split()
    values, ids = core_rows(tree)
    np.testing.assert_allclose(train.data, values, atol=2e-6)
    np.testing.assert_array_equal(train.stimulus_ids, ids)
    trials = zscored(files.raw[tree.mask].T)
    values = np.array([trials[files.order == k].mean(0) for k in range(1, 285)])
    np.testing.assert_allclose(test.data, values, atol=2e-6)
    np.testing.assert_array_equal(test.stimulus_ids, 73000 + np.arange(284))
    assert np.bincount(test.repeats).tolist() == [0, 0, 236, 0, 32, 0, 0, 0, 8, 0, 8]
    assert any("NSD-synthetic: 284 images, z-scored over 744 trials" in note for note in betas.notes)


def test_single_trials_keep_their_images(tree):
    files = Synthetic(tree.root).write()
    trials = opened(tree.root, params=BetasParams(average_repeats=False)).betas().split()[1]
    np.testing.assert_allclose(trials.data, zscored(files.raw[tree.mask].T), atol=2e-6)
    np.testing.assert_array_equal(trials.stimulus_ids, 72999 + files.order)


def test_sessions_choose_training_trials_alone(tree):
    Synthetic(tree.root).write()
    params = BetasParams(sessions="1")
    subject = opened(tree.root, params=params)
    train, test = stimuli_used(subject, params)
    betas = subject.betas()
    assert test == (73000 + np.arange(284)).tolist() and subject.sessions() == [1, 2]
    np.testing.assert_array_equal(betas.stimulus_ids, [*train, *test])
    assert betas.repeats[~betas.shared].sum() == (~tree.shared[:N]).sum()


def test_voxels_invalid_in_the_further_session_are_dropped(tree):
    files = Synthetic(tree.root)
    place = tuple(np.argwhere(tree.mask)[2])
    files.raw[place] = 7
    files.write()
    betas = opened(tree.root).betas()
    assert betas.dropped == {"constant": 1} and place not in set(map(tuple, betas.voxels))


def test_images_are_the_centre_square_on_the_photographs_display(tree):
    files = Synthetic(tree.root).write()
    stimuli = opened(tree.root).stimuli
    for number in (0, 219, 220, 283):
        wanted = 255 * np.sqrt(files.pictures[number, :, 4:12] / 255)
        np.testing.assert_allclose(stimuli[73000 + number], wanted, atol=0.51)
    both = stimuli[[73001, 17]]
    assert both.shape == (2, 8, 8, 3) and (both[1] == 9).all()
    np.testing.assert_array_equal(both[0], stimuli[73001])
    assert stimuli.captions(73000) == [] and stimuli.test_set == "NSD-synthetic"
    assert "of one colour inside that square: 1 (numbers 5)" in stimuli.notes[1]
    assert stimuli.fingerprint([17]) == "" != stimuli.fingerprint([17, 73000])
    with pytest.raises(NSDError, match="73000 ... 73283"):
        stimuli[73284]


def test_imagery_follows_the_users_table(tree):
    files = Imagery(tree.root).write()
    Synthetic(tree.root).write()
    more = {"trials": str(files.table), "images": str(files.images)}
    subject = opened(tree.root, "imagery", **more)
    test = subject.betas().split()[1]
    rows = sorted(files.rows)
    trials = zscored(files.raw[tree.mask].T[rows])
    names = ["beach", "cross", "lamp"]
    values = [trials[[files.rows[row] == name for row in rows]].mean(0) for name in names]
    np.testing.assert_allclose(test.data, values, atol=2e-6)
    assert test.stimulus_ids.tolist() == [74000, 74001, 74002] and test.repeats.tolist() == [1, 2, 2]
    assert subject.stimuli[74002][0, 0].tolist() == [0, 20, 30]
    assert "74000 beach, 74001 cross, 74002 lamp" in subject.stimuli.notes[0]
    assert subject.stimuli.captions(74001) == []
    said = files.images / "captions.json"
    said.write_text('{"lamp": ["a lamp"], "cross": ["a cross"], "beach": ["a beach"]}')
    assert opened(tree.root, "imagery", captions=str(said), **more).stimuli.captions(74001) == ["a cross"]


def test_imagery_without_a_table_is_refused(tree):
    Imagery(tree.root).write()
    with pytest.raises(NSDError, match="which row of its betas is of which picture.*--trials and --images"):
        opened(tree.root, "imagery")


@pytest.mark.parametrize(
    "rows, said",
    [
        ([(720, "lamp")], "rows 0 ... 719"),
        ([(-1, "lamp")], "rows 0 ... 719"),
        ([(3, "lamp"), (3, "cross")], "each row once, got row 3"),
        ([(3, "lamp"), (4, "sofa")], "sofa"),
    ],
)
def test_rows_that_cannot_be_are_refused(tree, rows, said):
    files = Imagery(tree.root).write()
    files.write_rows(rows)
    with pytest.raises(NSDError, match=said):
        subject = opened(tree.root, "imagery", trials=str(files.table), images=str(files.images))
        subject.stimuli.check([74000])


def broken(files, what):
    if what in ("betas", "design", "shared", "coloured"):
        getattr(files, what).unlink()
    elif what == "trials":
        hdf5(files.betas, files.raw[..., :743])
    elif what == "short order":
        scipy.io.savemat(files.design, {"masterordering": files.order[None, :700].astype(float)})
    elif what == "ids":
        scipy.io.savemat(files.design, {"masterordering": files.order[None].astype(float) + 1})
    elif what == "no order":
        scipy.io.savemat(files.design, {"stimpattern": np.ones((1, 744))})
    elif what == "pictures":
        with h5py.File(files.shared, "w") as file:
            file["imgBrick"] = files.pictures[:219]


@pytest.mark.parametrize(
    "what, said",
    [
        ("betas", "betas_nsdsynthetic.hdf5, .nii or .nii.gz for test set synthetic, got none. Download"),
        ("design", "nsdsynthetic_expdesign.mat must be NSD's design"),
        ("shared", "nsdsynthetic_stimuli.hdf5"),
        ("coloured", "nsdsynthetic_colorstimuli_subj02.hdf5"),
        ("trials", "must hold 744 trials, got 743"),
        ("short order", "744 numbers of images 1 ... 284, got 700 numbers"),
        ("ids", "744 numbers of images 1 ... 284, got 744 numbers of 2 ... 285"),
        ("no order", "must hold masterordering, got no 'masterordering'"),
        ("pictures", "must hold 220 RGB images of 8 bits, got shape"),
    ],
)
def test_files_that_do_not_fit_are_refused(tree, what, said):
    files = Synthetic(tree.root).write()
    broken(files, what)
    with pytest.raises(NSDError, match=said):
        subject = opened(tree.root)
        subject.stimuli.check([73000, 73283])
        subject.betas()


def test_only_an_nsd_folder_has_further_sessions(tree, tmp_path):
    with pytest.raises(NSDError, match="must stand beside an NSD folder"):
        nsd.open_source(Source(betas="betas.nii.gz", test_set="synthetic"))
    with pytest.raises(ParamError, match="test_set must be one of"):
        Source(nsd_dir=str(tree.root), test_set="shared")


def test_surface_rows_agree_with_the_definition(tree):
    surface = make_surface(tree.root)
    files = Synthetic(surface.root).write()
    order = files.order
    rng = np.random.default_rng(3)
    raw = [rng.normal(size=(len(mask), 744)).astype(np.float32) for mask in surface.general]
    folder = surface.betas.parent / f"nsdsynthetic{surface.betas.name}"
    for side, values in zip(("lh", "rh"), raw, strict=True):
        write_mgh(folder / f"{side}.betas_nsdsynthetic.mgh", values)
    source = Source(nsd_dir=str(surface.root), subject=surface.subject, test_set="synthetic")
    test = nsd.open_source(source, BetasParams(space="fsaverage")).betas().split()[1]
    columns = np.concatenate([values[mask > 0] for values, mask in zip(raw, surface.general, strict=True)]).T
    trials = (columns - columns.mean(0)) / columns.std(0)
    np.testing.assert_allclose(test.data, [trials[order == k].mean(0) for k in range(1, 285)], atol=2e-5)
