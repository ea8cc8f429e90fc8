"""A decoder that is trained runs through the plain job, the engine and the workflow, whose parts are joined."""

from dataclasses import replace

import pandas as pd
import pytest

from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.job.run import run_subject
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.outputs import validate
from tests.support.study_cases import call
from tests.support.workflows.small import CUT, contents, run_job


@pytest.fixture(scope="module")
def recipe(inputs):
    """The small subject with the contrastive decoder and few passes."""
    decoding_params = inputs.settings.decoding.but(decoder="contrastive", contrastive_epochs=3, contrastive_rank=20)
    return inputs.but(settings=replace(inputs.settings, decoding=decoding_params))


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory):
    """The plain run of two stimuli."""
    job = Job.of(recipe, tmp_path_factory.mktemp("plain") / "out", 2)
    run_subject(job)
    return job


@pytest.mark.slow
def test_the_plain_run_has_maps_scores_and_page(plain):
    places = plain.places
    assert places.embeddings.name == "sub-01_desc-contrastive_embeddings.h5" and places.embeddings.is_file()
    table = pd.read_csv(places.contribution_table, sep="\t")
    assert set(table.kind) == {"product-measure"} and table.share.notna().any()
    assert places.scores.is_file() and places.page.is_file()
    assert validate.check(plain.out_dir) == []


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["embeddings", "one"])
def test_the_workflow_writes_the_files_of_the_plain_run(plain, tmp_path, parts):
    job = replace(plain, out_dir=tmp_path / "out")
    run_job(job, tmp_path / "work", cut=CUT.but(decoder_parts=parts))
    assert contents(job.out_dir) == contents(plain.out_dir)


def test_the_engine_tells_its_passes(recipe, tmp_path):
    found = call(Study(tmp_path / "cache"), "decode", recipe)
    curve = found["curves"]["c"]
    assert curve["axis"] == "epoch" and curve["tried"][0] == 0 and found["chosen"]["c"] in curve["tried"]
