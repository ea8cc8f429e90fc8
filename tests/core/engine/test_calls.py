"""The engine's calls in process: caches that hold and that do not, previews, cancelling, errors."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import io

from napari_neuraldiffuser.core import nsd, reconstruct
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.diffusion import pipeline
from napari_neuraldiffuser.core.engine import arms as study_arms
from napari_neuraldiffuser.core.engine import calls as study
from napari_neuraldiffuser.core.engine import decoder as study_decoder
from napari_neuraldiffuser.core.engine.cache import keep_newest, keep_newest_folders, partial_runs
from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.engine.runs import pixels_digest
from napari_neuraldiffuser.core.engine.warm import stimulus_source
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.params import TARGETS, ParamError
from tests.support.study_cases import DIFFUSION, GUIDANCE, Log, write_inputs

N_STEPS = int(DIFFUSION.strength * DIFFUSION.n_steps)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A recipe with two of the test stimuli, in the reverse of their order."""
    recipe = write_inputs(tmp_path_factory.mktemp("given"))
    subject = nsd.Subject(recipe.source.nsd_dir, "subj01")
    test = sorted({int(s) for s in subject.trials[subject.trials.shared].stimulus_id})
    return recipe.but(stimulus_ids=(test[3], test[0]))


@pytest.fixture(scope="module")
def cache(given, tmp_path_factory):
    """A cache that has the decoder, but no arm."""
    folder = tmp_path_factory.mktemp("cache")
    call(Study(folder), "decode", given)
    return folder


@pytest.fixture
def ready(cache, tmp_path):
    """A Study over a copy of that cache."""
    shutil.copytree(cache, tmp_path / "cache")
    return Study(tmp_path / "cache")


def call(made, name, recipe, log=None, **args):
    return made.call(name, {"recipe": recipe.to_dict(), **args}, (log or Log()).events)


def images_of(result):
    """(arm, stimulus, repeat) -> pixels of the files."""
    rows = result["provenance"]["images"]
    return {(r["arm"], r["stim"], r["rep"]): io.imread(f"{result['folder']}/{r['file']}") for r in rows}


def guided_more(recipe):
    return recipe.with_stage("guidance", GUIDANCE.but(guidance_scale=3.0))


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


def test_decode_gives_what_the_plain_calls_give(given, ready, tmp_path):
    found = call(ready, "decode", given)
    train, test = nsd.Subject(given.source.nsd_dir, "subj01").betas().split()
    networks = model_folder.load(given.models)
    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    targets = embeddings.extract(networks, subject.stimuli, train.stimulus_ids, tmp_path / "t.h5")
    decoder = RidgeDecoder().fit(train, targets)
    assert found["cached"]
    assert found["accuracy"] == {name: fit.best_r2 for name, fit in decoder.accuracy.items()}
    assert found["alphas"] == {name: fit.alpha for name, fit in decoder.accuracy.items()}
    assert found["curves"]["g02"]["r2"] == list(decoder.accuracy["g02"].r2)
    assert (found["n_train"], found["n_test"], found["n_voxels"]) == (len(train), len(test), train.n_voxels)
    decoded, plain = embeddings.Embeddings.load(found["embeddings"]), decoder.predict(test)
    for target in TARGETS:
        np.testing.assert_array_equal(decoded[target], plain[target])
    assert decoded.attrs["feature_normalisation"] == "imagenet"


def test_plot_is_a_picture_of_the_asked_size(given, ready):
    from io import BytesIO

    from PIL import Image

    picture = Image.open(BytesIO(call(ready, "decode", given)["plot"].tobytes()))
    assert picture.format == "PNG"
    assert picture.width == 840


@pytest.mark.parametrize("restarted", [False, True])
def test_nothing_is_computed_twice(given, ready, monkeypatch, restarted):
    call(ready, "decode", given)

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(study_decoder.RidgeDecoder, "fit", never)
    monkeypatch.setattr(study_decoder.RidgeDecoder, "predict", never)
    monkeypatch.setattr(embeddings, "encode", never)
    monkeypatch.setattr(nsd.Subject, "betas", never)
    if not restarted:
        monkeypatch.setattr(model_folder, "load", never)
    assert call(Study(ready.cache) if restarted else ready, "decode", given)["cached"]


