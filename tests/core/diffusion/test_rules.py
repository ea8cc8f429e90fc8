"""Every guidance rule against its paper's algorithm, written out plainly, on models of random weights."""

import math

import pytest
import torch

from napari_neuraldiffuser.core.base import registry
from napari_neuraldiffuser.core.base.fields import that_matter
from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.critic import Pull
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.guidance import n_gradients, together
from napari_neuraldiffuser.core.diffusion.loop import Step, ddim_step, noise_for, sample, schedule
from napari_neuraldiffuser.core.diffusion.rules import phase, rms
from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams, preset
from tests.core.diffusion.test_guidance import decoded_for, relative
from tests.support.numerics import published_reference, rule_reference
from tests.support.small_models import small_models

RULES = tuple(registry.GUIDANCE_RULES)
ONE = DiffusionParams(repeats=1, n_steps=8, cfg_scale=3.0)
PAPER = GuidanceParams(
    normalise="none", guidance_strength=0.5, x0_blend=False, leaf_steps=2, copies_noise=0.3, guidance_copies=3
)
STRENGTH = {"freedom": 2.0, "mpgd": 300.0}
"""Where 3000 is not what moves these small networks' latents by a few percent in a step."""


@pytest.fixture(scope="module")
def models():
    return small_models(torch.float64)


def of_rule(rule, **changes):
    strength = STRENGTH.get(rule, 3000.0)
    return PAPER.but(rule=rule, guidance_scale=strength, leaf_scale=200.0, **changes)


def plain_run(models, decoded, params, diffusion):
    """The whole run of one image by `rule_reference`."""
    targets = [torch.from_numpy(g) for g in decoded.g.values()]
    texts = models.encode_text([""]), torch.from_numpy(decoded.c)
    plan, image = schedule(models.scheduler, diffusion), (int(decoded.stimulus_ids[0]), 0)
    z = pipeline.start_latents(decoded, models, diffusion, plan)
    options = that_matter(params)
    for step in plan.steps:
        guided = step.index < int(len(plan.steps) * params.guidance_strength)
        problem = rule_reference.Problem(
            step.abar,
            step.abar_prev,
            lambda z, t=step.timestep: [models.unet(z, t, encoder_hidden_states=text).sample for text in texts],
            lambda x: published_reference.loss_of(models, x, targets),
            lambda *key, i=step.index: torch.from_numpy(noise_for(0, *image, (4, 16, 16), i + 1, *key))[None].double(),
            diffusion.cfg_scale,
            params.guidance_scale if guided else 0.0,
            options.get("leaf_scale", 0.0) if guided else 0.0,
            options.get("leaf_steps", 1),
            options.get("guidance_copies", 1),
            options.get("copies_noise", 0.0),
            options.get("recurrence", 1) if guided else 1,
        )
        z = rule_reference.step("dps" if not guided else params.rule, problem, z)
    return z


def our_run(models, decoded, params, diffusion):
    plan = schedule(models.scheduler, diffusion)
    z = pipeline.start_latents(decoded, models, diffusion, plan)
    return sample(z, plan.steps, build.build_denoiser(decoded, models, diffusion, params))


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_that_of_the_paper_s_algorithm(models, rule):
    decoded, params = decoded_for(models), of_rule(rule)
    ours = our_run(models, decoded, params, ONE)
    # the reference's pixel statistics are rounded to float32
    assert relative(ours, plain_run(models, decoded, params, ONE)) < 1e-6
    free = our_run(models, decoded, params.but(guidance_scale=0.0), ONE)
    assert relative(ours, free) > 5e-3  # or the comparison would hold with no gradient at all


@pytest.mark.parametrize("rule", RULES)
def test_no_strength_is_no_guidance(models, rule):
    decoded, short = decoded_for(models), ONE.but(n_steps=4)
    off = our_run(models, decoded, of_rule(rule).but(guidance_scale=0.0), short)
    assert torch.equal(off, our_run(models, decoded, preset("none")[1], short))


def test_every_rule_has_a_preset_of_its_name():
    """The paper's and the public code's are `noise` with other settings."""
    named = {name: preset(name)[1].rule for name in PRESETS}
    assert {name for name in named if name == named[name]} == set(RULES) - {"noise"}
    assert {named[name] for name in set(named) - set(RULES)} == {"noise"}


def one_step(models, decoded, params, index=1, diffusion=ONE):
    """z_{t-1} of one step in the middle of a schedule, and z_t, step and denoiser that gave it."""
    plan = schedule(models.scheduler, diffusion)
    z = pipeline.start_latents(decoded, models, diffusion, plan)
    denoiser = build.build_denoiser(decoded, models, diffusion, params)
    return ddim_step(denoiser(z, plan.steps[index]), plan.steps[index]), z, plan.steps[index], denoiser


