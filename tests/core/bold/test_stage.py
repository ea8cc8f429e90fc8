"""Runs to betas: what comes back is what went in, in the files of own scans; resuming, cancelling, several at once."""

import errno
import pickle
import tracemalloc

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.base.lock import BusyError, held, output_lock
from napari_neuraldiffuser.core.base.progress import silent
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.bold import BoldError, find_runs, make_betas, stage, survey
from napari_neuraldiffuser.core.bold.read import read_run
from napari_neuraldiffuser.core.bold.stage import estimate
from napari_neuraldiffuser.core.bold.write import write_betas
from napari_neuraldiffuser.core.nsd.reading import sessions
from napari_neuraldiffuser.core.params import BetasParams, BoldParams
from tests.support.nsd.bids_files import AFFINE, SHAPE, save, write_bids

PARAMS = BoldParams(estimator="lsa")


@pytest.fixture(scope="module")
def made(scanned, tmp_path_factory):
    out = tmp_path_factory.mktemp("betas")
    return make_betas(find_runs(scanned.raw, "01"), out, "01", PARAMS, command="neuraldiffuser betas x y")


def values_of(path, mask):
    return nib.load(path).get_fdata(dtype=np.float32)[mask].T


def test_planted_betas_come_back(scanned, made):
    planted = np.concatenate([scanned.betas[key] for key in (("a", "1"), ("a", "2"), ("b", "1"))])
    # float32 of a signal around 9000 rounds by .0005, which is 5e-6 percent
    np.testing.assert_allclose(values_of(made.betas, scanned.mask), planted, atol=2e-4)


def test_own_scans_are_opened_from_them(scanned, made):
    source = Source(subject="01", betas=str(made.betas), mask=str(made.mask), trials=str(made.trials))
    subject = nsd.open_source(source, BetasParams(average_repeats=False))
    betas = subject.betas()
    assert subject.sessions() == ["a", "b"] and betas.n_voxels == scanned.mask.sum() and len(betas) == 36
    train, test = nsd.open_source(source).betas().split()
    assert {test.stimulus_names[k] for k in test.stimulus_ids} == {"s00.png", "s01.png", "s02.png"}
    assert set(test.repeats) == {6} and set(train.repeats) == {3}
    table = pd.read_csv(made.trials, sep="\t")
    assert table.trial.tolist() == list(range(36)) and table.groupby("session").size().tolist() == [24, 12]
    events = pd.read_csv(scanned.file("b", "1", "events.tsv", derived=False), sep="\t")
    assert table.stimulus[24:].tolist() == events.stim_file.tolist()
    np.testing.assert_allclose(table.onset[24:], events.onset)


def test_report_and_sidecar_say_how(made, scanned):
    page = made.page.read_text()
    assert page.count("data:image/png") == 4 and "neuraldiffuser betas x y" in page and "ses-b run-1" in page
    about = read_json(made.betas.with_name("sub-01_desc-lsa_betas.json"))
    assert about["Estimator"] == "least squares all" and about["EstimationParameters"]["high_pass"] == PARAMS.high_pass
    assert about["RepetitionTimes"] == [1.5] * 3 and len(about["RawSources"]) == 3
    facts = read_json(made.betas.with_name("sub-01_desc-lsa_design.json"))
    first = facts["runs"][0]
    assert facts["test_rule"] == "repeats" and facts["n_test_stimuli"] == 3 and facts["n_voxels"] == scanned.mask.sum()
    assert first["first_volume_at"] == 0.75 and first["inflation"]["median"] >= 1
    assert {"trans_x", "a_comp_cor_02"} <= set(first["confounds"]) and first["mean_displacement"] < 0.2


