import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.diffusion import Prediction, Schedule, add_noise, noise_for, sample, schedule
from napari_neuraldiffuser.core.params import DiffusionParams, ParamError
from tests.small_models import sd14_scheduler


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
    got = sample(z0, plan.steps, lambda z, step: Prediction(z, predict(z), z, z))
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
        return Prediction(z, eps, eps, eps)

    start = add_noise(clean, torch.randn_like(clean), plan.start_abar)
    last = plan.steps[-1]
    done = sample(start, plan.steps, perfect)
    left = (done - last.abar_prev**0.5 * clean).abs().max()
    assert left <= (1 - last.abar_prev) ** 0.5 * 6


def test_a_shift_is_added_after_the_step(scheduler):
    plan = schedule(scheduler, DiffusionParams(n_steps=1, strength=1.0))
    z = torch.randn(1, 4, 2, 2)
    base = sample(z, plan.steps, lambda x, s: Prediction(x, x, x, x))
    moved = sample(z, plan.steps, lambda x, s: Prediction(x, x, x, x, shift=torch.full_like(x, 0.5)))
    assert torch.allclose(moved - base, torch.full_like(z, 0.5), atol=1e-6)


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
            lambda z, s: Prediction(z, z, z, z),
            stop,
        )
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    "bad", [{"strength": 1.5}, {"n_steps": 0}, {"repeats": 0}, {"start_noise": "x"}, {"cfg_scale": float("nan")}]
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ParamError, match=f"{next(iter(bad))} must be"):
        DiffusionParams(**bad)
