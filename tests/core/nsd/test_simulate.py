"""The simulator: NSD's formats to the letter, the truth it states, and what its regions can be decoded
for."""

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.nsd.simulation import brain, experiment, features, noise, responses, space
from napari_neuraldiffuser.core.params import BetasParams, SimulationParams

PARAMS = SimulationParams(n_sessions=1, n_test=20, train_repeats=3, image_size=32, seed=5)
VERSION = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"


SMALL_GRID = (6.0, (25, 32, 26))
"""6 mm voxels: a quarter of the demo's."""


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setitem(brain.GRIDS, "demo", SMALL_GRID)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", SMALL_GRID)
        nsd.simulate.write_subject(root, PARAMS, lambda *call: calls.append(call))
    return root, calls


def test_the_reader_reads_it(written):
    root, calls = written
    subject = nsd.Subject(root, "subj01")
    betas = subject.betas()
    truth = read_json(subject.layout.truth)
    assert betas.notes == [] and betas.n_voxels == truth["n_voxels"]["nsdgeneral"]
    train, test = betas.split()
    assert len(test) == 20 and set(test.repeats) == {3}
    assert train.repeats.sum() == 750 - 60 and set(train.repeats) == {3}
    assert subject.anatomy().shape == subject.shape == (25, 32, 26)
    np.testing.assert_allclose(subject.affine[:3, 3], [-72, -93, -75])
    assert len(subject.stimuli) == 73000
    assert subject.stimuli[test.stimulus_ids].std(axis=(1, 2, 3)).min() > 5
    assert len(subject.stimuli.captions(int(test.stimulus_ids[0]))) == 5
    assert calls[-1] == (1, 1, "sessions written")
    assert subject.roi_names() == sorted(
        ["floc-bodies", "floc-faces", "floc-places", "floc-words", "nsdgeneral", "prf-visualrois"]
    )


def test_files_have_nsds_formats(written):
    root = written[0]
    with h5py.File(root / VERSION / "betas_session01.hdf5") as file:
        dataset = file["betas"]
        assert dataset.shape == (750, 26, 32, 25) and dataset.dtype == "<i2"
        assert dataset.chunks == (750, 1, 1, 1) and dataset.compression is None
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        assert file["imgBrick"].shape == (73000, 32, 32, 3) and file["imgBrick"].dtype == np.uint8
    design = scipy.io.loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    assert design["masterordering"].shape == (1, 30000) and design["subjectim"].shape == (8, 10000)
    assert design["sharedix"].shape == (1, 1000) and design["basiccnt"].shape == (3, 40)
    np.testing.assert_array_equal(design["basiccnt"][2], np.arange(1, 41) * 750)
    assert set(np.bincount(design["masterordering"][0].astype(int))[1:]) == {3}
    np.testing.assert_array_equal(np.unique(design["subjectim"]), np.arange(1, 73001))
    np.testing.assert_array_equal(design["subjectim"][:, :1000], np.tile(design["sharedix"], (8, 1)))
    responses = pd.read_csv(root / "nsddata/ppdata/subj01/behav/responses.tsv", sep="\t")
    assert responses.shape == (750, 19) and responses.groupby("RUN").size().tolist() == [63, 62] * 6


def test_stim_info_gives_the_trials_of_the_design(written):
    table = pd.read_csv(written[0] / "nsddata/experiments/nsd/nsd_stim_info_merged.csv")
    trials = nsd.Subject(written[0], "subj01").trials
    assert table["shared1000"].sum() == 1000 and (table["subject1"].sum(), len(table)) == (10000, 73000)
    for repeat in range(3):
        rows = trials[trials["repeat"] == repeat]
        column = table[f"subject1_rep{repeat}"].to_numpy()[rows["stimulus_id"]]
        np.testing.assert_array_equal(column, rows["trial"] + 1)


def test_roi_volumes_merge_and_mark_the_other_hemisphere(written):
    folder = written[0] / "nsddata/ppdata/subj01/func1pt8mm/roi"
    whole, left, right = (
        np.asarray(nib.load(folder / f"{side}prf-visualrois.nii.gz").dataobj) for side in ("", "lh.", "rh.")
    )
    np.testing.assert_array_equal(np.maximum(left, right), whole)
    assert set(np.unique(whole)) == set(range(-1, 8))
    # first voxel left: the left hemisphere lies at low x
    assert np.argwhere(left > 0)[:, 0].max() < np.argwhere(right > 0)[:, 0].min()
    v1, ppa = (
        np.argwhere(whole == 1)[:, 1].mean(),
        np.argwhere(_labels(folder, "floc-places") == 2)[:, 1].mean(),
    )
    assert v1 < ppa  # V1 is behind the parahippocampal place area


