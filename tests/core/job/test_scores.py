"""Scores of a job: the encoder in their names is the one that made the features."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import read_json, write_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation import Scores, evaluate
from napari_neuraldiffuser.core.evaluation.controls import not_beaten, summarise_controls
from napari_neuraldiffuser.core.evaluation.levels import ceiling_of
from napari_neuraldiffuser.core.job import ceiling
from napari_neuraldiffuser.core.job.controls import MEAN_OF, Baselines, mean_image
from napari_neuraldiffuser.core.job.images import write_png
from napari_neuraldiffuser.core.job.scores import score, score_arms
from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
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
        name=folder,
        guide=guide,
        device="cpu",
        image_features=lambda images: images.reshape(len(images), -1).astype(float),
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

    def scored(baselines=None, **changes):
        changed = replace(settings, evaluation=settings.evaluation.but(**changes))
        score_arms(places, subject.stimuli, networks, ids, changed, silent, baselines)
        return read_json(places.summary)

    return SimpleNamespace(
        scored=scored, made=made, seen=subject.stimuli[ids], networks=networks, places=places, subject=subject, ids=ids
    )


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


def test_latents_out_of_range_are_warned_of_in_the_summary(finished):
    spreads = {"guided": 9.0, "unguided": 0.9}
    told = {arm: {str(s): [[0.0, spread, 3.0]] * 2 for s in finished.ids} for arm, spread in spreads.items()}
    write_json(finished.places.recon_sidecar, {"Arms": {arm: {"FinalLatents": told[arm]} for arm in ARMS}})
    (told,) = finished.scored(metrics=("pixcorr",))["warnings"]
    assert "standard deviations of 9.00, outside the range without guidance, 0.90" in told
    finished.places.recon_sidecar.unlink()
    assert finished.scored(metrics=("pixcorr",))["warnings"] == []


# the controls


def test_the_decoded_start_and_the_mean_training_image_are_scored_beside_the_arms(finished, tmp_path):
    rng = np.random.default_rng(1)
    z = finished.networks.encode_images(finished.seen).detach().numpy()
    decoded = Embeddings(z, rng.normal(size=(3, 2, 2)), {}, finished.ids)
    decoded.save(tmp_path / "decoded.h5")
    trials = finished.subject.trials
    train = np.unique(trials[~trials.shared].stimulus_id)
    summary = finished.scored(Baselines(tmp_path / "decoded.h5", train))
    start = finished.networks.decode_latents(torch.from_numpy(z)).detach().numpy().transpose(0, 2, 3, 1)
    pictures = {
        "start": (np.clip((start + 1) / 2, 0, 1) * 255).round().astype(np.uint8),
        "mean": np.repeat(finished.subject.stimuli[train].mean(axis=0).round()[None], 3, axis=0).astype(np.uint8),
    }
    table = pd.read_csv(finished.places.scores, sep="\t")
    guided = table[table.arm == "guided"].groupby("stim", sort=False).pixcorr.mean().loc[finished.ids].to_numpy()
    for name, images in pictures.items():
        expected = evaluate(images, finished.seen, params=EvaluationParams(size=32, metrics=("pixcorr",)))
        own = expected.values["pixcorr"][:, 0]
        assert summary["controls"][name]["scores"]["pixcorr"]["mean"] == pytest.approx(own.mean(), abs=1e-3)
        difference = guided - own
        assert summary["controls"][name]["paired"]["pixcorr"] == pytest.approx(
            {
                "mean": difference.mean(),
                "se": difference.std(ddof=1) / 3**0.5,
                "n": 3,
                "worse": (difference < 0).mean(),
            },
            abs=1e-3,
        )
        assert not any(metric.startswith("repeat_") for metric in summary["controls"][name]["scores"])
        rows = table[table.arm == name]
        assert list(rows.rep) == [1, 1, 1]
        assert rows.pixcorr.mean() == pytest.approx(own.mean(), abs=1e-3)
    assert list(summary["arms"]) == list(ARMS), "the arms are those of the diffusion"
    assert finished.scored()["controls"] == {}, "without baselines there are none"


def test_a_control_that_is_clearly_better_is_named():
    flat, steep = np.full((8, 1), 0.2), np.linspace(0.5, 0.6, 8)[:, None]
    guided = Scores({"pixcorr": flat, "edges": steep}, {})
    start = Scores({"pixcorr": steep, "edges": flat}, {})
    (sentence,) = not_beaten({"controls": summarise_controls({"start": start}, guided)})
    assert "decoded start" in sentence
    assert "PixCorr -0.350 ± 0.012 (n = 8)" in sentence
    assert "Edges" not in sentence
    assert not_beaten({"controls": summarise_controls({"start": guided}, guided)}) == []
    assert not_beaten({}) == []


def test_the_mean_is_of_some_of_many_training_images():
    class Numbered:
        def __init__(self):
            self.read = []

        def __getitem__(self, ids):
            self.read += list(ids)
            return np.stack([np.full((2, 2, 3), i % 200, np.uint8) for i in ids])

    stimuli = Numbered()
    picture = mean_image(stimuli, np.arange(5000)[::-1], silent)
    assert len(stimuli.read) == len(set(stimuli.read)) == MEAN_OF
    assert (min(stimuli.read), max(stimuli.read)) == (0, 4999)
    assert picture.shape == (2, 2, 3)
    assert abs(int(picture[0, 0, 0]) - 99) <= 2
