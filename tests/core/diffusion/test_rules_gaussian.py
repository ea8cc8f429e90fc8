"""Guidance rules where everything is known: a Gaussian prior, whose exact denoiser is linear, and a quadratic loss.

L(x) = |x - y|^2 / (2 s^2) is the negative log likelihood of y = x + s noise: the guided distribution is Gaussian, too.
"""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.diffusion.critic import Pull
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.guidance import Guided
from napari_neuraldiffuser.core.diffusion.loop import Prediction, Schedule, Step, ddim_step, sample, schedule
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams
from tests.support.small_models import sd14_scheduler

N, SHAPE = 60, (4, 8, 8)
"""Images of 256 independent numbers: 15,360 samples."""
MEAN, SPREAD = 0.4, 0.8  # of the prior
WITHIN, SEEN = 2.0, 6.0  # s and y
ROUNDED = 4 * SPREAD / (N * 256) ** 0.5
"""Four standard errors of a mean of so many samples."""


def clean_of(z, step):
    """E[x0 | z] and its slope in z."""
    gain = step.abar**0.5 * SPREAD**2 / (step.abar * SPREAD**2 + 1 - step.abar)
    return MEAN + gain * (z - step.abar**0.5 * MEAN), gain


def denoiser(z, step):
    """Exact; eps_u is another, for rules that look at eps_c - eps_u, with a guidance scale of 1."""
    noise = (z - step.abar**0.5 * clean_of(z, step)[0]) / (1 - step.abar) ** 0.5
    return Prediction(z, ((1.0, noise.detach()),), torch.zeros_like(noise), noise)


def critic(x):
    return Pull((x - SEEN).square().flatten(1).sum(1) / (2 * WITHIN**2), (x - SEEN) / WITHIN**2)


def plan_of(n_steps) -> Schedule:
    return schedule(sd14_scheduler(), DiffusionParams(n_steps=n_steps, strength=1.0))


def sampled(params, n_steps=40):
    plan, draws = plan_of(n_steps), Draws(0, [(i, 0) for i in range(N)])
    abar = plan.start_abar
    noise = torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = abar**0.5 * MEAN + (abar * SPREAD**2 + 1 - abar) ** 0.5 * noise
    return sample(z, plan.steps, Guided(denoiser, critic, params, draws))


def of_rule(rule, scale, **changes):
    base = {"rule": rule, "normalise": "none", "guidance_strength": 1.0, "x0_blend": False, "copies_noise": 0.0}
    return GuidanceParams(**base, guidance_scale=scale, **changes)


POSTERIOR = (MEAN / SPREAD**2 + SEEN / WITHIN**2) / (1 / SPREAD**2 + 1 / WITHIN**2)
POSTERIOR_SPREAD = (1 / SPREAD**2 + 1 / WITHIN**2) ** -0.5


def test_without_guidance_the_prior_comes_out():
    x = sampled(of_rule("noise", 0.0), 100)
    assert float(x.mean()) == pytest.approx(MEAN, abs=ROUNDED)
    assert float(x.std()) == pytest.approx(SPREAD, rel=0.03)  # first-order steps: 1.8 % with 100 of them, .9 with 200


def mean_after(rule, scale, n_steps=40, leaf=0.0, m=1, rounds=1, factor=None):
    """Mean of what a rule makes of the prior, in closed form: every step is affine in z, and noise has none."""
    steps = plan_of(n_steps).steps
    z = steps[0].abar ** 0.5 * MEAN
    for step in steps:
        a, b = step.abar, step.abar_prev
        for round_ in range(rounds):
            x0, gain = clean_of(z, step)
            noise = (z - a**0.5 * x0) / (1 - a) ** 0.5
            through = gain * (x0 - SEEN) / WITHIN**2
            # m steps of size mu down a quadratic leave (1 - mu / s^2)^m of the way to y
            size = scale if rule == "mpgd" else leaf
            delta = ((1 - size / WITHIN**2) ** m - 1) * (x0 - SEEN)
            if rule in ("noise", "ugd"):
                noise = noise + (1 - a) ** 0.5 * scale * through
            if rule == "ugd":
                noise = noise - (a / (1 - a)) ** 0.5 * delta
            after = b**0.5 * (z - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - b) ** 0.5 * noise
            if rule in ("dps", "lgd"):
                after = after - scale * through
            if rule == "tfg":
                after = after - scale * through / (a / b) ** 0.5
            if rule in ("mpgd", "tfg"):
                after = after + b**0.5 * delta
            if round_ < rounds - 1:
                z = (a / b) ** 0.5 * after
        z = after
    return z


