"""Solvers: which timesteps are run, how much noise the latents have there, and the step from one to the next.

Timesteps and noise levels are those of diffusers' scheduler classes, made from the configuration of the model's own
scheduler (spacing, offset, last level).  Steps of first order are one linear combination; that of the multistep solver
is the library's.

Guidance makes the differential equation stiff, and a solver of high order that extrapolates the gradient fails
(Wizadwongsa and Suwajanakorn, ICLR 2023, arXiv 2301.11558): the equation is split, the model's own noise is stepped
with the high order and what guidance adds with the first.  They judge the latents that the first of the two gives; here
the gradient is the one that came with the noise, which costs no further forward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.registry import SOLVERS
from napari_neuraldiffuser.core.diffusion.loop import (
    Level,
    Prediction,
    Schedule,
    Solver,
    Step,
    Term,
    combine,
    ddim_step,
)
from napari_neuraldiffuser.core.diffusion.predictor import takes_scale
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.networks.opening import scheduler_of
from napari_neuraldiffuser.core.networks.parts import NoiseSchedule
from napari_neuraldiffuser.core.params import DiffusionParams

LEAST_ABAR = 2.0**-24

FreshNoise = Callable[[Step], torch.Tensor]
"""Standard normal noise (B, 4, h, w) of a step, for solvers that add some."""


@dataclass(frozen=True)
class Problem:
    """What a solver is made for: a batch's schedule, in the model's own terms.

    Attributes
    ----------
    scheduler : NoiseSchedule
        The model's.
    params : DiffusionParams
    plan : Schedule
    fresh : callable
        Noise that a step adds, one per image.
    """

    scheduler: NoiseSchedule
    params: DiffusionParams
    plan: Schedule
    fresh: FreshNoise


@dataclass(frozen=True)
class Kind:
    """A solver that can be chosen.

    Attributes
    ----------
    library : str
        Scheduler class of diffusers that it follows.
    of_library : callable
        From the library's scheduler, with its timesteps set, to all levels of the schedule, noisiest first.
    make : callable
        From a problem to the solver of one batch.
    """

    library: str
    of_library: Callable[[Any, int], list[Level]]
    make: Callable[[Problem], Solver]

    def levels(self, scheduler: NoiseSchedule, n_steps: int) -> list[Level]:
        """Every level of the whole schedule of `n_steps` steps, noisiest first.

        Raises
        ------
        UserError
            If the library has no schedule of that many steps.
        """
        library = scheduler if type(scheduler).__name__ == self.library else scheduler_of(self.library, scheduler)
        try:
            library.set_timesteps(n_steps)
        except ValueError as error:
            raise self._too_many(n_steps, str(error)) from error
        levels = self.of_library(library, n_steps)
        if any(later.timestep >= earlier.timestep for earlier, later in pairwise(levels)):
            raise self._too_many(n_steps, "some steps would have the same timestep.")
        return levels

    def _too_many(self, n_steps: int, why: str) -> UserError:
        return UserError(f"n_steps must be fewer for the {self.library} of these models, got {n_steps}: {why}")


def solver_for(problem: Problem) -> Solver:
    """The solver that `DiffusionParams.solver` names, fresh for a batch."""
    kind: Kind = SOLVERS[problem.params.solver]
    return kind.make(problem)


def check_solver(models: Models, params: DiffusionParams) -> None:
    """Raise UserError where models and solver cannot give an image."""
    consistency = takes_scale(models.unet) or "original_inference_steps" in models.scheduler.config
    if consistency != (params.solver == "lcm"):
        what = "lcm" if consistency else "ddim, euler or dpm++"
        kind = "a latent consistency model" if consistency else "no latent consistency model"
        raise UserError(f"solver must be {what} for {models.name}, which is {kind}, got {params.solver}.")
    if params.strength > 0 and not params.executed_steps:
        raise UserError(
            f"strength times n_steps must be at least one step, got {params.strength} x {params.n_steps}. "
            "Give more steps or a higher strength."
        )


def _abar(library: Any) -> list[float]:
    """Cumulative schedule; a last one of 0 is as near to it as the library's own solvers have it."""
    return [max(float(a), LEAST_ABAR) for a in library.alphas_cumprod]


