"""Registered entries of every kind run through the plain job, the engine and the workflow as they are."""

from contextlib import ExitStack
from dataclasses import replace

import pandas as pd
import pytest

from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.job.run import run_subject
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.outputs import validate
from tests.support.study_cases import Log, call
from tests.support.toys import TOYS, registered
from tests.support.workflows.small import CUT, contents, run_job


@pytest.fixture(scope="module")
def recipe(inputs):
    """The small subject with a toy decoder, metric, attribution method and guidance rule."""
    with ExitStack() as stack:
        for registry, name, entry in TOYS.values():
            stack.enter_context(registered(registry, name, entry))
        settings = inputs.settings
        toys = {field: name for field, (_, name, _) in TOYS.items()}
        yield inputs.but(
            settings=replace(
                settings,
                decoding=settings.decoding.but(decoder=toys["decoder"]),
                guidance=settings.guidance.but(rule=toys["rule"]),
                contribution=settings.contribution.but(method=toys["method"]),
                evaluation=settings.evaluation.but(metrics=("pixcorr", toys["metrics"])),
            )
        )


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory):
    """The plain run of two stimuli."""
    job = Job.of(recipe, tmp_path_factory.mktemp("plain") / "out", 2)
    run_subject(job)
    return job


@pytest.mark.slow
def test_the_plain_run_uses_them(plain):
    places = plain.places
    assert places.embeddings.name == "sub-01_desc-mean_embeddings.h5"
    assert places.embeddings.is_file()
    assert set(pd.read_csv(places.contribution_table, sep="\t").kind) == {"even-split"}
    scores = pd.read_csv(places.scores, sep="\t")
    assert list(scores) == ["stim", "rep", "arm", "pixcorr", "brightness"]
    by_arm = scores.set_index(["stim", "rep"]).groupby("arm").brightness
    pd.testing.assert_series_equal(by_arm.get_group("guided"), by_arm.get_group("unguided"))  # the rule pulls nothing
    assert "Brightness" in places.page.read_text(encoding="utf-8")
    assert validate.check(plain.out_dir) == []


def test_the_engine_uses_them(recipe, tmp_path):
    study = Study(tmp_path)
    decoded = call(study, "decode", recipe)
    result = call(study, "reconstruct", recipe.but(stimulus_ids=tuple(decoded["test_ids"][:2])))
    assert {"pixcorr", "brightness"} <= set(result["scores"][0])
    assert "ssim" not in result["scores"][0]
    assert study.call("contribution", {"recipe": recipe.to_dict()}, Log().events)["kind"] == "even-split"


@pytest.mark.slow
def test_the_workflow_gives_the_bytes_of_the_plain_run(plain, tmp_path):
    job = replace(plain, out_dir=tmp_path / "out")
    run_job(job, tmp_path / "work", cut=CUT)
    assert contents(job.out_dir) == contents(plain.out_dir)