def test_tsnr_is_mean_over_what_drift_and_confounds_leave(tmp_path):
    """Noise of 2 percent on no responses: 50."""
    scanned = write_bids(tmp_path / "bids", [("", "")], noise=2.0, n_trials=40)
    written = make_betas(find_runs(scanned.raw, "01"), tmp_path / "out", "01", PARAMS)
    found = read_json(written.page.with_suffix(".json"))["runs"][0]["mean_tsnr"]
    evoked = scanned.betas["", ""].std()  # the responses are part of it
    assert 50 / np.sqrt(1 + (2 * evoked / 2) ** 2) < found < 52


def test_the_same_bits_again_and_with_several_processes(scanned, made, tmp_path):
    again = make_betas(find_runs(scanned.raw, "01"), tmp_path, "01", PARAMS.but(n_jobs=2), work_dir=tmp_path / "w")
    for name in ("betas", "mask", "trials"):
        assert getattr(again, name).read_bytes() == getattr(made, name).read_bytes()


class Stop(Exception):
    pass


def test_finished_runs_are_kept_when_it_is_cancelled(tmp_path):
    scanned = write_bids(tmp_path / "bids")
    runs, read = find_runs(scanned.raw, "01"), []

    def stop_at_second(done, total, what):
        read.append(what)
        if "ses-a run-2" in what:
            raise Stop

    with pytest.raises(Stop):
        make_betas(runs, tmp_path / "out", "01", PARAMS, stop_at_second)
    assert not list((tmp_path / "out").rglob("*betas.nii.gz")) and not list((tmp_path / "out").rglob(".tmp-*"))
    read.clear()
    written = make_betas(runs, tmp_path / "out", "01", PARAMS, lambda d, n, what: read.append(what))
    assert not any("ses-a run-1" in what for what in read) and any("ses-b run-1" in what for what in read)
    whole = make_betas(runs, tmp_path / "other", "01", PARAMS)
    assert written.betas.read_bytes() == whole.betas.read_bytes()


@pytest.mark.parametrize("change", ["events", "confounds", "params", "no resume"])
def test_what_changed_is_fitted_again(tmp_path, change):
    scanned = write_bids(tmp_path / "bids")
    runs, read, params = find_runs(scanned.raw, "01"), [], PARAMS
    make_betas(runs, tmp_path / "out", "01", params)
    if change == "events":
        scanned.edit_events("a", "2", lambda table: table.assign(duration="2.5"))
    if change == "confounds":
        path = scanned.file("a", "2", "desc-confounds_timeseries.tsv")
        table = pd.read_csv(path, sep="\t").assign(trans_x=lambda t: t.trans_x * t.trans_x)
        table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    if change == "params":
        params = params.but(high_pass=0.02)
    resume = change != "no resume"
    make_betas(runs, tmp_path / "out", "01", params, lambda d, n, what: read.append(what), resume=resume)
    fitted = {name for name in ("ses-a run-1", "ses-a run-2", "ses-b run-1") if any(name in what for what in read)}
    everything = {"ses-a run-1", "ses-a run-2", "ses-b run-1"}
    assert fitted == ({"ses-a run-2"} if change in ("events", "confounds") else everything)


def test_voxels_without_signal_leave_the_mask_everywhere(tmp_path):
    scanned = write_bids(tmp_path / "bids")
    path = scanned.file("b", "1", "space-T1w_desc-preproc_bold.nii.gz")
    bold = nib.load(path).get_fdata(dtype=np.float32)
    bold[2, 1, 2], bold[3, 1, 2, 4] = 0, np.nan
    save(path, bold, 1.5)
    written = make_betas(find_runs(scanned.raw, "01"), tmp_path / "out", "01", PARAMS)
    mask = nib.load(written.mask).get_fdata() > 0
    assert not mask[2, 1, 2] and not mask[3, 1, 2] and mask.sum() == scanned.mask.sum() - 2
    betas = nib.load(written.betas).get_fdata()
    assert np.isfinite(betas).all() and not betas[~mask].any()
    assert "2 voxels of the mask have no signal in some run" in " ".join(written.notes)