def strength_for(rule, **options):
    """The strength whose mean in closed form is the posterior's, by halving; the mean grows with it."""
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_after(rule, middle, **options) < POSTERIOR else (low, middle)
    assert 0 < low < 3.99
    return low


@pytest.mark.parametrize(
    ("rule", "options", "params"),
    [
        ("noise", {}, {}),
        ("dps", {}, {}),
        ("mpgd", {}, {}),
        ("mpgd", {"m": 3}, {"leaf_steps": 3}),
        ("ugd", {"leaf": 0.02, "m": 2, "rounds": 2}, {"leaf_scale": 0.02, "leaf_steps": 2, "recurrence": 2}),
        ("tfg", {"leaf": 0.005, "m": 2, "rounds": 2}, {"leaf_scale": 0.005, "leaf_steps": 2, "recurrence": 2}),
    ],
)
def test_samples_reach_the_posterior_mean(rule, options, params):
    strength = strength_for(rule, **options)
    x = sampled(of_rule(rule, strength, **params))
    assert float(x.mean()) == pytest.approx(POSTERIOR, abs=ROUNDED)
    assert POSTERIOR - MEAN > 20 * ROUNDED


def test_the_paper_s_rule_at_strength_one_is_the_posterior_where_the_likelihood_is_wide():
    """kappa 1 is the likelihood's own score, but that it takes x0 for certain: what is left is Var[x0 | z] / s^2.

    That is .16 at most here, and least where it counts; with 40 steps of first order 10 % of the shift is what remains.
    """
    x = sampled(of_rule("noise", 1.0))
    assert float(x.mean()) == pytest.approx(POSTERIOR, abs=0.1 * (POSTERIOR - MEAN))
    assert float(x.std()) == pytest.approx(POSTERIOR_SPREAD, rel=0.05)


def test_freedom_s_step_is_as_long_as_what_the_text_adds():
    """Closed form of one step: rho_t = kappa |eps_c - eps_u| / |A| in rms, whatever the loss weighs."""
    step = plan_of(40).steps[10]
    z = torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    params = of_rule("freedom", 0.3, recurrence=1)
    got = ddim_step(Guided(denoiser, critic, params, Draws(0, []))(z, step), step)
    x0, gain = (np.asarray(v) for v in clean_of(z, step))
    noise = (z.numpy() - step.abar**0.5 * x0) / (1 - step.abar) ** 0.5
    gradient, rms = gain * (x0 - SEEN) / WITHIN**2, lambda v: np.sqrt((v**2).mean((1, 2, 3), keepdims=True))
    free = step.abar_prev**0.5 * x0 + (1 - step.abar_prev) ** 0.5 * noise
    expected = free - 0.3 * rms(noise) / rms(gradient) * gradient
    assert np.allclose(got.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_copies_look_at_the_likelihood_of_a_blurred_estimate():
    """E exp(-L(x0 + t n)) is Gaussian about y with variance s^2 + t^2; 2,000 copies of single numbers are that to 5 %.

    One number per image: in many dimensions a few copies carry all the weight.
    """
    step, n = Step(0, 1, 500, 0.3, 0.4), 6
    z = torch.linspace(-2, 4, n, dtype=torch.float64).view(n, 1, 1, 1)
    params = of_rule("lgd", 1.0, guidance_copies=2000).but(copies_noise=1.0)
    draws = Draws(0, [(i, 0) for i in range(n)])
    shift = ddim_step(Guided(denoiser, critic, params, draws)(z, step), step) - ddim_step(denoiser(z, step), step)
    x0, gain = clean_of(z, step)
    blurred = gain * (SEEN - x0) / (WITHIN**2 + 1 - step.abar)
    plain = gain * (SEEN - x0) / WITHIN**2
    assert torch.allclose(shift, blurred, rtol=0.05)
    assert not torch.allclose(plain, blurred, rtol=0.1)
