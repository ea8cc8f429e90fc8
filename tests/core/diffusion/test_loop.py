import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.diffusion import loop as diffusion
from napari_neuraldiffuser.core.diffusion.loop import (
    Prediction,
    Schedule,
    Step,
    add_noise,
    combine,
    noise_for,
    sample,
    schedule,
)
from napari_neuraldiffuser.core.params import DiffusionParams, ParamError
from tests.support.small_models import sd14_scheduler


def still(z, step):
    """A denoiser that takes z itself for the noise."""
    return Prediction(z, ((1.0, z),), z, z)


@pytest.fixture
def scheduler():
    return sd14_scheduler()


def test_the_published_schedule(scheduler):
    plan = schedule(scheduler, DiffusionParams(start_noise="published"))
    assert [s.timestep for s in plan.steps] == list(range(721, 0, -20))
    assert len(plan.steps) == 37
    assert plan.start_abar == float(scheduler.alphas_cumprod[740])
    assert schedule(scheduler, DiffusionParams()).start_abar == float(scheduler.alphas_cumprod[721])


@pytest.mark.parametrize(
    ("n", "strength", "n_run"), [(50, 1.0, 50), (7, 0.75, 5), (1, 1.0, 1), (50, 0.0, 0), (3, 0.3, 0)]
)
def test_number_of_executed_steps(scheduler, n, strength, n_run):
    plan = schedule(scheduler, DiffusionParams(n_steps=n, strength=strength))
    assert len(plan.steps) == n_run
    if n_run == 0:
        assert plan == Schedule([], 1.0)


@pytest.mark.parametrize("n_steps", [50, 25, 7])
def test_the_loop_is_the_library_s_ddim(scheduler, n_steps):
    """Same noise predictions through diffusers' own DDIMScheduler.step."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=generator, dtype=torch.float64)

    def predict(z):
        return torch.tanh(torch.einsum("ij,bjhw->bihw", mix, z))

    z0 = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    plan = schedule(scheduler, DiffusionParams(n_steps=n_steps))
    got = sample(z0, plan.steps, lambda z, step: Prediction(z, ((1.0, predict(z)),), z, z))
    expected = z0
    for step in plan.steps:
        expected = scheduler.step(predict(expected), step.timestep, expected).prev_sample
    # the library keeps its schedule in float32
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_perfect_denoiser_returns_the_clean_latents(scheduler):
    clean = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    plan = schedule(scheduler, DiffusionParams())

    def perfect(z, step):
        eps = (z - step.abar**0.5 * clean) / (1 - step.abar) ** 0.5
        return Prediction(z, ((1.0, eps),), eps, eps)

    start = add_noise(clean, torch.randn_like(clean), plan.start_abar)
    last = plan.steps[-1]
    done = sample(start, plan.steps, perfect)
    left = (done - last.abar_prev**0.5 * clean).abs().max()
    assert left <= (1 - last.abar_prev) ** 0.5 * 6


def test_a_shift_is_added_after_the_step(scheduler):
    plan = schedule(scheduler, DiffusionParams(n_steps=1, strength=1.0))
    z = torch.randn(1, 4, 2, 2)
    base = sample(z, plan.steps, still)
    moved = sample(z, plan.steps, lambda x, s: still(x, s).but(shift=((0.5, torch.ones_like(x)),)))
    assert torch.allclose(moved - base, torch.full_like(z, 0.5), atol=1e-6)


def test_a_step_is_one_linear_combination(monkeypatch):
    """All of z, both noises, self-attention guidance, gradient and shift go through one call of the operation."""
    z, uncond, cond, degraded, gradient, shift = torch.randn(6, 2, 4, 3, 5, dtype=torch.float64)
    prediction = Prediction(z, ((-6.5, uncond), (7.5, cond)), uncond, cond, shift=((1.0, shift),))
    prediction = prediction.plus((0.75, uncond), (-0.75, degraded)).but(pull=((3.0, gradient),))
    assert [c for c, _ in prediction.terms] == [-5.75, 7.5, -0.75]
    calls, plain = [], diffusion.ops.guided_step
    monkeypatch.setattr(diffusion.ops, "guided_step", lambda terms, c: calls.append(len(terms)) or plain(terms, c))
    step = Step(0, 37, 721, 0.13, 0.2)
    got = sample(z, [step], lambda z, step: prediction)
    assert calls == [6]
    noise = uncond + 7.5 * (cond - uncond) + 0.75 * (uncond - degraded) + 3.0 * gradient
    x0 = (z - 0.87**0.5 * noise) / 0.13**0.5
    torch.testing.assert_close(got, 0.2**0.5 * x0 + 0.8**0.5 * noise + shift, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(prediction.noise, noise, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_coefficients_per_image(dtype):
    a, b = torch.randn(2, 3, 4, 3, 5).to(dtype)
    per_image = torch.tensor([1.0, -2.0, 0.25], dtype=torch.float64)
    got = combine([(0.5, a), (per_image, b)])
    assert got.dtype == dtype
    for i, c in enumerate(per_image.tolist()):
        assert torch.equal(got[i : i + 1], combine([(0.5, a[i : i + 1]), (c, b[i : i + 1])]))


def test_noise_depends_on_seed_stimulus_and_repeat_only():
    a = noise_for(0, 13, 1, (4, 8, 8))
    assert np.array_equal(a, noise_for(0, 13, 1, (4, 8, 8)))
    others = [noise_for(1, 13, 1, (4, 8, 8)), noise_for(0, 14, 1, (4, 8, 8)), noise_for(0, 13, 2, (4, 8, 8))]
    others.append(noise_for(0, 1, 13, (4, 8, 8)))
    for other in others:
        assert abs(np.corrcoef(a.ravel(), other.ravel())[0, 1]) < 0.3


def test_noise_is_standard_normal():
    from scipy import stats

    values = np.concatenate([noise_for(0, s, 0, (4, 16, 16)).ravel() for s in range(20)])
    assert stats.kstest(values, "norm").pvalue > 1e-3


def test_what_the_callback_raises_ends_the_run(scheduler):
    seen = []

    def stop(step, prediction, z):
        seen.append(step.index)
        if step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(
            torch.zeros(1, 4, 2, 2),
            schedule(scheduler, DiffusionParams()).steps,
            still,
            stop,
        )
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    "bad", [{"strength": 1.5}, {"n_steps": 0}, {"repeats": 0}, {"start_noise": "x"}, {"cfg_scale": float("nan")}]
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ParamError, match=f"{next(iter(bad))} must be"):
        DiffusionParams(**bad)
