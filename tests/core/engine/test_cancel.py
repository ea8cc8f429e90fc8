"""A run that is cancelled: what it keeps, and what the next one makes of it."""

import json

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.diffusion import pipeline
from napari_neuraldiffuser.core.engine import arms as study_arms
from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks import models as model_folder
from tests.support.study_cases import DIFFUSION, N_STEPS, Log, call, images_of


def _shown(event):
    """Latents that a picture is made of: without the noise that is still to be taken away."""
    return (event.latents if event.done == N_STEPS else event.clean()).clone()


@pytest.mark.parametrize("batch_size", [4, 2])
@pytest.mark.parametrize("stopped", [("guided", 1), ("guided", 3), ("unguided", 2)])
def test_cancelling_keeps_what_is_there(given, ready, stopped, batch_size):
    recipe = given.with_stage("diffusion", DIFFUSION.but(batch_size=batch_size))
    arm, k = stopped
    log = Log(lambda name, p: name == "step" and (p["arm"], p["done"]) == stopped)
    shown = []
    after = study_arms.ArmRun._after_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_arms.ArmRun, "_after_step", lambda s, e: (shown.append(_shown(e)), after(s, e)))
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
    present = pipeline.to_images(model_folder.load(given.models), shown[-1])
    np.testing.assert_array_equal(np.stack([pixels[arm, s, r] for s in reached for r in (1, 2)]), present)
    if arm == "unguided":
        assert provenance["steps_done"]["guided"] == N_STEPS * 4 // batch_size
        assert provenance["arms"]["guided"]["complete"]
    if batch_size == 4:  # the last preview is what stays on the screen
        again = Log(lambda name, p: name == "preview" and (p["arm"], p["done"]) == stopped)
        with pytest.raises(Cancelled):
            call(ready, "reconstruct", recipe, again, preview_every=1)
        np.testing.assert_array_equal(again.of("arm")[-1]["images"], again.of("preview")[-1]["images"])
    # the unfinished arm is no result for a later run
    finished = call(ready, "reconstruct", recipe)
    assert finished["complete"]
    assert any(not np.array_equal(images_of(finished)[key], image) for key, image in pixels.items() if key[0] == arm)


def test_cancelled_in_the_second_batch_keeps_the_first(given, ready):
    recipe = given.with_stage("diffusion", DIFFUSION.but(batch_size=2))
    with pytest.raises(Cancelled) as stop:
        call(ready, "reconstruct", recipe, Log(lambda name, p: name == "step" and p["done"] == N_STEPS + 1))
    log = Log()
    kept, whole = images_of(stop.value.result), images_of(call(ready, "reconstruct", recipe, log))
    first, second = given.stimulus_ids
    continued = [step["stimulus_ids"] for step in log.of("step") if step["arm"] == "guided"]
    assert continued == [[second]] * N_STEPS, "the first batch is not computed again"
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
