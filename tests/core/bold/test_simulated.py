"""The simulated subject in the scanner: BIDS that `betas` reads, a truth that is found again, and the command line."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor

from napari_neuraldiffuser import cli
from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.nsd.simulation.bold import signal
from napari_neuraldiffuser.core.nsd.simulation.bold.files import BidsPlaces, write_bold_subjects
from napari_neuraldiffuser.core.params import BoldSimulationParams
from tests.support.workflows.small import contents

OPTIONS = ["--n-sessions", "2", "--n-runs", "2", "--n-trials", "20", "--n-test", "5", "--seed", "4"]
PARAMS = BoldSimulationParams(n_sessions=2, n_runs=2, n_trials=20, n_test=5, seed=4)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bids")
    assert cli.main(["simulate", str(folder), "--bold", *OPTIONS]) == 0
    return BidsPlaces(folder, 1)


@pytest.fixture(scope="module")
def estimated(places, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert cli.main(["betas", str(places.root), str(out), "--fd-threshold", "0"]) == 0
    return out / "sub-01"


def volumes(path, mask):
    return nib.load(path).get_fdata(dtype=np.float32)[mask].T


def test_estimated_betas_are_the_true_ones_with_noise(places, estimated):
    mask = nib.load(places.truth_mask).get_fdata() > 0
    true = volumes(places.truth, mask)
    betas = volumes(estimated / "sub-01_desc-lsa_betas.nii.gz", mask)
    assert betas.shape == true.shape == (80, mask.sum())
    a, b = true - true.mean(axis=0), betas - betas.mean(axis=0)
    r = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    slope = (a * b).sum(axis=0) / (a**2).sum(axis=0)
    wrong = np.roll(b, 1, axis=0)
    other = (a * wrong).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    assert np.median(r) > 0.5 and abs(np.median(other)) < 0.15 and 0.85 < np.median(slope) < 1.15
    assert b.var(axis=0).mean() > 1.2 * a.var(axis=0).mean()


def test_tables_agree(places, estimated):
    true = pd.read_csv(places.truth_trials, sep="\t", dtype={"session": str, "run": str})
    found = pd.read_csv(estimated / "sub-01_desc-lsa_trials.tsv", sep="\t", dtype={"session": str, "run": str})
    for name in ("trial", "stimulus", "session", "run", "test", "onset"):
        assert found[name].tolist() == true[name].tolist(), name
    shown = true.groupby("stimulus").test.agg(["size", "max"])
    assert (shown["size"][shown["max"] == 1] == 3).all() and (shown["max"] == 1).sum() == 5
    assert (shown["size"][shown["max"] == 0] <= 2).all()


def test_own_scans_with_pictures_captions_and_regions(places):
    regions = tuple(map(str, sorted(places.regions.glob("*.nii.gz"))))
    source = Source(
        subject="01",
        betas=str(places.truth),
        mask=str(places.truth_mask),
        trials=str(places.truth_trials),
        images=str(places.stimuli),
        captions=str(places.captions),
        anatomy=str(places.anatomy),
        rois=regions,
    )
    subject = nsd.open_source(source)
    train, test = subject.betas().split()
    assert set(test.repeats) == {3} and len(subject.stimuli.captions(0)) == 5
    assert subject.stimuli[[0, 1]].std(axis=(1, 2, 3)).min() > 5
    assert "prfvisualrois" in subject.roi_names() and subject.rois("prfvisualrois").names[1] == "V1v"
    # the region that own scans take by default is the family of that name
    assert len(subject.voxels()) == len(subject.voxels("nsdgeneral")) == train.n_voxels


def test_the_response_is_not_the_one_that_is_assumed():
    time, curve = signal.response_curve(PARAMS.hrf_delay, 3.0)
    usual = compute_regressor(np.array([[0.0], [3.0], [1.0]]), "spm", time)[0][:, 0]
    later = time[curve.argmax()] - time[usual.argmax()]
    assert 0.1 < later < 1.5 and curve.max() == 1
    assert 0.9 < np.corrcoef(curve, usual)[0, 1] < 0.999


def test_confounds_explain_noise(places, tmp_path, estimated):
    assert cli.main(["betas", str(places.root), str(tmp_path), "--confounds", "none", "--fd-threshold", "0"]) == 0
    with_them, without = (
        np.mean([run["mean_tsnr"] for run in read_json(folder / "sub-01_desc-lsa_design.json")["runs"]])
        for folder in (estimated, tmp_path / "sub-01")
    )
    # drift and the thermal noise are in both, of which the latter alone would be 80
    assert without < 0.95 * with_them < 80


def test_the_same_seed_is_the_same_bytes_and_what_is_there_is_kept(places, tmp_path):
    write_bold_subjects(tmp_path, PARAMS)
    first, again = contents(places.root), contents(tmp_path)
    assert first == again
    calls = []
    before = places.marker.stat().st_mtime_ns
    write_bold_subjects(places.root, PARAMS, lambda *call: calls.append(call))
    assert calls == [] and places.marker.stat().st_mtime_ns == before


def test_options_of_the_scanner_need_bold(tmp_path, capsys):
    assert cli.main(["simulate", str(tmp_path / "x"), "--tsnr", "50"]) == 2
    assert "--tsnr must stand beside --bold" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_too_few_trials(tmp_path, capsys):
    options = ["--n-sessions", "1", "--n-runs", "1", "--n-trials", "20", "--n-test", "7"]
    assert cli.main(["simulate", str(tmp_path), "--bold", *options]) == 2
    assert "n_test must leave trials for training, got 7 test images x 3 in 20 trials" in capsys.readouterr().err
