"""Stable Diffusion 1.x and 2.x, and few-step models, from folders as they are shared; small and random."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LatentConsistencyModelPipeline

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.feature_cache import from_features, with_features
from napari_neuraldiffuser.core.diffusion.loop import sample, schedule
from napari_neuraldiffuser.core.diffusion.predictor import Predictor, noise_predictor, scale_embedding
from napari_neuraldiffuser.core.networks import models as m
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.opening import check_weights
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams
from tests.support.small_models import FAMILIES, save_family, small_models

FREE = GuidanceParams(guidance_scale=0.0)
PULL = GuidanceParams(guidance_scale=3.0, guidance_strength=0.5)
TWO = DiffusionParams(n_steps=4, strength=0.75, repeats=2)
AS_MEANT = {"turbo": {"solver": "euler", "cfg_scale": 1.0}, "lcm": {"solver": "lcm"}}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return {name: m.load(save_family(tmp_path_factory.mktemp(name), name)) for name in FAMILIES}


def decoded_for(models, n=1):
    rng = np.random.default_rng(0)
    width = models.unet.config.cross_attention_dim
    z, c = rng.standard_normal((n, 4, 16, 16)), rng.standard_normal((n, 8, width))
    g = {k: rng.standard_normal((n, 10, 16)).astype(np.float32) for k in LAYERS}
    return Embeddings(z.astype(np.float32), c.astype(np.float32), g, np.arange(n))


def run(models, params, guidance=FREE):
    """Latents of the whole loop."""
    decoded = decoded_for(models)
    plan = schedule(models.scheduler, params)
    start = pipeline.start_latents(decoded, models, params, plan)
    fresh = pipeline.fresh_noise(decoded, models, params)
    solver = pipeline.solver_for(pipeline.Problem(models.scheduler, params, plan, fresh))
    return start, sample(start, plan.steps, build.build_denoiser(decoded, models, params, guidance), solver=solver)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_read_and_guided(family, name):
    """As its folder says, with what it is meant to be run with; the pull reaches the picture."""
    params = TWO.but(**AS_MEANT.get(name, {}))
    decoded = decoded_for(family[name])
    free, pulled = (reconstruct(decoded, family[name], params, guidance) for guidance in (FREE, PULL))
    assert free.finite.all() and pulled.finite.all()
    assert not np.array_equal(free.images, pulled.images)
    assert np.isfinite(pulled.losses).all() and (pulled.losses > 0).all()


def test_a_model_that_predicts_v_is_stepped_as_the_library_steps_it(family):
    """diffusers' own DDIM, told that outputs are v; classifier-free guidance is on v there and on noise here."""
    models = family["sd2"].to("cpu", torch.float64)
    params = DiffusionParams(n_steps=6, strength=1.0, repeats=1, cfg_scale=3.0)
    start, got = run(models, params)
    theirs = DDIMScheduler.from_config(models.scheduler.config)
    assert theirs.config.prediction_type == "v_prediction"
    theirs.set_timesteps(6)
    text = torch.as_tensor(decoded_for(models).c).double()
    empty = models.encode_text([""])
    z = start
    with torch.no_grad():
        for t in theirs.timesteps:
            uncond, cond = (models.unet(z, t, encoder_hidden_states=c).sample for c in (empty, text))
            z = theirs.step(uncond + 3.0 * (cond - uncond), t, z).prev_sample
    models.to("cpu", torch.float32)
    torch.testing.assert_close(got, z, rtol=1e-5, atol=1e-5)


def test_v_is_not_taken_for_noise(family):
    """The same weights, told to be of either kind, give other pictures."""
    models = family["sd2"]
    v = run(models, TWO)[1]
    told = m.Models(**{part: getattr(models, part) for part in m.PARTS})
    told.scheduler = DDIMScheduler.from_config(models.scheduler.config, prediction_type="epsilon")
    assert (run(told, TWO)[1] - v).abs().max() > 0.1
    assert noise_predictor(told, 7.5) is told.unet


@pytest.mark.parametrize("timestep", [1, 500, 999, 250.5])
def test_noise_and_clean_estimate_of_v(timestep):
    """eps and x0 of a z that is made of them come back; between timesteps the level is linear in sigma."""
    scheduler = small_models().scheduler
    clean, eps = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    predictor = Predictor(None, scheduler, "v_prediction")
    abar = predictor.abar(timestep)
    if timestep == int(timestep):
        assert abar == pytest.approx(float(scheduler.alphas_cumprod[int(timestep)]), rel=1e-6)
    z = abar**0.5 * clean + (1 - abar) ** 0.5 * eps

    def unet(latents, timestep):
        from types import SimpleNamespace

        return SimpleNamespace(sample=abar**0.5 * eps - (1 - abar) ** 0.5 * clean)

    found = Predictor(unet, scheduler, "v_prediction")(z, timestep).sample
    torch.testing.assert_close(found, eps, rtol=1e-6, atol=1e-6)