@pytest.mark.parametrize("rule", RULES)
def test_one_scale_moves_every_rule_as_far(models, rule):
    """By guidance_scale times what the text moves z by, eps_c - eps_u, in root mean square and per image."""
    decoded = decoded_for(models, 2)
    base = {"rule": rule, "normalise": "rms", "guidance_strength": 0.5, "recurrence": 1, "leaf_scale": 0.0}
    params = GuidanceParams(**base, guidance_scale=4.0, leaf_steps=1)
    moved, z, step, guided = one_step(models, decoded, params)
    free = guided.denoiser(z, step)
    text = ddim_step(free.but(terms=((1.0, free.noise_cond),)), step)
    none = ddim_step(free.but(terms=((1.0, free.noise_uncond),)), step)
    assert torch.allclose(rms(moved - ddim_step(free, step)), 4 * rms(text - none), rtol=1e-9)


@pytest.mark.parametrize("rule", ["ugd", "tfg"])
def test_leaf_scale_moves_as_far(models, rule):
    """As far as mpgd's guidance_scale, however many steps share it; with one step, in the same direction."""
    base = {"normalise": "rms", "guidance_strength": 0.5, "recurrence": 1, "copies_noise": 0.0}
    for steps in (1, 3):
        params = GuidanceParams(rule=rule, **base, guidance_scale=1e-9, leaf_scale=4.0, leaf_steps=steps)
        as_gradient = GuidanceParams(rule="mpgd", **base, guidance_scale=4.0, leaf_steps=steps)
        got, z, step, guided = one_step(models, decoded_for(models), params)
        expected = one_step(models, decoded_for(models), as_gradient)[0]
        free = ddim_step(guided.denoiser(z, step), step)
        assert torch.allclose(rms(got - free), rms(expected - free), rtol=1e-6)
        assert relative(got - free, expected - free) < (1e-6 if steps == 1 else 0.5)


@pytest.mark.parametrize("rule", RULES)
def test_an_image_does_not_depend_on_its_batch(models, rule):
    """Noise of copies and of steps taken again included."""
    three, diffusion = decoded_for(models, 3), ONE.but(repeats=2, n_steps=4)
    params = GuidanceParams(rule=rule, normalise="rms", copies_noise=0.3, guidance_strength=0.67)
    together_, alone = (our_run(models, decoded, params, diffusion) for decoded in (three, three.subset([14])))
    assert relative(together_[2:4], alone) < 1e-9


def test_noise_has_a_key_of_its_own_for_every_use():
    like, images = torch.zeros(2, 4, 3, 3), [(13, 0), (13, 1)]
    draws = Draws(5, images)
    keys = [(Step(i, 9, 500, 0.2, 0.3), r, k) for i in (0, 1) for r in (0, 1) for k in (0, 1)]
    made = [draws(like, *key) for key in keys]
    start = torch.stack([torch.from_numpy(noise_for(5, *image, (4, 3, 3))) for image in images])
    everything = torch.stack([start, *made]).flatten(2).reshape(-1, 36)
    assert len(torch.unique(everything, dim=0)) == len(everything)
    assert torch.equal(Draws(5, images[1:])(like[:1], *keys[3]), made[3][1:])


def critic_calls(models, params, monkeypatch, diffusion=ONE):
    calls: list[int] = []
    plain = build.FeatureCritic.__call__
    monkeypatch.setattr(build.FeatureCritic, "__call__", lambda self, x: calls.append(len(x)) or plain(self, x))
    backward: list[int] = []
    hook = models.unet.conv_out.register_full_backward_hook(lambda m, gi, go: backward.append(len(go[0])))
    result = pipeline.reconstruct(decoded_for(models), models, diffusion, params)
    hook.remove()
    return len(calls), len(backward), result.losses.shape[-1]


