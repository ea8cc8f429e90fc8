"""A search on held-out training stimuli, from scans to the record that front ends use."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.job import tune as tuning
from napari_neuraldiffuser.core.networks import chosen
from napari_neuraldiffuser.core.params import BetasParams, EvaluationParams, Settings, TuneParams
from tests.support.nsd.small_set import write_small_set
from tests.support.small_models import small_models

QUICK = TuneParams(
    n_stimuli=4, repeats=1, factors=(0.2, 1.0), shares=(0.67,), cfg_scales=(3.0,), steps=(4,), finalists=1
)


@pytest.fixture(scope="module")
def models():
    return small_models(torch.float32)


@pytest.fixture
def job(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    source = Source.from_dict(write_small_set(scans).source())
    settings = Settings(betas=BetasParams(roi="mask"), evaluation=EvaluationParams(size=32))
    return tuning.TuneJob(
        [source], tmp_path / "out", settings=settings, params=QUICK, record=tmp_path / "record.json", command="typed"
    )


@pytest.mark.slow
def test_a_search_is_continued_recorded_and_shown(job, models, tmp_path):
    images = []

    def stop_later(done, total, what):
        if what.startswith("tuning"):
            images.append(done)
            if len(images) > 60:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(job, stop_later, models)
    kept = list((tmp_path / "out/work/scores").glob("*.json"))
    assert kept, "what was finished before the stop"
    before = {path: path.stat().st_mtime_ns for path in kept}
    told = []
    first = tuning.tune(job, lambda *args: told.append(args), models)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "and is not computed again"
    totals = {total for _, total, what in told if what.startswith("tuning")}
    assert len(totals) == 1 and all(done <= total for done, total, _ in told)

    again = tuning.tune(job, models=models)
    assert json.loads(again.table.read_text())["computed_images"] == 0
    assert [row["gain"] for row in again.rows] == [row["gain"] for row in first.rows]
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["chosen"]["command"] == "typed" and "4 held-out training stimuli of 07" in record["chosen"]["data"]
    found = chosen.read(first.record)
    assert found.guidance.to_dict() | first.chosen["guidance"] == found.guidance.to_dict()
    page = first.page.read_text()
    assert page.count("<tr") == 1 + len(first.rows) and "data:image/png" in page
    assert (tmp_path / "out/tune-demo.png").stat().st_size > 1000


def test_the_decoder_has_not_seen_what_is_scored(job):
    ids = np.arange(100)
    held_out, fit_on = tuning.split_training(ids, TuneParams(n_stimuli=10))
    assert len(held_out) == 10 and sorted([*held_out, *fit_on]) == ids.tolist()
    assert len(tuning.split_training(ids, TuneParams(n_stimuli=60))[0]) == 20, "at most a fifth"
    with pytest.raises(UserError, match="at least 20 to tune"):
        tuning.split_training(ids[:19], TuneParams())


def test_test_stimuli_are_not_read(job, models, monkeypatch):
    subject = tuning.nsd.open_source(job.sources[0], job.settings.betas)
    betas = subject.betas()
    marked = replace(betas, shared=np.arange(len(betas)) < 2)
    monkeypatch.setattr(type(subject), "betas", lambda self: marked)
    train = tuning._training(subject)
    assert set(train.stimulus_ids) == set(betas.stimulus_ids[2:])


def test_a_preset_without_guidance_is_no_start(job, models):
    with pytest.raises(UserError, match="presets to start from must guide"):
        tuning.tune(replace(job, starts=("none",)), models=models)