def test_masks_of_the_runs_are_intersected(tmp_path):
    scanned = write_bids(tmp_path / "bids")
    smaller = scanned.mask.copy()
    smaller[2] = False
    save(scanned.file("a", "2", "space-T1w_desc-brain_mask.nii.gz"), smaller.astype(np.uint8))
    written = make_betas(find_runs(scanned.raw, "01"), tmp_path / "out", "01", PARAMS)
    np.testing.assert_array_equal(nib.load(written.mask).get_fdata() > 0, smaller)


def test_standardised_bold_has_no_percent_signal_change(own, tmp_path):
    path = own.file("a", "1", "space-T1w_desc-preproc_bold.nii.gz")
    bold = nib.load(path).get_fdata(dtype=np.float32)
    save(path, bold - bold.mean(axis=3, keepdims=True), 1.5)
    with pytest.raises(BoldError, match="must have its mean .*--scale none"):
        make_betas(find_runs(own.raw, "01"), tmp_path / "out", "01", PARAMS)
    make_betas(find_runs(own.raw, "01"), tmp_path / "out", "01", PARAMS.but(scale="none"))


@pytest.mark.parametrize("options", [{}, {"smoothing_fwhm": 4.0}, {"n_jobs": 2}])
def test_a_truncated_series_is_told_once_and_other_runs_are_kept(tmp_path, options):
    scanned = write_bids(tmp_path / "bids")
    path = scanned.file("b", "1", "space-T1w_desc-preproc_bold.nii.gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="^BOLD of ses-b run-1 .* must be a complete file") as told:
        make_betas(find_runs(scanned.raw, "01"), tmp_path / "out", "01", PARAMS.but(**options))
    assert str(told.value).count("must be") == 1
    kept = {part.name for part in (tmp_path / "out").rglob("*.h5")}
    assert "ses-b_run-1.h5" not in kept and (options == {"n_jobs": 2} or len(kept) == 2)


def test_smoothing_is_nilearns(own, tmp_path):
    from nilearn.image import smooth_img

    plain = write_bids(tmp_path / "smoothed", [("a", "1")])
    path = plain.file("a", "1", "space-T1w_desc-preproc_bold.nii.gz")
    image = nib.load(path)
    save(path, smooth_img(image, 5.0).get_fdata(dtype=np.float32), 1.5)
    ours = make_betas(find_runs(own.raw, "01"), tmp_path / "a", "01", PARAMS.but(smoothing_fwhm=5.0))
    theirs = make_betas(find_runs(plain.raw, "01"), tmp_path / "b", "01", PARAMS)
    np.testing.assert_allclose(values_of(ours.betas, own.mask), values_of(theirs.betas, own.mask), atol=1e-4)


def test_memory_is_one_run_and_its_betas(tmp_path, monkeypatch):
    """A run is held once, beside its betas and some voxels in float64."""
    rng = np.random.default_rng(0)
    scanned = write_bids(tmp_path / "bids", [("a", "1")])
    path = scanned.file("a", "1", "space-T1w_desc-preproc_bold.nii.gz")
    n = nib.load(path).shape[3]
    bold = rng.normal(1000, 10, (40, 40, 30, n)).astype(np.float32)
    nib.save(nib.Nifti1Image(bold, AFFINE), path.with_suffix(""))
    path.unlink()
    mask = scanned.file("a", "1", "space-T1w_desc-brain_mask.nii.gz")
    save(mask, np.ones(bold.shape[:3], np.uint8))
    size = bold.nbytes
    del bold
    monkeypatch.setattr(sessions, "BLOCK_BYTES", 2**20)
    found = survey(find_runs(scanned.raw, "01"), PARAMS.but(chunk_voxels=1000))
    tracemalloc.start()
    estimate(found.alone(0), tmp_path / "part.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    betas = size * 12 / n
    assert peak < 1.3 * size + 2 * betas, peak / size


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_hole_in_one_volume_takes_what_smoothing_spreads_it_to(own, tmp_path, value):
    """As 0 it would pull its neighbours down in that volume: the largest beta becomes many times larger."""
    path, params = own.file("a", "1", "space-T1w_desc-preproc_bold.nii.gz"), PARAMS.but(smoothing_fwhm=2.0)
    save(own.file("a", "1", "space-T1w_desc-brain_mask.nii.gz"), np.ones(SHAPE, np.uint8))
    bold = 9000 + np.random.default_rng(0).standard_normal(nib.load(path).shape).astype(np.float32)
    bold[0, 0] = np.nan  # never measured: its neighbours stay
    save(path, bold, 1.5)
    whole = survey(find_runs(own.raw, "01"), params)
    before = read_run(whole.designs[0], whole.voxels, params, silent)
    bold[4, 2, 1, 7] = value
    save(path, bold, 1.5)
    after = read_run(whole.designs[0], whole.voxels, params, silent)
    lost, never = np.isnan(after).any(axis=0), np.isnan(before).any(axis=0)
    x, y, z = whole.voxels.T
    assert never.sum() == 3 and set(zip(x[never], y[never], strict=True)) == {(0, 0)}
    # sigma is 0.28 of 3 mm and 0.21 of 4 mm: 4 sigma are one voxel
    near = (np.abs(x - 4) <= 1) & (np.abs(y - 2) <= 1) & (np.abs(z - 1) <= 1)
    np.testing.assert_array_equal(lost, near | never)
    np.testing.assert_array_equal(after[:, ~lost], before[:, ~lost])


def test_a_full_disk_leaves_no_new_labels_beside_old_betas(own, tmp_path, monkeypatch):
    runs, out = find_runs(own.raw, "01"), tmp_path / "out"
    first = make_betas(runs, out, "01", PARAMS)
    own.edit_events("a", "1", lambda t: t.assign(stim_file=list(t.stim_file[::-1])))

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write_mask", "write_betas", "write_reports"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(stage, name, full)
            make_betas(runs, out, "01", PARAMS)
        assert not (first.betas.exists() and first.trials.exists())
    assert make_betas(runs, out, "01", PARAMS).trials.exists() and first.betas.exists()


def test_each_estimator_has_a_mask_of_its_own(own, tmp_path):
    made = [make_betas(find_runs(own.raw, "01"), tmp_path, "01", PARAMS.but(estimator=one)) for one in ("lsa", "lss")]
    assert made[0].mask != made[1].mask and made[0].mask.exists()


def test_a_second_process_is_kept_out(own, tmp_path):
    with held(*output_lock(tmp_path, "sub-01")), pytest.raises(BusyError, match="sub-01 in .*one process at a time"):
        make_betas(find_runs(own.raw, "01"), tmp_path, "01", PARAMS)
    make_betas(find_runs(own.raw, "01"), tmp_path, "01", PARAMS)


def test_a_process_is_sent_its_own_runs_only(tmp_path):
    found = survey(find_runs(write_bids(tmp_path, [("a", str(k)) for k in range(1, 7)]).raw, "01"), PARAMS)
    one = found.alone(3)
    assert [design.run.run for design in one.designs] == ["4"] and one.groups == [[0]]
    assert one.made_from(0) == found.made_from(3) and len(pickle.dumps(one)) < len(pickle.dumps(found)) / 4


def test_volumes_are_written_in_their_place(tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.uniform(size=SHAPE) > 0.4
    betas = rng.standard_normal((7, mask.sum())).astype(np.float32)
    path = tmp_path / "b.nii.gz"
    write_betas(path, iter(betas), 7, mask, AFFINE)
    image = nib.load(path)
    assert image.shape == (*SHAPE, 7) and image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj)[mask].T, betas)
    assert not np.asarray(image.dataobj)[~mask].any()
    np.testing.assert_allclose(image.affine, AFFINE)