@pytest.mark.parametrize(
    ("changes", "gradients", "judged", "back", "losses"),
    [
        ({"rule": "noise"}, 4, 4, 4, 4),
        ({"rule": "noise", "gradient": "leaf"}, 4, 4, 0, 4),
        ({"rule": "noise", "guide_every": 3}, 2, 2, 2, 2),
        ({"rule": "mpgd", "leaf_steps": 3}, 4, 12, 0, 4),
        ({"rule": "lgd", "guidance_copies": 3}, 4, 12, 4, 4),
        ({"rule": "freedom", "recurrence": 3}, 12, 12, 12, 4),
        ({"rule": "freedom", "recurrence": 3, "guide_every": 2, "gradient": "leaf"}, 6, 6, 0, 2),
        ({"rule": "ugd", "recurrence": 2, "leaf_steps": 2}, 8, 16, 8, 4),
        ({"rule": "tfg", "recurrence": 1, "leaf_steps": 2, "guidance_copies": 2}, 4, 16, 4, 4),
    ],
)
def test_what_a_rule_costs(models, changes, gradients, judged, back, losses, monkeypatch):
    params = GuidanceParams(guidance_strength=0.67, **changes)  # 4 of 6 steps
    assert n_gradients(6, params) == gradients
    assert critic_calls(models, params, monkeypatch) == (judged, back, losses)


def test_no_graph_of_the_unet_where_the_gradient_stops_before_it(models):
    grads: list[bool] = []
    hook = models.unet.register_forward_hook(lambda m, args, out: grads.append(out.sample.requires_grad))
    for params in (GuidanceParams(rule="mpgd"), GuidanceParams(gradient="leaf"), GuidanceParams()):
        one_step(models, decoded_for(models), params)
    hook.remove()
    assert grads == [False, False, False, True]  # joined halves, joined halves, one half without and one with a graph


def test_a_leaf_gradient_is_that_with_the_noise_prediction_held(models):
    """Against autograd through the clean estimate, with the noise a constant; the blend included."""
    params = GuidanceParams(normalise="none", guidance_scale=3000.0, gradient="leaf")
    got, z, step, guided = one_step(models, decoded_for(models), params)
    free = guided.denoiser(z, step)
    leaf = z.clone().requires_grad_()
    sigma = (1 - step.abar) ** 0.5
    x0 = (leaf - sigma * free.noise_cond) / step.abar**0.5
    targets = [torch.from_numpy(g) for g in decoded_for(models).g.values()]
    loss = published_reference.loss_of(models, sigma * x0 + (1 - sigma) * leaf, targets)
    (gradient,) = torch.autograd.grad(loss, leaf)
    expected = ddim_step(free.but(pull=((sigma * 3000.0, gradient),)), step)
    assert relative(got - ddim_step(free, step), expected - ddim_step(free, step)) < 1e-6
    assert relative(got, ddim_step(free, step)) > 1e-3


def test_a_reused_gradient_is_the_last_fresh_one_at_the_step_s_own_size(models):
    params = GuidanceParams(normalise="none", guidance_scale=3000.0, guidance_strength=1.0, guide_every=2)
    decoded, plan = decoded_for(models), schedule(models.scheduler, ONE)
    guided = build.build_denoiser(decoded, models, ONE, params)
    z = pipeline.start_latents(decoded, models, ONE, plan)
    for first, second in zip(plan.steps[::2], plan.steps[1::2], strict=True):
        fresh = guided(z, first)
        z = ddim_step(fresh, first)
        again, free = guided(z, second), guided.denoiser(z, second)
        assert fresh.loss is not None and again.loss is None
        term = (fresh.noise - guided.denoiser(fresh.latents, first).noise) / (1 - first.abar) ** 0.5
        assert relative(again.noise, free.noise + (1 - second.abar) ** 0.5 * term) < 1e-9
        z = ddim_step(again, second)


@pytest.mark.parametrize("course", ["constant", "fading", "growing"])
def test_phases_have_a_mean_of_one(course):
    params = GuidanceParams(phase=course, guidance_strength=0.5)
    values = [phase(Step(i, 20, 1, 0.2, 0.3), params) for i in range(10)]
    assert math.fsum(values) / 10 == pytest.approx(1, abs=1e-12)
    falls = [a - b for a, b in zip(values, values[1:], strict=False)]
    expected = {"constant": 0.0, "fading": 2 / 11, "growing": -2 / 11}[course]
    assert falls == pytest.approx([expected] * 9)


def test_copies_are_weighted_by_their_likelihood():
    losses, gradients = torch.rand(3, 2).double() * 5, torch.randn(3, 2, 4, 2, 2).double()
    pull = together([Pull(loss, gradient, 2.0) for loss, gradient in zip(losses, gradients, strict=True)])
    for b in range(2):
        weights = [math.exp(-float(losses[k, b])) for k in range(3)]
        expected = sum(w * gradients[k, b] for k, w in enumerate(weights)) / sum(weights)
        assert torch.allclose(pull.gradient[b], expected)
        assert float(pull.loss[b]) == pytest.approx(-math.log(sum(weights) / 3))
    assert pull.scale == 2.0
