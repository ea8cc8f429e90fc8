"""What is known to be wrong is said before anything is computed, whatever front end asks."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.job import run as plain
from napari_neuraldiffuser.core.job.check import check_job
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.nsd import Subject
from napari_neuraldiffuser.core.params import FeatureParams, GuidanceParams
from tests.support.nsd.own_files import export


@pytest.fixture
def job(inputs, tmp_path):
    return Job.of(inputs, tmp_path / "out")


@pytest.fixture(scope="module")
def scans(nsd_dir, tmp_path_factory):
    return export(Subject(nsd_dir, "subj01"), tmp_path_factory.mktemp("own") / "scans")


def with_roi(job, roi):
    return replace(job, settings=replace(job.settings, betas=job.settings.betas.but(roi=roi)))


def mask(path, shape, value=1):
    nib.save(nib.Nifti1Image(np.full(shape, value, np.uint8), np.eye(4)), path)
    return str(path)


def no_tree(job, tmp_path):
    return replace(job, source=replace(job.scans, nsd_dir=str(tmp_path / "gone")))


def blocked(job, tmp_path):
    (tmp_path / "file").write_text("")
    return replace(job, out_dir=tmp_path / "file" / "out")


def blocked_work(job, tmp_path):
    (tmp_path / "file").write_text("")
    return replace(job, work_dir=tmp_path / "file" / "work")


def undecoded(job, tmp_path):
    features, guidance = FeatureParams(layers=("g02",)), GuidanceParams(layers=("g02", "g04"), layer_weights=(1.0, 1.0))
    return replace(job, settings=replace(job.settings, features=features, guidance=guidance))


def sessions(job, tmp_path):
    return replace(job, settings=replace(job.settings, betas=job.settings.betas.but(sessions="1-40")))


WRONG = {
    "unknown region": (lambda job, tmp: with_roi(job, "V9"), "roi must be made of"),
    "no mask file": (lambda job, tmp: with_roi(job, "gone.nii.gz"), "ROI mask must be an existing NIfTI"),
    "other grid": (lambda job, tmp: with_roi(job, mask(tmp / "m.nii", (2, 2, 2))), "m.nii"),
    "empty": (lambda job, tmp: with_roi(job, "V1 - V1"), "must have voxels"),
    "no tree": (no_tree, "gone"),
    "sessions": (sessions, "sessions must be"),
    "out": (blocked, "must be a folder that can be written"),
    "work": (blocked_work, "must be a folder that can be written"),
    "layers": (undecoded, "layers of the guidance must be among"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_it_is_said_before_a_beta_is_read(job, tmp_path, monkeypatch, kind):
    spoil, message = WRONG[kind]
    monkeypatch.setattr(plain, "prepare", lambda *args: pytest.fail("it was begun"))
    with pytest.raises(UserError, match=message):
        plain.run_subject(spoil(job, tmp_path))


@pytest.mark.parametrize("field", ["mask", "trials", "images", "captions", "anatomy", "rois"])
def test_own_scans_too(job, scans, tmp_path, field):
    check_job(replace(job, source=scans, n_stimuli=None))
    gone = str(tmp_path / f"no-{field}")
    with pytest.raises(UserError, match=f"no-{field}"):
        check_job(replace(job, source=replace(scans, **{field: (gone,) if field == "rois" else gone})))


def no_captions(scans, tmp_path):
    (tmp_path / "captions.json").write_text("trial\tstimulus\n")
    return replace(scans, captions=str(tmp_path / "captions.json"))


def a_caption_less(scans, tmp_path):
    captions = json.loads(Path(scans.captions).read_text())
    captions.popitem()
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return replace(scans, captions=str(tmp_path / "captions.json"))


def a_picture_less(scans, tmp_path):
    folder = shutil.copytree(scans.images, tmp_path / "pictures")
    next(folder.glob("*.png")).unlink()
    return replace(scans, images=str(folder))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_captions, "captions.json must be a JSON"),
        (a_caption_less, "captions.json must have one entry of captions of stimulus"),
        (a_picture_less, "pictures must hold an image .* got none for 1"),
    ],
)
def test_pictures_and_captions_of_all_stimuli_are_there(job, scans, tmp_path, spoil, told):
    with pytest.raises(UserError, match=told):
        check_job(replace(job, source=spoil(scans, tmp_path), n_stimuli=None))


def test_a_mask_of_own_scans_on_another_grid(job, scans, tmp_path):
    with pytest.raises(UserError, match="mask must have the betas' shape"):
        check_job(replace(job, source=replace(scans, mask=mask(tmp_path / "small.nii", (2, 2, 2)))))


@pytest.mark.parametrize("n", [0, 1])
def test_one_test_stimulus_is_enough(job, scans, tmp_path, n):
    table = Path(scans.trials).read_text().splitlines()
    columns = table[0].split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in table[1:]]
    kept = [row["stimulus"] for row in rows if row["test"] == "1"][:n]
    for row in rows:
        row["test"] = "1" if row["stimulus"] in kept else "0"
    few = tmp_path / "trials.tsv"
    few.write_text("\n".join(["\t".join(columns), *("\t".join(row.values()) for row in rows)]) + "\n")
    with nullcontext() if n else pytest.raises(UserError, match="must have test stimuli, got none"):
        check_job(replace(job, source=replace(scans, trials=str(few))))


@pytest.mark.parametrize("models", ["owner/not-fetched", "nowhere/at/all", "x.ckpt"])
def test_models_that_are_not_there(job, tmp_path, hub_cache, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(b"weights")
    with pytest.raises(UserError, match=f"Models must be .*got .*{models}"):
        check_job(replace(job, models=models))


def test_a_right_job_is_told_nothing_and_writes_nothing(job, tmp_path):
    check_job(job)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    shutil.rmtree(tmp_path / "out")
