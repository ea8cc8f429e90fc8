"""Every solver against the library's own scheduler class, and what splitting the guided equation is for."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.diffusion.loop import Prediction, sample, schedule
from napari_neuraldiffuser.core.diffusion.solvers import Problem, solver_for
from napari_neuraldiffuser.core.params import DiffusionParams
from tests.support.small_models import sd14_scheduler

SPACINGS = ("leading", "trailing", "linspace")
MIX = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
START = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim(**changes):
    """The model's own scheduler, as a model folder's is opened."""
    ours = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**LEVELS, **(ours | changes))


def noise_in(z):
    return torch.tanh(torch.einsum("ij,bjhw->bihw", MIX, z))


def ours(scheduler, params, start=START, pull=None, fresh=None):
    plan = schedule(scheduler, params)
    solver = solver_for(Problem(scheduler, params, plan, fresh or (lambda step: torch.zeros_like(start))))

    def denoiser(z, step):
        added = () if pull is None else ((1.0, pull(z, step)),)
        return Prediction(z, ((0.25, noise_in(z)), (0.75, noise_in(z))), z, z, pull=added)

    return sample(start, plan.steps, denoiser, solver=solver), plan


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("n_steps", "strength"), [(10, 1.0), (7, 0.75), (1, 1.0), (4, 0.75)])
def test_ddim_is_the_library_s(spacing, n_steps, strength):
    scheduler = ddim(timestep_spacing=spacing)
    got, plan = ours(scheduler, DiffusionParams(n_steps=n_steps, strength=strength))
    theirs = ddim(timestep_spacing=spacing)
    theirs.set_timesteps(n_steps)
    expected = START
    for t in theirs.timesteps[n_steps - len(plan.steps) :]:
        expected = theirs.step(noise_in(expected), t, expected).prev_sample
    # the library keeps its schedule in float32
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_euler_is_the_library_s(spacing):
    """The library steps latents that are divided by sqrt(abar), and ends without noise."""
    scheduler = ddim(timestep_spacing=spacing)
    got, plan = ours(scheduler, DiffusionParams(n_steps=9, strength=0.7, solver="euler"))
    theirs = EulerDiscreteScheduler(**LEVELS, timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(9)
    theirs.set_begin_index(3)
    expected = START / plan.steps[0].abar ** 0.5
    for t in theirs.timesteps[3:]:
        expected = theirs.step(noise_in(theirs.scale_model_input(expected, t)), t, expected).prev_sample
    assert [float(t) for t in theirs.timesteps[3:]] == [s.timestep for s in plan.steps]
    assert plan.steps[-1].abar_prev == 1
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def dpm_by_hand(steps, start, noise_of, pull=None):
    """DPM-Solver++ 2M as its paper writes it, of first order in the first and the last step; a pull is added by DDIM's
    coefficient of the noise."""
    z, before = start, None
    for step in steps:
        z, before = dpm_step(z, step, before, noise_of, pull)
    return z


def dpm_step(z, step, before, noise_of, pull=None):
    a, s = step.abar**0.5, (1 - step.abar) ** 0.5
    a_next, s_next = step.abar_prev**0.5, (1 - step.abar_prev) ** 0.5
    clean = (z - s * noise_of(z, step)) / a
    estimate = clean
    if before is not None and s_next > 0:
        h, h_before = (np.log(x) for x in (a_next / s_next * s / a, a / s * before[1] / before[0]))
        estimate = clean + h / h_before / 2 * (clean - before[2])
    added = 0 if pull is None else (s_next - a_next * s / a) * pull(z, step)
    return s_next / s * z - (s_next * a / s - a_next) * estimate + added, (a, s, clean)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("way", ["split", "whole"])
def test_dpm_is_the_paper_s_second_order(spacing, way):
    scheduler = ddim(timestep_spacing=spacing)
    params = DiffusionParams(n_steps=10, strength=0.8, solver="dpm++", guided_ode=way)
    got, plan = ours(scheduler, params)
    theirs = DPMSolverMultistepScheduler(**LEVELS, timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(10)
    assert theirs.timesteps[2:].tolist() == [s.timestep for s in plan.steps]
    expected = dpm_by_hand(plan.steps, START, lambda z, step: noise_in(z))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def pull(z, step):
    """Toward the clean latents 1, as guidance pulls."""
    clean = (z - (1 - step.abar) ** 0.5 * noise_in(z)) / step.abar**0.5
    return 1.2 * (clean - 1)


def test_only_the_model_s_own_noise_is_stepped_with_the_high_order():
    params = DiffusionParams(n_steps=8, strength=1.0, solver="dpm++")
    whole, plan = ours(ddim(), params.but(guided_ode="whole"), pull=pull)
    expected = dpm_by_hand(plan.steps, START, lambda z, step: noise_in(z) + pull(z, step))
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-3)
    split, _ = ours(ddim(), params, pull=pull)
    expected = dpm_by_hand(plan.steps, START, lambda z, step: noise_in(z), pull)
    torch.testing.assert_close(split, expected, rtol=1e-4, atol=1e-3)
    assert (split - whole).abs().max() > 0.1


def gaussian(z, step, weight):
    """Noise of standard normal data, and a pull of the clean estimate toward 1."""
    clean = step.abar**0.5 * z
    added = weight * (1 - step.abar) ** 0.5 * step.abar**0.5 * (clean - 1)
    return Prediction(z, (((1 - step.abar) ** 0.5, z),), z, z, pull=((1.0, added),))


def error(solver, weight, way="split", n_steps=8):
    """Mean distance of a run from one of 400 steps."""

    def run(params):
        plan = schedule(ddim(), params)
        steps = solver_for(Problem(ddim(), params, plan, lambda step: START))
        return sample(START, plan.steps, lambda z, step: gaussian(z, step, weight), solver=steps)

    exact = run(DiffusionParams(n_steps=400, strength=1.0))
    params = DiffusionParams(n_steps=n_steps, strength=1.0, solver=solver, guided_ode=way)
    return float((run(params) - exact).abs().mean())


def test_splitting_is_what_lets_a_guided_equation_have_a_high_order():
    """Unguided, second order is nearer in as many steps; under a strong pull it fails unless the equation is split."""
    assert error("dpm++", 0.0) < 0.8 * error("ddim", 0.0)
    assert error("dpm++", 20.0) < 0.8 * error("ddim", 20.0)
    assert error("dpm++", 20.0, "whole") > 10 * error("ddim", 20.0)


def test_latents_that_a_wrapper_moved_are_the_sample():
    """Recurrence hands other latents to the solver than the loop gave it."""
    params = DiffusionParams(n_steps=6, strength=1.0, solver="dpm++")
    plan = schedule(ddim(), params)
    solver = solver_for(Problem(ddim(), params, plan, lambda step: START))

    def moved(z, step):
        z = z + 0.1 * step.index
        return Prediction(z, ((1.0, noise_in(z)),), z, z)

    got = sample(START, plan.steps, moved, solver=solver)
    z, before = START, None
    for step in plan.steps:
        z, before = dpm_step(z + 0.1 * step.index, step, before, lambda z, step: noise_in(z))
    torch.testing.assert_close(got, z, rtol=1e-4, atol=1e-4)


def test_consistency_steps_are_the_library_s(monkeypatch):
    """The clean estimate within the boundary condition, noised anew by noise that is drawn here."""
    noises = list(torch.randn(4, *START.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    scheduler = ddim(set_alpha_to_one=True, steps_offset=0)
    theirs = LCMScheduler(**LEVELS, clip_sample=False)
    theirs.set_timesteps(4)
    drawn = iter(noises)
    monkeypatch.setattr("diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: next(drawn))
    expected = START
    for t in theirs.timesteps:
        expected = theirs.step(noise_in(expected), t, expected).prev_sample
    params = DiffusionParams(n_steps=4, strength=1.0, solver="lcm")
    got, plan = ours(scheduler, params, fresh=lambda step: noises[step.index])
    assert theirs.timesteps.tolist() == [s.timestep for s in plan.steps]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("solver", "n_steps"), [("lcm", 51), ("dpm++", 1000)])
def test_a_schedule_that_is_none_is_named(solver, n_steps):
    with pytest.raises(UserError, match=f"n_steps must be fewer .* got {n_steps}"):
        schedule(ddim(), DiffusionParams(n_steps=n_steps, solver=solver))


def test_the_default_schedule_is_unchanged():
    """The published one: 37 steps from 721 in strides of 20, ending at the first level of the model."""
    plan = schedule(sd14_scheduler(), DiffusionParams())
    assert [s.timestep for s in plan.steps] == list(range(721, 0, -20))
    assert plan.steps[-1].abar_prev == float(sd14_scheduler().final_alpha_cumprod)
    assert all(a.abar_prev == b.abar for a, b in zip(plan.steps, plan.steps[1:], strict=False))
