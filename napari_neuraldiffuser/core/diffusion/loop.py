"""Schedule and loop of the diffusion run; knows neither guidance nor brains.

A denoiser is any callable `denoiser(latents, step) -> Prediction`.  Guidance wraps a denoiser (guidance.py), so this
loop never hears of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_neuraldiffuser.core.base.registry import SOLVERS
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.parts import NoiseSchedule
from napari_neuraldiffuser.core.params import DiffusionParams

Term = tuple[float | torch.Tensor, torch.Tensor]
"""A coefficient, one number or one per image (B,), and the tensor (B, 4, h, w) that it multiplies."""


class Level(NamedTuple):
    """A timestep, and the cumulative schedule before and after its step."""

    timestep: float
    abar: float
    abar_prev: float


@dataclass(frozen=True)
class Step:
    """One executed step: its place, its timestep and the cumulative schedule before and after it."""

    index: int
    n_steps: int
    timestep: float
    abar: float
    abar_prev: float

    def clean_factors(self, published: bool = False) -> tuple[float, float]:
        """What z_t and the noise are multiplied by in the clean estimate x0 (method.md eq. 25).

        x0 = (z_t - sqrt(1-abar) eps) / sqrt(abar); the published code has (1-abar) in place of its root.
        """
        sigma, root = (1 - self.abar) ** 0.5, self.abar**0.5
        return 1 / root, -(sigma**2 if published else sigma) / root


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of z_t: the noise to step with, its two halves, and what a wrapper adds.

    Attributes
    ----------
    latents : Tensor (B, 4, h, w)
        The z_t that the noise belongs to (a wrapper with recurrence moves it).
    terms : tuple of Term
        The model's own noise, as a linear combination: the step adds it up together with everything else.
    noise_uncond, noise_cond : Tensor (B, 4, h, w)
    pull : tuple of Term
        What guidance adds to the noise; apart, as a solver of high order must not extrapolate it.
    shift : tuple of Term
        What guidance adds to z_{t-1} after the step, for rules that correct the latents and not the noise.
    loss : Tensor (B,) or None
        Feature loss per image, where the step was guided.
    """

    latents: torch.Tensor
    terms: tuple[Term, ...]
    noise_uncond: torch.Tensor
    noise_cond: torch.Tensor
    pull: tuple[Term, ...] = ()
    shift: tuple[Term, ...] = ()
    loss: torch.Tensor | None = None

    @property
    def noise(self) -> torch.Tensor:
        """The noise to step with, guidance included, added up; (B, 4, h, w)."""
        return combine(self.terms + self.pull)

    def but(self, **changes: Any) -> "Prediction":
        return replace(self, **changes)

    def plus(self, *terms: Term) -> "Prediction":
        """The prediction with more terms of noise; a tensor that is there already gets a larger coefficient."""
        merged = {id(tensor): (c, tensor) for c, tensor in self.terms}
        for c, tensor in terms:
            before = merged.get(id(tensor), (0.0, tensor))[0]
            merged[id(tensor)] = (before + c, tensor)
        return self.but(terms=tuple(merged.values()))


def combine(terms: Sequence[Term]) -> torch.Tensor:
    """Sum of the terms, in the dtype of the first tensor, by one call of `ops.guided_step`."""
    coefficients, tensors = zip(*terms, strict=True)
    if not any(isinstance(c, torch.Tensor) for c in coefficients):
        return ops.guided_step(tensors, coefficients)
    like = torch.zeros(len(tensors[0]), dtype=torch.float64, device=tensors[0].device)
    return ops.guided_step_table(tensors, torch.stack([like + c for c in coefficients], dim=1))  # (B, K)


Denoiser = Callable[[torch.Tensor, Step], Prediction]
"""The contract between the loop and everything that predicts noise: a function of z_t and the step."""

Solver = Callable[[Prediction, Step], torch.Tensor]
"""From a prediction to z_{t-1}; one that remembers earlier steps is made anew for every batch."""


@dataclass(frozen=True)
class Schedule:
    """Executed steps and the noise level of the start."""

    steps: list[Step]
    start_abar: float


def schedule(scheduler: NoiseSchedule, params: DiffusionParams) -> Schedule:
    """Last `executed_steps` steps of the solver's schedule (method.md eq. 22).

    Parameters
    ----------
    scheduler : NoiseSchedule
        The model's own: its spacing, offset and levels make the solver's.
    """
    n_run = params.executed_steps
    every = SOLVERS[params.solver].levels(scheduler, params.n_steps)
    steps = [Step(i, n_run, *level) for i, level in enumerate(every[len(every) - n_run :])]
    return Schedule(steps, _start_abar([float(a) for a in scheduler.alphas_cumprod], steps, params))


def _start_abar(abar: Sequence[float], steps: Sequence[Step], params: DiffusionParams) -> float:
    if not steps:
        return 1.0
    if params.start_noise == "published":
        # published code: int(37 / 50 * 1000) = 740, although the first executed timestep is 721
        return abar[min(int(len(steps) / params.n_steps * len(abar)), len(abar) - 1)]
    return steps[0].abar


def noise_for(seed: int, stimulus_id: int, repeat: int, shape: Sequence[int], *step: int) -> np.ndarray:
    """Standard normal noise (float32) that depends on (seed, stimulus, repeat) alone (method.md eq. 21).

    `step`, counted from 1, gives other noise, for solvers whose steps add some.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed, stimulus_id, repeat, *step]))
    return np.random.Generator(bits).standard_normal(tuple(shape), dtype=np.float32)


def add_noise(latents: torch.Tensor, noise: torch.Tensor, abar: float) -> torch.Tensor:
    """z_t = sqrt(abar) z + sqrt(1 - abar) noise (method.md eq. 23)."""
    return ops.guided_step([latents, noise], [abar**0.5, (1 - abar) ** 0.5])


def sample(
    latents: torch.Tensor,
    steps: Sequence[Step],
    denoiser: Denoiser,
    callback: Callable[[Step, Prediction, torch.Tensor], None] | None = None,
    solver: Solver | None = None,
) -> torch.Tensor:
    """Run the loop and return z_0.

    Parameters
    ----------
    latents : Tensor (B, 4, h, w)
        Noised start, scaled latents.
    callback : callable, optional
        Called as `callback(step, prediction, latents)` after every step; what it raises ends the run.
    solver : callable, optional
        `ddim_step` (DDIM whose own eta is 0) where None.
    """
    solve = solver or ddim_step
    for step in steps:
        prediction = denoiser(latents, step)
        latents = solve(prediction, step)
        if callback is not None:
            callback(step, prediction, latents)
    return latents


def ddim_step(prediction: Prediction, step: Step) -> torch.Tensor:
    """z_{t-1}, with everything that the step adds up in one linear combination (method.md eq. 36)."""
    of_latents, of_noise = ops.step_coefficients(step.abar, step.abar_prev)
    terms: list[Term] = [(of_latents, prediction.latents)]
    terms += [(of_noise * c, tensor) for c, tensor in prediction.terms + prediction.pull]
    return combine([*terms, *prediction.shift])
