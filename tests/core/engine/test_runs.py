"""The engine's runs: events, previews, images, scores and what they were made with."""

import json
import shutil

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.diffusion import pipeline
from napari_neuraldiffuser.core.engine import arms as study_arms
from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.engine.runs import pixels_digest
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.networks.kernels import backend
from tests.support.study_cases import DIFFUSION, GUIDANCE, N_STEPS, Log, call, guided_more, images_of


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
    assert {"twoway_edges", "twoway_models", "pixcorr", "ssim", "edges"} <= set(two[0])
    assert {"stim", "rep", "arm", "pixcorr", "ssim", "edges"} <= set(one[0])


def test_a_run_tells_the_ceiling_and_the_chance_level_of_its_scores(given, ready, monkeypatch):
    from napari_neuraldiffuser.core.job import ceiling

    log = Log()
    call(ready, "reconstruct", given, log)
    (told,) = log.of("ceiling")
    assert sorted(row["stim"] for row in told["rows"]) == sorted(given.stimulus_ids)
    assert all("pixcorr" in row and "repeat_pixcorr" not in row for row in told["rows"])
    assert all({"pixcorr", "ssim"} <= set(arm["chance"]) for arm in log.of("arm"))
    monkeypatch.setattr(ceiling, "round_trip", lambda *args: pytest.fail("it is in the cache"))
    again = Log()
    call(ready, "reconstruct", guided_more(given), again)
    assert again.of("ceiling") == [told]


def test_a_run_tells_the_scores_of_pictures_that_take_no_diffusion(given, ready, monkeypatch):
    from napari_neuraldiffuser.core.engine import runs

    log, again = Log(), Log()
    call(ready, "reconstruct", given, log)
    (told,) = log.of("controls")
    found = {(row["arm"], row["stim"]) for row in told["rows"]}
    assert found == {(arm, stimulus) for arm in ("start", "mean") for stimulus in given.stimulus_ids}
    assert all(-1 <= row["pixcorr"] <= 1 and "repeat_pixcorr" not in row for row in told["rows"])
    monkeypatch.setattr(runs, "mean_image", lambda *args: pytest.fail("it is in the cache"))
    call(ready, "reconstruct", guided_more(given), again)
    assert again.of("controls") == [told]


def test_arms_of_other_kernels_are_computed_again(given, ready):
    one_arm, log = given.but(arms=("unguided",)), Log()
    call(ready, "reconstruct", one_arm)
    if backend.extension() is None:
        pytest.skip(f"no compiled kernels: {backend.why_not()}")
    with backend.reference_only():
        call(ready, "reconstruct", one_arm, log)
    assert [arm["cached"] for arm in log.of("arm")] == [False]


def test_arms_of_another_machine_are_computed_again(given, ready, monkeypatch):
    one_arm, log = given.but(arms=("unguided",)), Log()
    call(ready, "reconstruct", one_arm)
    monkeypatch.setattr(study_arms, "machine", lambda models: ["another GPU"])
    call(ready, "reconstruct", one_arm, log)
    assert [arm["cached"] for arm in log.of("arm")] == [False]