def _labels(folder, name):
    return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)


def test_the_same_seed_gives_the_same_bytes(written, small_grid, tmp_path):
    nsd.simulate.write_subject(tmp_path, PARAMS)
    for path in (f"{VERSION}/betas_session01.hdf5", "nsddata_stimuli/captions.json"):
        assert (tmp_path / path).read_bytes() == (written[0] / path).read_bytes()
    other = nsd.Subject(tmp_path, "subj01").layout
    assert read_json(other.truth) == read_json(nsd.Subject(written[0], "subj01").layout.truth)


def test_a_complete_subject_is_kept_and_a_half_written_one_is_not(written, small_grid, monkeypatch):
    root, _ = written
    session = root / VERSION / "betas_session01.hdf5"
    before = session.stat().st_mtime_ns
    truth = nsd.simulate.write_subject(root, PARAMS)
    assert session.stat().st_mtime_ns == before
    truth.unlink()  # what a killed run leaves: everything but the truth

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nsd.simulate.files, "write_responses", killed)
        with pytest.raises(KeyboardInterrupt):
            nsd.simulate.write_subject(root, PARAMS)
    assert not truth.exists() and not list(root.rglob(".tmp-*"))
    nsd.simulate.write_subject(root, PARAMS)
    assert truth.exists() and session.stat().st_mtime_ns > before


def test_noise_ceilings_are_those_of_the_trial_noise(small_grid, tmp_path):
    """The noise ceiling estimated from repeats, as NSD does (signal and noise variance), against the
    truth."""
    params = PARAMS.but(n_sessions=2, n_test=200, train_repeats=3)
    nsd.simulate.write_subject(tmp_path, params)
    subject = nsd.Subject(tmp_path, "subj01", BetasParams(average_repeats=False))
    betas = subject.betas()
    ids, repeat = np.unique(betas.stimulus_ids, return_inverse=True)
    trials = np.stack([betas.data[repeat == k][:3] for k in range(len(ids)) if (repeat == k).sum() == 3])
    noise_var = trials.var(axis=1, ddof=1).mean(axis=0)
    signal_var = np.maximum(trials.mean(axis=1).var(axis=0, ddof=1) - noise_var / 3, 0)
    estimate = 100 * signal_var / (signal_var + noise_var / 3)
    x, y, z = betas.voxels.T
    truth = np.asarray(subject.noise_ceiling().dataobj)[x, y, z]
    # drift and gain add a little noise, so the estimate may be lower but not higher
    assert np.corrcoef(truth, estimate)[0, 1] > 0.8
    assert -8 < (estimate - truth).mean() < 2
    assert 5 <= truth.min() and truth.max() <= 61


def test_experiment_limits():
    with pytest.raises(nsd.NSDError, match="n_test must leave trials for training"):
        experiment.make_experiment(SimulationParams(n_sessions=1, n_test=250))
    with pytest.raises(nsd.NSDError, match="at most 9000 training images"):
        experiment.make_experiment(SimulationParams(n_sessions=40, n_test=60, train_repeats=1))
    # NSD's own size fits exactly
    full = experiment.make_experiment(SimulationParams(n_sessions=40, n_test=1000, train_repeats=3))
    assert full.n_trials == 30000 and len(np.unique(full.shown(8))) == 10000


def test_energy_prefers_its_own_orientation():
    x = np.arange(64)
    bars = np.stack([np.cos(2 * np.pi * 0.22 * grid) for grid in np.meshgrid(x, x)])  # varies along x; along y
    images = np.repeat((127 + 100 * bars)[..., None], 3, axis=3).astype(np.uint8)
    energy = features.energy_maps(images).mean(axis=2)  # (filters, images), 4 orientations x 2 frequencies
    assert energy[:, 0].argmax() == 4 and energy[:, 1].argmax() == 6


def test_receptive_fields_are_contralateral_and_dorsal_sees_below():
    from napari_neuraldiffuser.core.nsd.simulation.responses import retinotopy

    rng = np.random.default_rng(0)
    left = rng.uniform([-30, -100, -10], [-5, -70, 10], (200, 3))
    place = retinotopy(left, "lower", rng)
    assert (place >= 0).all()  # right of fixation and below it (y runs down)
    assert (retinotopy(left * [-1, 1, 1], "upper", rng) <= 0).all()