def test_the_scale_of_a_consistency_model_is_the_library_s_embedding():
    for width in (16, 17):
        theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, torch.tensor([6.5]), width)
        torch.testing.assert_close(scale_embedding(7.5, width), theirs)


def calls(models, params, guidance=FREE):
    """Images in every forward of the UNet."""
    seen = []
    hook = models.unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    run(models, params, guidance)
    hook.remove()
    return seen


def test_a_scale_of_one_does_not_pay_for_the_unconditional_half(family):
    """Where nothing needs it: self-attention guidance and a relative strength do."""
    turbo = family["turbo"]
    params = DiffusionParams(n_steps=4, strength=1.0, repeats=1, solver="euler", cfg_scale=1.0)
    assert calls(turbo, params) == [1] * 4
    assert calls(turbo, params.but(cfg_scale=2.0)) == [2] * 4
    assert calls(turbo, params, PULL) == [1, 1, 1, 1, 1, 1]
    assert calls(turbo, params, PULL.but(normalise="none")) == [1] * 4
    assert calls(turbo, params.but(sag_scale=0.5)) == [2, 1] * 4
    assert calls(family["lcm"], params.but(solver="lcm", cfg_scale=7.5)) == [1] * 4


def test_scale_of_one_gives_what_both_halves_give(family):
    params = DiffusionParams(n_steps=4, strength=1.0, repeats=1, solver="euler", cfg_scale=1.0)
    alone = run(family["turbo"], params)[1]
    both = run(family["turbo"], params.but(cfg_scale=1.0 + 1e-7))[1]
    torch.testing.assert_close(alone, both, rtol=1e-4, atol=1e-4)


def test_turbo_begins_at_the_last_timestep(family):
    """Trailing spacing, which the folder says: one step is from pure noise to the picture."""
    plan = schedule(family["turbo"].scheduler, DiffusionParams(n_steps=1, strength=1.0, solver="euler"))
    assert [(s.timestep, s.abar_prev) for s in plan.steps] == [(999, 1.0)]


def test_a_consistency_model_changes_with_its_scale_and_with_nothing_of_the_batch(family):
    models, params = family["lcm"], TWO.but(solver="lcm")
    one = run(models, params)[1]
    assert not torch.equal(one, run(models, params.but(cfg_scale=2.0))[1])
    two = decoded_for(models, 2)
    whole = reconstruct(two, models, params.but(batch_size=4), FREE).images
    alone = reconstruct(two.subset([1]), models, params, FREE).images
    assert np.abs(whole[1].astype(int) - alone[0].astype(int)).max() <= 1


@pytest.mark.parametrize(("name", "solver"), [("lcm", "ddim"), ("sd1", "lcm")])
def test_a_solver_that_is_not_of_these_models(family, name, solver):
    with pytest.raises(UserError, match=f"solver must be .* got {solver}"):
        reconstruct(decoded_for(family[name]), family[name], TWO.but(solver=solver), FREE)


def test_no_step_at_all_is_named(family):
    with pytest.raises(UserError, match="at least one step, got 0.75 x 1"):
        reconstruct(decoded_for(family["sd1"]), family["sd1"], TWO.but(n_steps=1), FREE)


def test_a_wide_model_must_say_what_it_predicts(tmp_path):
    """Stable Diffusion 2.1 and 2.1-base differ in nothing else."""
    folder = save_family(tmp_path, "sd2")
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "prediction_type"}))
    for part, name in (("unet", "cross_attention_dim"), ("text_encoder", "hidden_size")):
        about = folder / part / "config.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {name: 1024}))
    with pytest.raises(m.ModelError, match="must say prediction_type, epsilon or v_prediction"):
        check_weights(folder)


@pytest.mark.parametrize("name", ["sd1", "sd2", "lcm"])
def test_kept_features_mean_noise_too(family, name):
    """From features of the same latents the last layers give what the whole network gave."""
    models = family[name]
    unet = noise_predictor(models, 7.5)
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    text = torch.as_tensor(decoded_for(models).c)
    whole, features = with_features(unet, z, 501, text)
    torch.testing.assert_close(from_features(unet, z, 501, text, features), whole, rtol=1e-5, atol=1e-5)