def test_another_region_fits_again_without_encoding_again(given, ready, monkeypatch):
    first = call(ready, "decode", given)
    monkeypatch.setattr(embeddings, "encode", lambda *args: pytest.fail("encoded again"))
    second = call(ready, "decode", given.with_stage("betas", given.settings.betas.but(roi="V1 + V2")))
    assert not second["cached"]
    assert second["n_voxels"] < first["n_voxels"]
    assert second["decoder"] != first["decoder"]


def test_a_mask_that_was_drawn_again_is_read_again(given, ready, tmp_path):
    import nibabel

    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    path = tmp_path / "drawn.nii.gz"
    recipe = given.with_stage("betas", given.settings.betas.but(roi=str(path)))
    counts = []
    for family in ("floc-faces", "nsdgeneral"):
        labels = subject.rois(family).labels > 0
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), subject.affine), path)
        counts.append((int(labels.sum()), call(ready, "decode", recipe)["n_voxels"]))
    assert [one for one, _ in counts] == [other for _, other in counts]


def test_betas_on_disk_are_the_betas(given, tmp_path):
    from dataclasses import fields

    params = given.settings.betas.but(average_repeats=False, roi="V1")
    betas = nsd.Subject(given.source.nsd_dir, "subj01", params).betas()
    nsd.save_betas(betas, tmp_path / "betas.h5")
    found = nsd.load_betas(tmp_path / "betas.h5")
    for f in fields(betas):
        one, other = getattr(betas, f.name), getattr(found, f.name)
        np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))
        assert type(one) is type(other), f.name


