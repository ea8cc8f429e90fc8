"""Scores of a job: the encoder in their names is the one that made the features."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import read_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation import evaluate
from napari_neuraldiffuser.core.evaluation.levels import ceiling_of
from napari_neuraldiffuser.core.job import ceiling
from napari_neuraldiffuser.core.job.images import write_png
from napari_neuraldiffuser.core.job.scores import score, score_arms
from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.params import DiffusionParams, EvaluationParams, Settings


def silent(*told):
    pass


@pytest.mark.parametrize(
    ("folder", "guide", "column", "shown"),
    [
        ("demo", "", "twoway_demo", "image encoder demo:"),
        ("/data/models/sd14", "", "twoway_sd14", "image encoder sd14:"),
        ("/data/models/SD-1.4/", "/nets/CLIP_B32", "twoway_clip_b32", "image encoder CLIP_B32:"),
        ("CompVis/sd", "openai/clip", "twoway_openai_clip", "image encoder openai/clip:"),
        ("./demo2", "", "twoway_demo2", "image encoder demo2:"),
    ],
)
def test_the_encoder_has_the_name_of_the_guide_or_else_of_the_models(folder, guide, column, shown):
    seen = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    opened = SimpleNamespace(
        name=folder, guide=guide, image_features=lambda images: images.reshape(len(images), -1).astype(float)
    )
    params = EvaluationParams(size=32, metrics=("twoway_features", "repeat_features"))
    scores = score(seen[:, None], seen, opened, params, silent)
    assert set(scores.values) == {column, "repeat_features"}
    assert shown in scores.protocol["metrics"][column]
    assert shown[:-1] in scores.protocol["metrics"]["repeat_features"]


# the ceiling


@pytest.fixture
def finished(inputs, tmp_path, monkeypatch):
    """Images of both arms of three stimuli, and a function that scores them and gives the summary."""
    subject = nsd.Subject(inputs.source.nsd_dir, "subj01")
    networks = models.load(inputs.models)
    ids = np.unique(subject.trials[subject.trials.shared].stimulus_id)[:3]
    places = Derivatives(tmp_path / "out", "subj01")
    settings = Settings(diffusion=DiffusionParams(repeats=2), evaluation=EvaluationParams(size=32))
    rng = np.random.default_rng(0)
    for arm in ARMS:
        for stimulus in ids:
            for repeat in (1, 2):
                write_png(places.image(int(stimulus), repeat, arm), rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))
    made = []
    real = ceiling.round_trip

    def counted(*args):
        made.append(1)
        return real(*args)

    monkeypatch.setattr(ceiling, "round_trip", counted)

    def scored(**changes):
        changed = replace(settings, evaluation=settings.evaluation.but(**changes))
        score_arms(places, subject.stimuli, networks, ids, changed, silent)
        return read_json(places.summary)

    return SimpleNamespace(scored=scored, made=made, seen=subject.stimuli[ids], networks=networks, places=places)


def test_the_ceiling_is_the_score_of_the_autoencoder_alone(finished):
    summary = finished.scored()
    z = finished.networks.encode_images(finished.seen)
    decoded = finished.networks.decode_latents(z).detach().numpy().transpose(0, 2, 3, 1)
    images = (np.clip((decoded + 1) / 2, 0, 1) * 255).round().astype(np.uint8)
    expected = evaluate(images, finished.seen, params=EvaluationParams(size=32, metrics=("pixcorr", "ssim")))
    for metric in ("pixcorr", "ssim"):
        assert ceiling_of(summary, metric) == pytest.approx(np.mean(expected.values[metric]), abs=1e-3)
    assert ceiling_of(summary, "repeat_pixcorr") is None
    assert ceiling_of({}, "pixcorr") is None


def test_the_ceiling_is_computed_once_for_the_same(finished):
    first = finished.scored()
    assert finished.scored() == first
    assert len(finished.made) == 1
    assert finished.scored(size=48)["protocol"]["ceiling"] != first["protocol"]["ceiling"]
    assert len(finished.made) == 2
    finished.places.summary.write_text('{"protocol": {"ceiling": 3}}')
    finished.scored(size=48)
    assert len(finished.made) == 3, "a damaged summary is not believed"
