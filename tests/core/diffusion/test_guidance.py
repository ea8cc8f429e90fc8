import dataclasses

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.classifier_free import ClassifierFree
from napari_neuraldiffuser.core.diffusion.critic import FeatureCritic, Pull, layer_loss_weights
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.guidance import Guided, clean_estimate
from napari_neuraldiffuser.core.diffusion.loop import Prediction, Step, noise_for, sample, schedule
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps, noise_rule, rms
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams, ParamError, preset
from tests.support.numerics import published_reference as reference
from tests.support.small_models import small_models

PAPER = preset("neuraldiffuser")[1]


@pytest.fixture(scope="module")
def models64():
    return small_models(torch.float64)


def decoded_for(models, n=1, seed=0):
    rng = np.random.default_rng(seed)
    tokens = (models.guide_size() // 8) ** 2 + 1
    return Embeddings(
        rng.standard_normal((n, 4, 16, 16)),
        rng.standard_normal((n, 8, 16)),
        {layer: 0.3 * rng.standard_normal((n, tokens, 16)) for layer in LAYERS},
        np.arange(n) + 13,
        {"feature_normalisation": "imagenet"},
    )


def reference_run(models, decoded, diffusion, guidance, record=None):
    """The published equations over a whole run, one image; `record` collects (before, after) of each step."""
    timesteps, abar = reference.published_alphas()
    n_run = int(diffusion.strength * 50)
    timesteps = timesteps[50 - n_run :]
    start = float(abar[int(n_run / 50 * 1000)])
    # all stimuli have the noise of one seed
    noise = torch.from_numpy(noise_for(42, 0, 0, (4, 16, 16)))[None].double()
    z = start**0.5 * torch.from_numpy(decoded.z) + (1 - start) ** 0.5 * noise
    for i, t in enumerate(timesteps):
        options = {
            "abar": float(abar[t]),
            "abar_prev": float(abar[t - 20] if t >= 20 else abar[0]),
            "cfg": 7.5,
            "sag": 0.75,
            "kappa": guidance.guidance_scale,
            "guided": i < int(n_run * guidance.guidance_strength),
        }
        args = (
            torch.from_numpy(decoded.c),
            models.encode_text([""]),
            [torch.from_numpy(g) for g in decoded.g.values()],
        )
        after = reference.published_step(models, z, t, *args, options)
        if record is not None:
            record.append((z, after))
        z = after
    return z


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_published_preset_equals_the_published_equations_per_step_and_over_the_run(models64):
    diffusion, guidance = preset("published", DiffusionParams(repeats=1, batch_size=1))
    guidance = guidance.but(guidance_scale=3000.0)  # strong for these small networks, yet finite
    decoded = decoded_for(models64)
    expected: list = []
    last = reference_run(models64, decoded, diffusion, guidance, expected)
    denoiser = build.build_denoiser(decoded, models64, diffusion, guidance)
    plan = schedule(models64.scheduler, diffusion)
    assert len(plan.steps) == len(expected) == 37

    from napari_neuraldiffuser.core.diffusion.loop import sample

    for step, (before, after) in zip(plan.steps, expected, strict=True):
        assert relative(sample(before, [step], denoiser), after) < 1e-6, step
    start = pipeline.start_latents(decoded, models64, diffusion, plan)
    assert relative(start, expected[0][0]) < 1e-12
    assert relative(sample(start, plan.steps, denoiser), last) < 1e-6


def test_guidance_moves_the_published_run(models64):
    """Without this, the comparison above could hold with a gradient of zero."""
    diffusion, guidance = preset("published", DiffusionParams(repeats=1))
    guidance = guidance.but(guidance_scale=3000.0)
    decoded = decoded_for(models64)
    plan = schedule(models64.scheduler, diffusion)
    start = pipeline.start_latents(decoded, models64, diffusion, plan)
    without = guidance.but(guidance_scale=0.0)
    pulled, free = (
        sample(start, plan.steps, build.build_denoiser(decoded, models64, diffusion, g)) for g in (guidance, without)
    )
    assert relative(pulled, free) > 1e-2


def test_gradient_equals_a_finite_difference(models64):
    decoded = decoded_for(models64)
    diffusion, guidance = DiffusionParams(repeats=1), PAPER.but(guidance_scale=1.0)
    guided = build.build_denoiser(decoded, models64, diffusion, guidance)
    plan = schedule(models64.scheduler, diffusion)
    z, step = pipeline.start_latents(decoded, models64, diffusion, plan), plan.steps[0]
    term = guided(z, step).noise - guided.denoiser(z, step).noise
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(moved):
        leaf = moved.requires_grad_()
        noise = guided.denoiser(leaf, step).noise_cond
        return float(guided.critic(clean_estimate(leaf, noise, step, guidance)).loss)

    h = 1e-5
    numeric = (loss(z + h * direction) - loss(z - h * direction)) / (2 * h)
    analytic = float((term * direction).sum()) / (1 - step.abar) ** 0.5
    assert analytic == pytest.approx(numeric, rel=1e-5)


def test_one_image_does_not_change_the_gradient_of_another(models64):
    diffusion, guidance = DiffusionParams(repeats=2), PAPER.but(guidance_scale=1000.0)
    three = decoded_for(models64, 3)
    plan = schedule(models64.scheduler, diffusion)
    out = []
    for decoded in (three, three.subset([14])):
        z = pipeline.start_latents(decoded, models64, diffusion, plan)
        out.append(build.build_denoiser(decoded, models64, diffusion, guidance)(z, plan.steps[0]).noise)
    assert relative(out[0][2:4], out[1]) < 1e-10


@pytest.mark.parametrize("guided", [True, False])
def test_every_step_costs_two_unet_samples_per_image_and_no_decode(models64, guided):
    decoded, seen = decoded_for(models64), []
    diffusion = DiffusionParams(repeats=3)
    guidance = PAPER.but(guidance_scale=10.0 if guided else 0.0)
    hook = models64.unet.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    decodes: list = []
    hook2 = models64.vae.decoder.register_forward_pre_hook(lambda m, args: decodes.append(len(args[0])))
    pipeline.reconstruct(decoded, models64, diffusion, guidance)
    hook.remove(), hook2.remove()
    assert sum(seen) == 37 * 2 * 3
    assert decodes == [3] * (8 if guided else 1)  # 7 guided steps and the final picture


def test_backward_runs_on_the_conditional_half_only(models64):
    decoded, grads = decoded_for(models64), []
    hook = models64.unet.conv_out.register_full_backward_hook(lambda m, gi, go: grads.append(len(go[0])))
    diffusion = DiffusionParams(repeats=3)
    denoiser = build.build_denoiser(decoded, models64, diffusion, PAPER)
    plan = schedule(models64.scheduler, diffusion)
    denoiser(pipeline.start_latents(decoded, models64, diffusion, plan), plan.steps[0])
    hook.remove()
    assert grads == [3]


def test_rms_strength_is_scale_free():
    generator = torch.Generator().manual_seed(0)
    a, b, gradient = (torch.randn(2, 4, 5, 3, generator=generator) for _ in range(3))
    step = Step(0, 37, 721, 0.1, 0.2)
    params = GuidanceParams(guidance_scale=10.0, normalise="rms")
    base = Prediction(a, ((0.0, a),), a, b)
    small, large = (noise_rule(base, Pull(None, gradient * s), step, params).noise for s in (1e-6, 1e3))
    assert torch.allclose(small, large, rtol=1e-4)
    assert torch.allclose(rms(small), 10 * rms(b - a), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_broken_or_vanished_gradient_stays_with_its_image(value):
    a, b, gradient = torch.randn(3, 3, 4, 5, 3)
    step, params = Step(0, 37, 721, 0.1, 0.2), GuidanceParams(guidance_scale=10.0, normalise="rms")
    base = Prediction(a, ((1.0, a),), a, b)
    expected = noise_rule(base, Pull(None, gradient.clone()), step, params).noise
    gradient[1] = value
    got = noise_rule(base, Pull(None, gradient), step, params).noise
    assert torch.equal(got[[0, 2]], expected[[0, 2]])
    assert torch.equal(got[1], a[1]) if value == 0 else not got[1].isfinite().any()


def test_a_gradient_scale_is_undone_exactly():
    a, gradient = torch.randn(2, 3, 4, 5, 3)
    base, step = Prediction(a, ((1.0, a),), a, a), Step(0, 37, 721, 0.1, 0.2)
    for normalise in ("none", "rms"):
        params = GuidanceParams(guidance_scale=10.0, normalise=normalise)
        plain, scaled = (noise_rule(base, Pull(None, gradient * s, s), step, params).noise for s in (1.0, 2.0**15))
        assert torch.equal(plain, scaled)


def test_float16_gradients_do_not_underflow(monkeypatch):
    """Near the targets of a large layer every feature gradient is below float16's smallest number."""
    models, n = small_models(torch.float16), 38_400
    leaf = torch.randn(1, 4, 16, 16).half().requires_grad_()
    critic = FeatureCritic(models, [], LAYERS, (160 / n,) * 6)  # layers of 160 elements, weighted as if of n
    with torch.no_grad():
        targets = [f + 2.0**-9 * torch.randn(f.shape).half() for f in critic.features(leaf)]
    critic, pulls = dataclasses.replace(critic, targets=targets), []
    for scale in (1.0, ops.gradient_scale(torch.float16, n)):
        monkeypatch.setattr(ops, "gradient_scale", lambda dtype, numel, scale=scale: scale)
        pulls.append(critic(leaf))
    plain, scaled = pulls
    assert scaled.scale == 2**15
    assert plain.gradient.dtype == scaled.gradient.dtype == torch.float16
    assert torch.equal(plain.loss, scaled.loss)
    assert not plain.gradient.any()
    assert float((scaled.gradient != 0).float().mean()) > 0.99
    assert scaled.gradient.isfinite().all()


def test_layer_weights_follow_the_formula():
    rng = np.random.default_rng(0)
    targets = [torch.from_numpy(rng.standard_normal((3, 5, 4)) * s) for s in (1, 10)]
    weights = layer_loss_weights(targets, (1.5, 1.2)).numpy()
    for b in range(3):
        inverse = np.array([1 / np.linalg.norm(g[b]) for g in targets])
        assert np.allclose(weights[b], np.array([1.5, 1.2]) * inverse / inverse.sum())


@pytest.mark.parametrize(("strength", "n", "expected"), [(0.2, 37, 7), (0.0, 37, 0), (1.0, 37, 37), (0.5, 1, 0)])
def test_number_of_guided_steps(strength, n, expected):
    assert n_guided_steps(n, GuidanceParams(guidance_strength=strength)) == expected


def test_exact_estimate_recovers_the_clean_latents():
    x0, eps = (torch.randn(1, 4, 8, 8, dtype=torch.float64) for _ in range(2))
    step = Step(0, 37, 721, 0.13, 0.2)
    z = 0.13**0.5 * x0 + 0.87**0.5 * eps
    assert torch.allclose(clean_estimate(z, eps, step, GuidanceParams(x0_blend=False)), x0)


def test_guided_passes_the_unguided_steps_through():
    class Fixed:
        def __call__(self, latents, step):
            return Prediction(latents, ((1.0, latents),), latents, latents)

    z = torch.ones(1, 4, 2, 2)
    guided = Guided(Fixed(), None, PAPER, Draws(0, []))
    assert guided(z, Step(7, 37, 500, 0.5, 0.6)).loss is None


@pytest.mark.parametrize("kappa", [-1.0, float("nan"), float("inf")])
def test_bad_kappa_is_refused(kappa):
    with pytest.raises(ParamError, match="guidance_scale must be"):
        GuidanceParams(guidance_scale=kappa)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ParamError, match="neuraldiffuser.*published"):
        preset("nothing")


def test_unconditional_half_is_the_same_apart_and_together(models64):
    c, u = torch.randn(2, 8, 16, dtype=torch.float64), models64.encode_text([""])
    denoiser, step = ClassifierFree(models64.unet, c, u, 7.5), Step(0, 37, 721, 0.1, 0.2)
    z = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    together, apart = denoiser(z, step), denoiser(z.clone().requires_grad_(), step)
    assert relative(apart.noise, together.noise) < 1e-10
