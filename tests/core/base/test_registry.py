"""What is registered is a choice of the params at once, and is what the core then uses."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import attribution, decoding, evaluation
from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.registry import Registry
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.diffusion.critic import Pull
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.guidance import Guided
from napari_neuraldiffuser.core.diffusion.loop import Prediction, Step
from napari_neuraldiffuser.core.evaluation.metric import definition, label, main_figures
from napari_neuraldiffuser.core.params import (
    ContributionParams,
    DecodingParams,
    EvaluationParams,
    GuidanceParams,
    ParamError,
)
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets
from tests.support.toys import BRIGHTNESS, TOYS, MeanDecoder, registered

CLASSES = {"decoder": DecodingParams, "rule": GuidanceParams, "method": ContributionParams, "metrics": EvaluationParams}


def test_an_entry_is_imported_when_it_is_asked_for():
    made = Registry("thing", {"sqrt": "math:sqrt", "nowhere": "no_such_module:x"})
    assert list(made) == ["sqrt", "nowhere"] and "nowhere" in made and len(made) == 2
    assert made["sqrt"](4) == 2
    with pytest.raises(ModuleNotFoundError):
        made["nowhere"]


def test_names_are_taken_once_and_unknown_ones_are_told():
    made = Registry("thing", {"one": 1})
    made.register("two", 2)
    with pytest.raises(UserError, match="thing must have a name of its own, got 'two' again"):
        made.register("two", 3)
    with pytest.raises(UserError, match=r"thing must be one of \['one', 'two'\], got 'three'"):
        made["three"]
    made.remove("two")
    assert "two" not in made


@pytest.mark.parametrize("name", ["DECODERS", "GUIDANCE_RULES", "ATTRIBUTION_METHODS", "METRICS"])
def test_every_entry_is_there(name):
    assert all(entry is not None for entry in getattr(registry, name).values())


@pytest.mark.parametrize("field", TOYS)
def test_params_take_what_is_registered(field):
    registry, name, _ = TOYS[field]
    value = (name,) if field == "metrics" else name
    for _ in range(2):
        with pytest.raises(ParamError, match="must be one of"):
            CLASSES[field](**{field: value})
        with registered(*TOYS[field]):
            made = CLASSES[field](**{field: value})
            assert CLASSES[field].from_dict(made.to_dict()) == made


@pytest.fixture
def problem():
    x, y, x_test, _ = linear_data(20, 12)
    return make_betas(x), make_targets(y), make_betas(x_test, 500 + np.arange(len(x_test)))


def test_a_decoder_of_another_kind_is_fitted_saved_joined_and_opened(problem, tmp_path):
    train, targets, test = problem
    with registered(*TOYS["decoder"]):
        decoder = decoding.new(DecodingParams(decoder="mean")).fit(train, targets)
        decoder.save(tmp_path / "mean.h5")
        opened = decoding.load(tmp_path / "mean.h5")
        assert isinstance(opened, MeanDecoder) and opened.names == ("z", "c", "g02")
        np.testing.assert_allclose(opened.predict(test).z[0], targets.z.mean(0), rtol=1e-5)
        assert list(decoding.read_accuracy(tmp_path / "mean.h5")) == ["z", "c", "g02"]
        for name in opened.names:
            decoding.new(DecodingParams(decoder="mean")).fit(train, targets, names=[name]).save(tmp_path / f"{name}.h5")
        decoding.join_decoders([tmp_path / f"{name}.h5" for name in ("g02", "c", "z")], tmp_path / "joined.h5")
        joined = decoding.load(tmp_path / "joined.h5")
        assert joined.names == opened.names
        np.testing.assert_array_equal(joined.predict(test)["g02"], opened.predict(test)["g02"])
    with pytest.raises(DecodingError, match="of a kind among .*, got 'mean'. Fit one anew."):
        decoding.load(tmp_path / "mean.h5")


def test_a_file_that_does_not_say_its_kind_is_ridge(problem, tmp_path):
    import h5py

    train, targets, test = problem
    decoder = decoding.new().fit(train, targets)
    decoder.save(tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        assert file["decoder"].attrs["kind"] == "ridge"
        del file["decoder"].attrs["kind"]
    opened = decoding.load(tmp_path / "d.h5")
    assert isinstance(opened, RidgeDecoder)
    np.testing.assert_array_equal(opened.predict(test).z, decoder.predict(test).z)
    opened.close()


def test_an_attribution_method_is_used(problem):
    train, targets, test = problem
    rois = make_rois("prf-visualrois", np.arange(12) % 3, {1: "V1", 2: "V2"}, test)
    with registered(*TOYS["method"]), registered(*TOYS["decoder"]):
        decoder = decoding.new(DecodingParams(decoder="mean")).fit(train, targets)
        maps = attribution.map(decoder, test, rois, params=ContributionParams(method="even"))
        np.testing.assert_allclose(maps.table.share, 1 / 3)
        with pytest.raises(attribution.ContributionError, match="must be linear for the additive split"):
            attribution.map(decoder, test, rois, params=ContributionParams(method="additive"))
        with pytest.raises(attribution.ContributionError, match="must have gradients"):
            attribution.map(decoder, test, rois)


def test_a_metric_is_scored_named_and_defined():
    pictures = np.random.default_rng(0).integers(0, 255, (3, 2, 32, 32, 3), dtype=np.uint8)
    with registered(*TOYS["metrics"]):
        params = EvaluationParams(size=32, metrics=("brightness", "pixcorr"))
        scores = evaluation.evaluate(pictures, pictures[:, 0], params=params)
        table, summary = (
            evaluation.scores_table({"guided": scores}, [1, 2, 3]),
            evaluation.summarise({"guided": scores}),
        )
        assert list(table.columns) == ["stim", "rep", "arm", "pixcorr", "brightness"]
        np.testing.assert_allclose(scores.values["brightness"], pictures.mean((2, 3, 4)) / 255)
        assert set(summary["arms"]["guided"]) == {"pixcorr", "brightness"}
        assert summary["protocol"]["metrics"]["brightness"] == definition("brightness", 32)
        assert label("brightness") == BRIGHTNESS.label
        assert main_figures(["brightness", "ssim", "pixcorr"]) == ["pixcorr", "ssim", "brightness"]
    assert label("brightness") == definition("brightness", 32) == "brightness"


def test_columns_of_encoders_have_the_names_of_their_metric():
    assert label("twoway_demo") == "Two-way identification (demo)"
    assert label("twoway_clip") == "Two-way identification (clip)"
    assert "features of the image encoder clip:" in definition("twoway_clip", 425)
    assert main_figures(["twoway_demo", "twoway_edges", "edges"]) == ["edges", "twoway_demo"]


def test_metrics_of_features_need_an_encoder():
    pictures = np.zeros((3, 1, 32, 32, 3), np.uint8)
    with pytest.raises(evaluation.MetricError, match="one that needs no image encoder"):
        evaluation.evaluate(pictures, pictures[:, 0], params=EvaluationParams(metrics=("repeat_features",)))


def test_a_guidance_rule_is_used():
    def denoiser(latents, step):
        return Prediction(latents, ((1.0, noise),), noise, latents * 0 + noise)

    def critic(clean):
        return Pull(torch.ones(2), torch.ones_like(clean))

    noise, step = torch.randn(2, 4, 3, 3), Step(0, 1, 500, 0.5, 0.6)
    with registered(*TOYS["rule"]):
        params = GuidanceParams(guidance_strength=1.0, normalise="none")
        still = Guided(denoiser, critic, params.but(rule="no-pull"), Draws(0, []))(noise, step)
        pulled = Guided(denoiser, critic, params, Draws(0, []))(noise, step)
    assert torch.equal(still.noise, noise) and torch.equal(still.loss, torch.ones(2))
    assert not torch.equal(pulled.noise, noise)
