"""One stimulus at several guidance strengths."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from tests.support.study_cases import GUIDANCE, N_STEPS, Log, call, images_of


def with_kappa(recipe, kappa):
    return recipe.with_stage("guidance", GUIDANCE.but(guidance_scale=kappa))


def test_every_strength_gives_the_images_of_a_run_at_it(given, ready):
    log, one = Log(), given.but(stimulus_ids=given.stimulus_ids[:1])
    result = call(ready, "strip", given, log, strengths=[3.0, 1.0])
    assert [about["kappa"] for about in result["strengths"]] == [0.0, 1.0, 3.0]
    (begin,) = log.of("begin")
    assert begin["kappas"] == [0.0, 1.0, 3.0]
    shown = {payload["kappa"]: payload["images"] for payload in log.of("strength")}
    for kappa in (1.0, 3.0):
        log = Log()
        run = images_of(call(ready, "reconstruct", with_kappa(one, kappa), log))
        assert all(arm["cached"] for arm in log.of("arm")), "the strip's arms are those of a run"
        for (arm, _, rep), image in run.items():
            np.testing.assert_array_equal(image, shown[kappa if arm == "guided" else 0.0][rep - 1])
    assert not np.array_equal(shown[1.0], shown[3.0])
    assert {row["arm"] for row in result["strengths"][0]["scores"]} == {"unguided"}
    assert len(result["strengths"][1]["scores"]) == 2
    assert "pixcorr" in result["strengths"][1]["scores"][0]


def test_progress_counts_the_steps_of_all_strengths(given, ready):
    log = Log()
    call(ready, "strip", given, log, strengths=[1.0])
    steps = [told for told in log.of("told") if "step" in told["what"]]
    assert {told["total"] for told in steps} == {2 * N_STEPS}
    assert steps[-1]["done"] == 2 * N_STEPS
    assert steps[-1]["what"] == f"κ 1, step {N_STEPS} of {N_STEPS}"


def test_a_cancelled_strip_keeps_what_is_complete(given, ready):
    log = Log(stop=lambda name, payload: name == "told" and payload["what"] == "κ 1, step 1 of 4")
    with pytest.raises(Cancelled) as stopped:
        call(ready, "strip", given, log, strengths=[1.0, 2.0])
    assert [about["kappa"] for about in stopped.value.result["strengths"]] == [0.0]
    assert len(log.of("strength")) == 1


@pytest.mark.parametrize(
    "strengths, changes, words",
    [
        ([], {}, "strengths must be"),
        ([0.0], {}, "strengths must be"),
        ([-1.0, 2.0], {}, "strengths must be"),
        ([float("inf")], {}, "strengths must be"),
        (list(range(1, 20)), {}, "strengths must be"),
        ([1.0], {"guidance_strength": 0.1}, "Raise η"),
    ],
)
def test_strengths_that_cannot_be_are_refused(given, ready, strengths, changes, words):
    with pytest.raises(UserError, match=words):
        call(ready, "strip", given.with_stage("guidance", GUIDANCE.but(**changes)), strengths=strengths)


def test_a_strength_that_ruins_the_image_is_said(given, ready, monkeypatch):
    from napari_neuraldiffuser.core.evaluation import ruin

    monkeypatch.setattr(ruin, "CLIPPED", -1.0)  # so that every picture has more than that
    result = call(ready, "strip", given, strengths=[2.0])
    assert "brightness scale" in result["strengths"][1]["ruined"]
    run = call(ready, "reconstruct", given)
    assert set(run["ruined"]) == {str(s) for s in given.stimulus_ids}
    assert run["provenance"]["ruined"] == run["ruined"]
    alone = call(ready, "reconstruct", given.but(arms=("guided",)))
    assert alone["ruined"] == {}, "without the other arm there is nothing to compare with"