def test_signal_like_noise_has_the_signals_covariance():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(40, 6)).astype(np.float32) @ rng.normal(size=(6, 6)).astype(np.float32)
    signal -= signal.mean(axis=0)
    drawn = noise.signal_like(signal, 40_000, rng)
    want = noise.SIGNAL_LIKE * signal.T @ signal / len(signal)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), want, atol=0.05 * want.max())


@pytest.mark.slow
def test_the_default_subject_can_be_decoded_where_its_truth_says(tmp_path):
    """Full default: early areas win for pixels, ventral ones for contents, and the size stays under 200
    MB."""
    nsd.simulate.write_subject(tmp_path, SimulationParams())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 200e6
    subject = nsd.Subject(tmp_path, "subj01")
    betas = subject.betas()
    train, test = betas.split()
    early = sum(mask for name, mask in subject.rois().of(betas).items() if name != "hV4") > 0
    ventral = sum(sum(subject.rois(f"floc-{k}").of(betas).values()) for k in ("faces", "places", "bodies", "words")) > 0
    assert 1500 <= betas.n_voxels <= 2500
    ids = np.concatenate([train.stimulus_ids, test.stimulus_ids])
    images = subject.stimuli[ids].reshape(len(ids), 16, 8, 16, 8, 3).mean(axis=(2, 4)).reshape(len(ids), -1)
    content, _ = features.content_table([nsd.simulate.scene_of(0, one) for one in ids.tolist()])
    score = {
        (where, what): _r2(train.data[:, mask], target[: len(train)], test.data[:, mask], target[len(train) :])
        for where, mask in (("early", early), ("ventral", ventral))
        for what, target in (("pixels", images), ("content", content))
    }
    assert score["early", "pixels"] > 0.3 and score["ventral", "content"] > 0.4
    assert score["early", "pixels"] > score["ventral", "pixels"] + 0.05
    assert score["ventral", "content"] > score["early", "content"] + 0.2


def _r2(x, y, x_test, y_test, alpha=1000.0):
    from sklearn.linear_model import Ridge

    predicted = Ridge(alpha=alpha).fit(x, y).predict(x_test)
    return 1 - ((y_test - predicted) ** 2).sum() / ((y_test - y_test.mean(axis=0)) ** 2).sum()


def test_what_makes_forty_sessions_possible_is_said_and_is():
    params = SimulationParams(n_sessions=40)
    with pytest.raises(nsd.NSDError, match="Give train_repeats 3 and n_test 1000, or lower n_sessions") as refused:
        experiment.make_experiment(params)
    assert "got 14910" in str(refused.value)
    whole = experiment.make_experiment(params.but(train_repeats=3, n_test=1000))
    assert np.unique(whole.shown(1), return_counts=True)[1].tolist() == [3] * 10_000
    # fewer sessions need no other test images
    with pytest.raises(nsd.NSDError, match="Give train_repeats 2 and n_test 60,"):
        experiment.make_experiment(SimulationParams(n_sessions=20, train_repeats=1))
    assert experiment.make_experiment(SimulationParams(n_sessions=20)).n_trials == 15_000


def test_the_size_is_told_before_and_is_about_right(written):
    root = written[0]
    there = sum(path.stat().st_size for path in root.rglob("*.hdf5"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(brain.GRIDS, "demo", SMALL_GRID)
        space._grey.cache_clear()
        needed = space.needed_bytes(PARAMS)
    space._grey.cache_clear()
    assert 0.9 * there < needed < 1.6 * there


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch, small_grid):
    free = space.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda folder: free._replace(free=1_000_000))
    with pytest.raises(nsd.NSDError, match=r"must have 0\.0 GB free|must have 0\.\d GB free .* Lower n_sessions"):
        nsd.simulate.write_subject(tmp_path, PARAMS)
    assert not list(tmp_path.rglob("*.hdf5"))


def test_responses_do_not_depend_on_how_many_voxels_are_computed_at_once(small_grid, monkeypatch):
    shown = np.arange(80).repeat(2)
    images = lambda ids: np.random.default_rng(0).integers(0, 256, (len(ids), 64, 64, 3), dtype=np.uint8)  # noqa: E731
    whole = nsd.simulate.respond(1, shown, images, PARAMS, lambda *call: None)
    monkeypatch.setattr(responses, "BLOCK_VALUES", 80 * 50)
    assert len(responses.blocks(whole.signal.shape[1], 80)) > 4
    parts = nsd.simulate.respond(1, shown, images, PARAMS, lambda *call: None)
    np.testing.assert_allclose(parts.signal, whole.signal, rtol=2e-4, atol=2e-5)