def _ddim_levels(library: Any, n_steps: int) -> list[Level]:
    """As the library's `step` has them: the level after a step is one stride of whole timesteps further down."""
    stride = library.config.num_train_timesteps // n_steps
    abar = _abar(library)
    final = float(library.final_alpha_cumprod)
    return [Level(t, abar[t], abar[t - stride] if t >= stride else final) for t in library.timesteps.tolist()]


def _sigma_levels(library: Any, n_steps: int) -> list[Level]:
    """Of a scheduler that tells sigma = sqrt((1 - abar) / abar) of every timestep, and of the end."""
    abar = (1 / (1 + library.sigmas.double() ** 2)).tolist()
    return [Level(t, *ends) for t, ends in zip(map(_plain, library.timesteps.tolist()), pairwise(abar), strict=True)]


def _plain(timestep: float) -> float:
    """Whole timesteps as whole numbers."""
    return int(timestep) if timestep == int(timestep) else timestep


def _lcm_levels(library: Any, n_steps: int) -> list[Level]:
    """Each step noises its clean estimate to the next timestep; the last does not."""
    timesteps = library.timesteps.tolist()
    every = _abar(library)
    abar = [every[t] for t in timesteps]
    return [Level(t, *ends) for t, ends in zip(timesteps, pairwise([*abar, 1.0]), strict=True)]


class Multistep:
    """DPM-Solver++ of second order, 2M (Lu et al. 2022, arXiv 2211.01095), by the library's own step.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        self.split = problem.params.guided_ode == "split"
        self.library = scheduler_of(DPM.library, problem.scheduler)
        self.library.set_timesteps(problem.params.n_steps)
        self.library.set_begin_index(len(self.library.timesteps) - len(problem.plan.steps))

    def __call__(self, prediction: Prediction, step: Step) -> torch.Tensor:
        """z_{t-1}; what the solver remembers of earlier steps is their clean estimate, wherever latents were moved."""
        of_noise = ops.step_coefficients(step.abar, step.abar_prev)[1]
        extra: Sequence[Term] = [(of_noise * c, tensor) for c, tensor in prediction.pull] if self.split else ()
        noise = combine(prediction.terms) if self.split else prediction.noise
        latents = prediction.latents
        wide = torch.promote_types(latents.dtype, torch.float32)
        moved = self.library.step(noise.to(wide), step.timestep, latents.to(wide)).prev_sample.to(latents.dtype)
        added = (*extra, *prediction.shift)
        return combine([(1.0, moved), *added]) if added else moved


@dataclass(frozen=True)
class Consistency:
    """Multistep consistency sampling (Luo et al. 2023, arXiv 2310.04378): the clean estimate, noised anew.

    Attributes
    ----------
    scalings : callable
        From a timestep to what latents and clean estimate are multiplied by, the boundary condition.
    fresh : callable
    """

    scalings: Callable[[float], tuple[float, float]]
    fresh: FreshNoise

    def __call__(self, prediction: Prediction, step: Step) -> torch.Tensor:
        of_latents, of_noise = step.clean_factors()
        skip, out = self.scalings(step.timestep)
        root = step.abar_prev**0.5
        terms: list[Term] = [(root * (out * of_latents + skip), prediction.latents)]
        terms.append((root * out * of_noise, prediction.noise))
        if step.abar_prev < 1:
            terms.append(((1 - step.abar_prev) ** 0.5, self.fresh(step)))
        return combine([*terms, *prediction.shift])


def _consistency(problem: Problem) -> Solver:
    library = scheduler_of(LCM.library, problem.scheduler)
    return Consistency(library.get_scalings_for_boundary_condition_discrete, problem.fresh)


DDIM = Kind("DDIMScheduler", _ddim_levels, lambda problem: ddim_step)
EULER = Kind("EulerDiscreteScheduler", _sigma_levels, lambda problem: ddim_step)
DPM = Kind("DPMSolverMultistepScheduler", _sigma_levels, Multistep)
LCM = Kind("LCMScheduler", _lcm_levels, _consistency)