def test_a_session_that_was_written_again_is_read_again(given, ready, tmp_path):
    import os

    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    (session,) = subject.layout.sessions().values()
    about = session.stat()
    call(ready, "decode", given)
    try:
        os.utime(session, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
        log = Log()
        # the same values: the decoder is known again
        assert call(Study(ready.cache), "decode", given, log)["cached"]
        assert (1, 1, "reading betas") in [(t["done"], t["total"], t["what"]) for t in log.of("told")]
    finally:
        os.utime(session, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_what_a_killed_process_left_is_swept_up(tmp_path):
    import os

    folder = tmp_path / "decoders"
    folder.mkdir()
    old, new = folder / ".tmp-old.h5", folder / ".tmp-new.h5"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    Study(tmp_path)
    assert not old.exists()
    assert new.exists()


def test_events_of_a_run_and_its_folder(given, ready):
    log = Log()
    result = call(ready, "reconstruct", given, log, preview_every=1)
    (begin,) = log.of("begin")
    assert begin["stimulus_ids"] == list(given.stimulus_ids)
    assert begin["n_steps"] == N_STEPS
    assert begin["seen"].dtype == begin["start"].dtype == np.uint8
    steps = [(s["arm"], s["done"], s["total"]) for s in log.of("step")]
    assert steps == [(arm, k, N_STEPS) for arm in given.arms for k in range(1, N_STEPS + 1)]
    assert [s["loss"] is not None for s in log.of("step")] == [True, True, False, False] + [False] * 4
    previews = log.of("preview")
    assert [(p["arm"], p["done"]) for p in previews] == [(a, k) for a in given.arms for k in range(1, N_STEPS)]
    shown = {arm["arm"]: arm for arm in log.of("arm")}
    assert list(shown) == list(given.arms)
    pixels = images_of(result)
    for (arm, stimulus, repeat), image in pixels.items():
        row = given.stimulus_ids.index(stimulus)
        np.testing.assert_array_equal(shown[arm]["images"][row, repeat - 1], image)
    assert all(p["images"].shape == shown["guided"]["images"].shape for p in previews)
    told = [t["what"] for t in log.of("told")]
    assert f"guided, step 3 of {N_STEPS}" in told


def test_a_run_gives_the_images_of_the_plain_call(given, ready):
    result = call(ready, "reconstruct", given)
    decoded = embeddings.Embeddings.load(call(ready, "decode", given)["embeddings"]).subset(given.stimulus_ids)
    networks = model_folder.load(given.models)
    for arm, guidance in (("guided", GUIDANCE), ("unguided", GUIDANCE.but(guidance_scale=0.0))):
        plain = reconstruct(decoded, networks, DIFFUSION, guidance)
        for row, stimulus in enumerate(given.stimulus_ids):
            for repeat in (1, 2):
                found = images_of(result)[arm, stimulus, repeat]
                np.testing.assert_array_equal(found, plain.images[row, repeat - 1])
        losses = result["provenance"]["arms"][arm]["losses"]
        assert losses == {str(s): plain.losses[k].tolist() for k, s in enumerate(given.stimulus_ids)}


@pytest.mark.slow
def test_previews_change_no_bit_and_cost_nothing_where_none_is_asked(given, ready, monkeypatch):
    without = call(ready, "reconstruct", given)
    shutil.rmtree(ready.cache / "arms")
    shown = call(ready, "reconstruct", given, preview_every=1)
    assert [r["sha256"] for r in shown["provenance"]["images"]] == [
        r["sha256"] for r in without["provenance"]["images"]
    ]
    shutil.rmtree(ready.cache / "arms")
    monkeypatch.setattr(pipeline, "clean_latents", lambda *args: pytest.fail("estimated without being asked"))
    call(ready, "reconstruct", given)
    call(ready, "reconstruct", guided_more(given), preview_every=2, preview=False)


def test_a_stimulus_shows_its_start_until_its_batch_is_reached(given, ready):
    log = Log()
    call(ready, "reconstruct", given.with_stage("diffusion", DIFFUSION.but(batch_size=2)), log, preview_every=2)
    (begin,) = log.of("begin")
    assert begin["n_steps"] == 2 * N_STEPS
    assert [s["done"] for s in log.of("step")][: 2 * N_STEPS] == list(range(1, 2 * N_STEPS + 1))
    shown = log.of("preview")[0]["images"]
    assert not np.array_equal(shown[0, 0], begin["start"][0])
    np.testing.assert_array_equal(shown[1, 0], begin["start"][1])


def test_preview_is_the_clean_estimate(given, ready):
    """x0 = (z_t - sqrt(1-abar) eps) / sqrt(abar) leads by DDIM's own equation to the step's latents."""
    from napari_neuraldiffuser.core.diffusion import loop

    networks = model_folder.load(given.models)
    decoded = embeddings.Embeddings.load(call(ready, "decode", given)["embeddings"]).subset(given.stimulus_ids)
    plan, found = loop.schedule(networks.scheduler, DIFFUSION), []

    def after(event):
        found.append((event.latents.clone(), event.clean().clone()))

    reconstruct(decoded, networks, DIFFUSION, GUIDANCE, after)
    before = pipeline.start_latents(decoded, networks, DIFFUSION, plan)
    for step, (latents, clean) in zip(plan.steps, found, strict=True):
        noise = (before - step.abar**0.5 * clean) / (1 - step.abar) ** 0.5
        expected = step.abar_prev**0.5 * clean + (1 - step.abar_prev) ** 0.5 * noise
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
        before = latents


def test_another_kappa_takes_the_unguided_arm_from_the_cache(given, ready):
    first, log = call(ready, "reconstruct", given), Log()
    second = call(ready, "reconstruct", guided_more(given), log)
    assert {arm["arm"]: arm["cached"] for arm in log.of("arm")} == {"guided": False, "unguided": True}
    assert {s["arm"] for s in log.of("step")} == {"guided"}
    for key, image in images_of(second).items():
        assert np.array_equal(image, images_of(first)[key]) == (key[0] == "unguided")


@pytest.mark.parametrize("stage", ["diffusion", "betas"])
def test_other_inputs_compute_the_unguided_arm_again(given, ready, stage):
    call(ready, "reconstruct", given)
    changed = {"diffusion": DIFFUSION.but(seed=1), "betas": given.settings.betas.but(roi="V1")}[stage]
    log = Log()
    call(ready, "reconstruct", given.with_stage(stage, changed), log)
    assert not any(arm["cached"] for arm in log.of("arm"))


def test_an_arm_is_known_again_by_another_study(given, ready):
    call(ready, "reconstruct", given)
    log = Log()
    call(Study(ready.cache), "reconstruct", given, log)
    assert all(arm["cached"] for arm in log.of("arm"))


@pytest.mark.parametrize("batch_size", [4, 2])
@pytest.mark.parametrize("stopped", [("guided", 1), ("guided", 3), ("unguided", 2)])
def test_cancelling_keeps_what_is_there(given, ready, stopped, batch_size):
    recipe = given.with_stage("diffusion", DIFFUSION.but(batch_size=batch_size))
    arm, k = stopped
    log = Log(lambda name, p: name == "step" and (p["arm"], p["done"]) == stopped)
    latents = []
    after = study_arms.ArmRun._after_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_arms.ArmRun, "_after_step", lambda s, e: (latents.append(e.latents.clone()), after(s, e)))
        with pytest.raises(Cancelled) as stop:
            call(ready, "reconstruct", recipe, log)
    result = stop.value.result
    # no step after the one in which the user asked
    assert (log.of("step")[-1]["arm"], log.of("step")[-1]["done"]) == stopped
    provenance = json.loads(open(f"{result['folder']}/provenance.json").read())
    assert provenance["complete"] is result["complete"] is False
    assert provenance["steps_done"][arm] == k
    pixels = images_of(result)
    reached = given.stimulus_ids if batch_size == 4 else given.stimulus_ids[:1]
    assert {key[1:] for key in pixels if key[0] == arm} == {(s, r) for s in reached for r in (1, 2)}
    present = pipeline.to_images(model_folder.load(given.models), latents[-1])
    np.testing.assert_array_equal(np.stack([pixels[arm, s, r] for s in reached for r in (1, 2)]), present)
    if arm == "unguided":
        assert provenance["steps_done"]["guided"] == N_STEPS * 4 // batch_size
        assert provenance["arms"]["guided"]["complete"]
    # the unfinished arm is no result for a later run
    finished = call(ready, "reconstruct", recipe)
    assert finished["complete"]
    assert any(not np.array_equal(images_of(finished)[key], image) for key, image in pixels.items() if key[0] == arm)


def test_cancelled_in_the_second_batch_keeps_the_first(given, ready):
    recipe = given.with_stage("diffusion", DIFFUSION.but(batch_size=2))
    with pytest.raises(Cancelled) as stop:
        call(ready, "reconstruct", recipe, Log(lambda name, p: name == "step" and p["done"] == N_STEPS + 1))
    kept, whole = images_of(stop.value.result), images_of(call(ready, "reconstruct", recipe))
    first, second = given.stimulus_ids
    np.testing.assert_array_equal(kept["guided", first, 1], whole["guided", first, 1])
    assert not np.array_equal(kept["guided", second, 1], whole["guided", second, 1])
    losses = stop.value.result["provenance"]["arms"]["guided"]["losses"]
    assert losses[str(second)][0][0] is not None
    assert losses[str(second)][0][1] is None


@pytest.mark.parametrize("arms", [("guided", "unguided"), ("unguided",)])
def test_cancelled_with_the_last_arm_is_complete(given, ready, arms):
    log = Log(lambda name, p: name == "arm" and p["arm"] == "unguided")
    result = call(ready, "reconstruct", given.but(arms=arms), log)
    assert result["complete"]
    assert {row["arm"] for row in result["scores"]} == set(arms)
    assert [p["arm"] for p in log.of("arm")] == list(arms)


def test_cancelled_between_the_arms_keeps_the_first(given, ready):
    log = Log(lambda name, p: name == "arm")
    with pytest.raises(Cancelled) as stop:
        call(ready, "reconstruct", given, log)
    provenance = stop.value.result["provenance"]
    assert not provenance["complete"]
    assert {name: arm["complete"] for name, arm in provenance["arms"].items()} == {"guided": True}


def test_cancelled_while_scoring_shows_the_finished_arm(given, ready):
    log = Log(lambda name, p: p.get("what") == "unguided, scoring")
    with pytest.raises(Cancelled) as stop:
        call(ready, "reconstruct", given, log)
    assert [(p["arm"], bool(p["scores"])) for p in log.of("arm")] == [("guided", True), ("unguided", False)]
    assert stop.value.result["provenance"]["arms"]["unguided"]["complete"]
    assert not stop.value.result["complete"], "its scores are missing"


def test_only_old_partial_runs_make_room(tmp_path, monkeypatch):
    for k, complete in enumerate((False, True, False, False)):
        path = tmp_path / f"run{k}" / "provenance.json"
        write_json(path, {"complete": complete})
        os.utime(path, (k, k))
    (tmp_path / "being written").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/provenance.json").write_text("{")
    keep_newest_folders(partial_runs(tmp_path, "provenance.json"), "provenance.json", 2)
    assert {p.name for p in tmp_path.iterdir()} == {"run1", "run2", "run3", "being written", "damaged"}


def test_cancelled_before_the_first_step_leaves_no_folder(given, ready):
    with pytest.raises(Cancelled) as stop:
        call(ready, "reconstruct", given, Log(lambda name, p: name == "begin"))
    assert stop.value.result == {}
    assert not (ready.cache / "runs").exists()


def test_cancelled_while_encoding_continues_there(given, tmp_path, monkeypatch):
    made, encode, seen = Study(tmp_path), embeddings.encode, []
    monkeypatch.setattr(embeddings, "encode", lambda *args: seen.append(len(args[1])) or encode(*args))
    with pytest.raises(Cancelled):
        call(made, "decode", given, Log(lambda name, p: p.get("what") == "target embeddings" and p["done"] >= 64))
    interrupted = sum(seen)
    seen.clear()
    found = call(made, "decode", given)
    assert interrupted == 64
    assert sum(seen) == found["n_train"] - interrupted


@pytest.mark.slow
def test_damaged_files_of_the_cache_are_made_again(given, ready):
    wanted = call(ready, "reconstruct", given)["provenance"]["images"]
    damaged = [
        p for name in ("betas", "targets", "decoders", "decoded", "arms") for p in (ready.cache / name).iterdir()
    ]
    assert {p.suffix for p in damaged} == {".npz", ".h5", ".json"}
    for path in damaged:
        if path.suffix != ".json":
            path.write_bytes(path.read_bytes()[:1000])
    assert call(Study(ready.cache), "reconstruct", given)["provenance"]["images"] == wanted


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


def test_provenance_says_what_it_was(given, ready):
    result = call(ready, "reconstruct", given)
    provenance = json.loads(open(f"{result['folder']}/provenance.json").read())
    assert provenance == json.loads(json.dumps(result["provenance"]))
    assert type(given).from_dict(provenance["recipe"]) == given
    assert provenance["models"]["digest"] == model_folder.folder_digest(given.models)
    assert provenance["torch_threads"] == torch.get_num_threads()
    assert provenance["versions"]["torch"] == torch.__version__
    for row in provenance["images"]:
        assert row["sha256"] == pixels_digest(images_of(result)[row["arm"], row["stim"], row["rep"]])
    text = json.dumps({k: v for k, v in provenance.items() if k != "recipe"})
    assert str(ready.cache) not in text
    made_with = {"features": given.settings.features.to_dict(), "decoding": given.settings.decoding.to_dict()}
    assert provenance["decoder"].items() >= ({"loaded": False, "path": None} | made_with).items()


def test_scores_of_one_stimulus_leave_out_what_compares_stimuli(given, ready):
    one = call(ready, "reconstruct", given.but(stimulus_ids=given.stimulus_ids[:1]))["scores"]
    two = call(ready, "reconstruct", given)["scores"]
    assert len(one) == 4
    assert len(two) == 8
    assert not any(name.startswith("twoway") for name in one[0])
    assert {"twoway_edges", "twoway_demo", "pixcorr", "ssim", "edges"} <= set(two[0])
    assert {"stim", "rep", "arm", "pixcorr", "ssim", "edges"} <= set(one[0])


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

    monkeypatch.setattr(study_arms, "reconstruct_batch", full)
    with pytest.raises(UserError, match=r"cpu must have memory for 4 images .* smaller batch_size") as caught:
        call(ready, "reconstruct", given)
    assert caught.value.__context__ is None
    assert ready.warm._models == ("", None)
    monkeypatch.undo()
    assert call(ready, "reconstruct", given)["complete"]


def test_a_bug_is_no_users_error(given, ready, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(study_arms, "reconstruct_batch", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        call(ready, "reconstruct", given)


def test_what_another_machine_computed_is_computed_again(given, ready, monkeypatch):
    assert call(ready, "decode", given)["cached"]
    monkeypatch.setattr(study_decoder, "machine", lambda models: ["another GPU"])
    monkeypatch.setattr(study_decoder.RidgeDecoder, "fit", lambda *a, **k: pytest.fail("fitted"))
    with pytest.raises(pytest.fail.Exception, match="fitted"):
        call(ready, "decode", given)


def test_arms_of_another_machine_are_computed_again(given, ready, monkeypatch):
    one_arm, log = given.but(arms=("unguided",)), Log()
    call(ready, "reconstruct", one_arm)
    monkeypatch.setattr(study_arms, "machine", lambda models: ["another GPU"])
    call(ready, "reconstruct", one_arm, log)
    assert [arm["cached"] for arm in log.of("arm")] == [False]


def test_a_guide_that_was_written_again_is_opened_again(given, tmp_path):
    recipe = given.but(models=str(tmp_path / "models"), guide=str(tmp_path / "guide"))
    shutil.copytree(given.models, recipe.models)
    shutil.move(f"{recipe.models}/image_encoder", recipe.guide)
    warm = Study(tmp_path / "cache").warm
    first = warm.models(recipe, Log().events)
    assert warm.models(recipe, Log().events) is first
    (tmp_path / "guide/note.txt").write_text("other")
    assert warm.models(recipe, Log().events).digest != first.digest


def test_a_file_that_another_engine_deleted_disturbs_nothing(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(study.Path, "is_file", lambda path: True)  # it was there when it was asked
    keep_newest(tmp_path, 1)
    assert len({p.name for p in tmp_path.iterdir()} - {"gone"}) == 1


def test_regions_and_anatomy_of_own_scans_do_not_decide_the_stimuli():
    own = Source(betas="b", mask="m", trials="t", images="i", captions="c")
    same = [replace(own, rois=("r",)), replace(own, anatomy="a"), replace(own, mask="n")]
    assert {tuple(stimulus_source(source)) for source in same} == {tuple(stimulus_source(own))}
    assert stimulus_source(replace(own, captions="d")) != stimulus_source(own)


@pytest.mark.slow
def test_a_saved_decoder_is_used_once_loaded(given, ready, tmp_path, monkeypatch):
    path = tmp_path / "mine.h5"
    strong = given.with_stage("decoding", given.settings.decoding.but(alphas=(1e7,)))
    call(ready, "save_decoder", strong, path=str(path))
    wanted = call(ready, "decode", strong)["accuracy"]
    other = Study(tmp_path / "other")
    other.call("load_decoder", {"recipe": given.to_dict(), "path": str(path)}, Log().events)
    monkeypatch.setattr(study_decoder.RidgeDecoder, "fit", lambda *a, **k: pytest.fail("fitted"))
    found = call(other, "decode", given)
    assert found["loaded"]
    assert found["decoder"] == str(path)
    assert found["accuracy"] == wanted != call(ready, "decode", given)["accuracy"]
    assert call(other, "reconstruct", given)["provenance"]["decoder"] == {
        **dict.fromkeys(("features", "decoding")),
        "digest": json.loads(study.Path(found["embeddings"]).with_suffix(".json").read_text())["decoder_digest"],
        "loaded": True,
        "path": str(path),
    }
    features = given.settings.features.but(feature_normalisation="clip")
    maps = {call(other, "contribution", r)["folder"] for r in (given, given.with_stage("features", features))}
    assert len(maps) == 2, "the decoder is the same, the targets of the maps are not"
    with pytest.raises(UserError, match="Press Fit anew"):
        call(other, "report", given, out_dir=str(tmp_path / "out"), n_stimuli=2)
    other.call("load_decoder", {"recipe": given.to_dict(), "path": ""}, Log().events)
    with pytest.raises(pytest.fail.Exception, match="fitted"):
        call(other, "decode", given)


@pytest.mark.slow
def test_a_decoder_of_other_voxels_or_models_is_refused(given, ready, tmp_path):
    path = tmp_path / "mine.h5"
    call(ready, "save_decoder", given, path=str(path))
    with pytest.raises(DecodingError, match="voxels"):
        call(ready, "load_decoder", given.with_stage("betas", given.settings.betas.but(roi="V1")), path=str(path))
    other = shutil.copytree(given.models, tmp_path / "models")
    (other / "unet" / "note.txt").write_text("other")
    with pytest.raises(DecodingError, match="other models"):
        call(ready, "load_decoder", given.but(models=str(other)), path=str(path))
    with pytest.raises(DecodingError, match="must be a decoder file"):
        call(ready, "load_decoder", given, path=str(tmp_path / "nothing.h5"))


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
    calls, compute = [], study_maps._compute
    monkeypatch.setattr(study_maps, "_compute", lambda *args: calls.append(1) or compute(*args))
    assert call(ready, "contribution", given) == first
    assert not calls
    other = given.with_stage("contribution", given.settings.contribution.but(bootstrap=20))
    assert call(ready, "contribution", other)["folder"] != first["folder"]
    assert calls == [1]
    monkeypatch.setattr(study_maps, "KEPT_MAPS", 2)
    call(ready, "contribution", given)
    call(ready, "contribution", given.with_stage("contribution", given.settings.contribution.but(bootstrap=21)))
    kept = {str(path) for path in (ready.cache / "contributions").iterdir()}
    assert len(kept) == 2
    assert any(first["folder"].startswith(path) for path in kept), "the longest unused goes, not the first made"


@pytest.mark.slow
def test_report_runs_the_job(given, ready, tmp_path):
    log = Log()
    found = call(ready, "report", given, log, out_dir=str(tmp_path / "out"), n_stimuli=2)
    assert found["failed"] == []
    assert set(found["summary"]["arms"]) == {"guided", "unguided"}
    assert open(found["page"]).read().startswith("<!")
    assert {"reading betas", "page"} <= {t["what"] for t in log.of("told")}


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


@pytest.mark.slow
def test_clear_gives_the_bytes_back_and_leaves_other_files(given, ready):
    call(ready, "reconstruct", given)
    other = ready.cache / "engine.log"
    other.write_text("log")
    before = ready.call("cache_size", {}, Log().events)["bytes"]
    on_disk = sum(p.stat().st_size for p in ready.cache.rglob("*") if p.is_file()) - 3
    assert before == on_disk > 0
    assert ready.call("clear", {"keep_runs": True}, Log().events)["bytes_freed"] < before
    assert list((ready.cache / "runs").rglob("*.png"))
    ready.call("clear", {}, Log().events)
    assert ready.call("cache_size", {}, Log().events) == {"bytes": 0}
    assert other.read_text() == "log"
    assert not call(ready, "decode", given)["cached"]


@pytest.mark.slow
def test_old_arms_and_decoders_make_room(given, ready, monkeypatch):
    monkeypatch.setattr(study_arms, "KEPT_ARMS", 3)
    monkeypatch.setattr(study_decoder, "KEPT_DECODERS", 2)
    for seed in range(3):
        call(ready, "reconstruct", given.with_stage("diffusion", DIFFUSION.but(seed=seed)))
    assert len(list((ready.cache / "arms").glob("*.npz"))) == 3
    for roi in ("V1", "V2", "V3"):
        last = call(ready, "decode", given.with_stage("betas", given.settings.betas.but(roi=roi)))
    kept = list((ready.cache / "decoders").glob("*.h5"))
    assert len(kept) == 2
    assert study.Path(last["decoder"]) in kept
