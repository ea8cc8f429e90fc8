"""What each of the engine's calls gives, and the errors that are the user's to mend."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import ARMS, Source
from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.job import images, stages
from napari_neuraldiffuser.core.job.run import Job, run_subject
from napari_neuraldiffuser.core.params import TARGETS, ParamError
from tests.support.study_cases import Log, call


def test_describe_counts_what_is_there(given, tmp_path):
    found = Study(tmp_path).call("describe", {"source": given.source.to_dict()}, Log().events)
    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    train, test = subject.betas().split()
    assert found["subjects"] == ["subj01"]
    assert found["sessions"] == [1]
    assert found["test_ids"] == test.stimulus_ids.tolist()
    assert found["n_train"] == len(train)
    assert found["families"]["nsdgeneral"] == {"nsdgeneral": len(subject.voxels("nsdgeneral"))}
    assert found["families"]["prf-visualrois"]["V1v"] == len(subject.voxels("V1v"))
    assert found["shape"] == list(subject.shape)
    np.testing.assert_array_equal(found["affine"], subject.affine)
    assert found["voxel_sizes_mm"] == [4.0, 4.0, 4.0]
    json.dumps(found)


def test_voxels_of_an_expression(given, tmp_path):
    made, params = Study(tmp_path), given.settings.betas
    counts = {
        roi: call(made, "voxels", given.with_stage("betas", params.but(roi=roi)))["n_voxels"]
        for roi in ("V1", "V2", "V1 + V2", "V1 & V2 + V1")
    }
    assert counts["V1 + V2"] == counts["V1"] + counts["V2"]
    assert counts["V1 & V2 + V1"] == counts["V1"] > 0


def test_thumbnails_are_the_stimuli_made_small(given, tmp_path):
    ids = list(given.stimulus_ids)
    args = {"source": given.source.to_dict(), "ids": ids, "size": 16}
    found = Study(tmp_path).call("thumbnails", args, Log().events)
    stimuli = nsd.Subject(given.source.nsd_dir, "subj01").stimuli
    assert found["images"].shape == (2, 16, 16, 3)
    means = stimuli[ids].mean(axis=(1, 2)), found["images"].mean(axis=(1, 2))
    np.testing.assert_allclose(means[0], means[1], atol=6)
    assert found["captions"] == [stimuli.captions(i)[0] for i in ids]
    whole = Study(tmp_path).call("thumbnails", {**args, "size": 32}, Log().events)
    np.testing.assert_array_equal(whole["images"], stimuli[ids])


@pytest.mark.slow
def test_own_scans_from_their_files_to_images(given, tmp_path):
    from tests.support.nsd.own_files import FAMILY, export

    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    recipe, made = given.but(source=export(subject, tmp_path / "scans")), Study(tmp_path / "cache")
    about = made.call("describe", {"source": recipe.source.to_dict()}, Log().events)
    assert about["subjects"] == [recipe.source.subject]
    assert about["families"][FAMILY.replace("-", "")]["V1v"] == len(subject.voxels("V1v"))
    decoded = call(made, "decode", recipe)
    assert decoded["n_voxels"] == len(subject.voxels("nsdgeneral"))
    assert decoded["test_ids"] == about["test_ids"]
    recipe = recipe.but(stimulus_ids=tuple(about["test_ids"][:1]))
    result = call(made, "reconstruct", recipe)
    assert all(row["file"].startswith("sub-07/recon/sub-07_stim-") for row in result["provenance"]["images"])
    assert call(made, "contribution", recipe)["folder"].endswith("sub-07")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stimulus_ids": ()}, "got none"),
        ({"stimulus_ids": (999,)}, "got 999"),
        ({"arms": ()}, "arms must be"),
        ({"models": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"device": "cuda"}, "torch sees no CUDA"),
        ({"device": "toaster"}, "device must be one of cpu"),
    ],
)
def test_what_the_user_can_mend(given, ready, changes, words):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=words):
        call(ready, "reconstruct", given.but(**changes))


def test_a_stimulus_is_named_once(given, ready):
    with pytest.raises(UserError, match="distinct"):
        call(ready, "reconstruct", given.but(stimulus_ids=(given.stimulus_ids[0],) * 2))


def test_unknown_calls_and_recipes(given, ready):
    for name in ("no_such_call", "warm", "call", "__init__"):
        with pytest.raises(UserError, match="call must be one of"):
            ready.call(name, {}, Log().events)
    with pytest.raises(ParamError, match="fields among"):
        ready.call("decode", {"recipe": {"surprise": 1}}, Log().events)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 TiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 5 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    ],
)
def test_too_little_memory_is_the_users_to_mend(given, ready, monkeypatch, error):
    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(images, "reconstruct_batch", full)
    with pytest.raises(UserError, match=r"cpu must have memory for one image .* another device") as caught:
        call(ready, "reconstruct", given)
    assert caught.value.__context__ is None
    assert ready.warm._models == ("", None)
    monkeypatch.undo()
    assert call(ready, "reconstruct", given)["complete"]


def test_a_bug_is_no_users_error(given, ready, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(images, "reconstruct_batch", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        call(ready, "reconstruct", given)


def test_regions_and_anatomy_of_own_scans_do_not_decide_the_stimuli():
    own = Source(betas="b", mask="m", trials="t", images="i", captions="c")
    same = [replace(own, rois=("r",)), replace(own, anatomy="a"), replace(own, mask="n")]
    assert {tuple(source.stimuli) for source in same} == {tuple(own.stimuli)}
    assert replace(own, captions="d").stimuli != own.stimuli


def test_contribution_is_that_of_the_job(given, ready):
    import nibabel
    import pandas as pd

    found = call(ready, "contribution", given)
    table = pd.read_csv(f"{found['folder']}/sub-01_contribution.tsv", sep="\t")
    assert found["kind"] == "product-measure"
    for target in TARGETS:
        volume = nibabel.load(f"{found['folder']}/sub-01_space-func1pt8mm_target-{target}_contribution.nii.gz")
        assert volume.get_fdata().sum() == pytest.approx(found["totals"][target], abs=1e-4)
        rows = table[(table.target == target) & (table.family == "prf-visualrois")]
        assert rows.share.sum() == pytest.approx(found["totals"][target], abs=1e-6)
    assert (ready.cache / found["folder"] / "anat/sub-01_space-func1pt8mm_T1w.nii.gz").is_file()


def test_contribution_is_computed_once_and_again_for_other_params(given, ready, monkeypatch):
    from napari_neuraldiffuser.core.engine import maps as study_maps

    first = call(ready, "contribution", given)
    calls, compute = [], stages.contribution
    monkeypatch.setattr(stages, "contribution", lambda *args: calls.append(1) or compute(*args))
    assert call(ready, "contribution", given) == first
    assert not calls
    other = given.with_stage("contribution", given.settings.contribution.but(bootstrap=20))
    assert call(ready, "contribution", other)["folder"] != first["folder"]
    assert calls == [1]
    monkeypatch.setattr(study_maps, "KEPT_MAPS", 2)
    for mark in (ready.cache / "contributions").glob("*/contribution.json"):
        os.utime(mark, (1, 1))  # clocks of files may be coarse
    call(ready, "contribution", given)
    call(ready, "contribution", given.with_stage("contribution", given.settings.contribution.but(bootstrap=21)))
    kept = {str(path) for path in (ready.cache / "contributions").iterdir()}
    assert len(kept) == 2
    assert any(first["folder"].startswith(path) for path in kept), "the longest unused goes, not the first made"


def test_report_runs_the_job(given, ready, tmp_path):
    log = Log()
    found = call(ready, "report", given, log, out_dir=str(tmp_path / "out"), n_stimuli=2)
    assert found["failed"] == []
    assert set(found["summary"]["arms"]) == {"guided", "unguided"}
    assert set(found["summary"]["warnings"]) <= set(found["warnings"])
    assert open(found["page"]).read().startswith("<!")
    told = {t["what"] for t in log.of("told")}
    assert {"reading betas", "page"} <= told
    assert not [what for what in told if what.startswith("fitting")], "the decoder of the cache is taken"
    kept, copied = next((ready.cache / "decoders").glob("*.h5")), next(Path(tmp_path / "out").rglob("*_decoder.h5"))
    assert kept.read_bytes() == copied.read_bytes()


@pytest.mark.slow
def test_report_goes_on_where_the_command_line_stopped(given, ready, tmp_path):
    """Both say that the same files are made from the same."""
    job = Job.of(given.but(arms=ARMS, stimulus_ids=()), tmp_path / "out", 2)
    run_subject(job)
    log = Log()
    call(ready, "report", given, log, out_dir=str(tmp_path / "out"), n_stimuli=2)
    assert not [t for t in log.of("told") if " step " in t["what"]]


def test_devices_name_the_cpu_always(tmp_path):
    found = Study(tmp_path).call("devices", {}, Log().events)
    assert found["devices"][0]["name"] == "cpu"
    assert len(found["devices"]) == 1 + torch.cuda.device_count()


@pytest.mark.slow
def test_simulate_writes_a_subject_that_describe_reads(tmp_path):
    made, log = Study(tmp_path / "cache"), Log()
    params = {"n_sessions": 1, "n_test": 4, "train_repeats": 3, "image_size": 32}
    found = made.call("simulate", {"folder": str(tmp_path / "nsd"), "params": params}, log.events)
    about = made.call("describe", {"source": {"nsd_dir": found["folder"]}}, log.events)
    assert len(about["test_ids"]) == 4
    assert log.of("told")
