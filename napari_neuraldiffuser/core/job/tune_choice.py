"""Which of several settings is chosen, from their scores on the same stimuli: one criterion, stated in one sentence."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.fields import Params, that_matter
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.evaluation.differences import Difference, mean_difference
from napari_neuraldiffuser.core.evaluation.ruin import out_of_range
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams

GAINED, KEPT = "pixcorr", ("ssim", "edges")
SCORES = (GAINED, *KEPT)
CRITERION = (
    "The largest gain in PixCorr over the same schedule's start without guidance, among settings that gain, whose SSIM "
    "and edges do not fall by more than one standard error, of which no image failed, and whose final latents stay in "
    "the range of the unguided ones; of those within one standard "
    "error of the best (paired by stimulus) the one that computes least."
)
GUIDED_COST, LEAF_COST = 3.5, 2.9
"""Of one gradient, in denoising steps of 1.50 TFLOP at the size of Stable Diffusion 1.4: VAE decoding, guide network
and their way back are 4.32, the UNet's 0.89 more (`benchmarks/common/census.py`)."""


@dataclass(frozen=True)
class Setting:
    """One point of the search: parameters of diffusion and guidance."""

    diffusion: DiffusionParams
    guidance: GuidanceParams

    def but(self, name: str, value: Any) -> "Setting":
        """The setting with one field of either changed."""
        if name in self.guidance.to_dict():
            return Setting(self.diffusion, self.guidance.but(**{name: value}))
        return Setting(self.diffusion.but(**{name: value}), self.guidance)

    @property
    def unguided(self) -> "Setting":
        """The same schedule without guidance."""
        return self.but("guidance_scale", 0.0)

    @property
    def cost(self) -> float:
        """Work of one image in denoising steps, counted: it does not depend on what else the machine does."""
        executed = self.diffusion.executed_steps
        return executed * (1.5 if self.diffusion.sag_scale else 1.0) + guidance_cost(executed, self.guidance)

    def changes(self) -> dict[str, dict[str, Any]]:
        """What differs from the defaults, by stage, as a preset says it, but for repeats, seed and batches."""
        own = {"diffusion": _changes(self.diffusion), "guidance": _changes(self.guidance)}
        for name in ("repeats", "seed", "batch_size"):
            own["diffusion"].pop(name, None)
        return own

    def __str__(self) -> str:
        """ "κ 5, η 0.67, s 3, 24 steps"."""
        d, g = self.diffusion, self.guidance
        rule = "" if g.rule == GuidanceParams().rule else f"{g.rule}, "
        return f"{rule}κ {g.guidance_scale:g}, η {g.guidance_strength:g}, s {d.cfg_scale:g}, {d.n_steps} steps"


def guidance_cost(executed: int, guidance: GuidanceParams) -> float:
    """Work of guidance in one image, in denoising steps: fresh gradients, and steps that are taken again."""
    matter, guided = that_matter(guidance), n_guided_steps(executed, guidance)
    fresh, rounds = -(-guided // guidance.guide_every), matter.get("recurrence", 1)
    through = 0.0 if guidance.rule == "mpgd" else LEAF_COST if matter.get("gradient") == "leaf" else GUIDED_COST
    more = matter.get("guidance_copies", 1) - 1 + matter.get("leaf_steps", 0)
    return float(fresh * rounds * (through + more * LEAF_COST) + guided * (rounds - 1))


def _changes(params: Params) -> dict[str, Any]:
    defaults = type(params)().to_dict()
    return {name: value for name, value in params.to_dict().items() if value != defaults[name]}


@dataclass(frozen=True)
class Tried:
    """Scores of one setting.

    Attributes
    ----------
    setting : Setting
    scores : mapping of metric to ndarray (n_stimuli,)
        Means over repeats; stimuli in the same order for all settings that are compared.
    seconds : float
        Per image, as measured; a busy machine takes longer.
    failed : int
        Stimuli of which a latent overflowed.
    latents : ndarray (n_images, 3)
        `ruin.FIGURES` of the final latents; none where they are not known.
    """

    setting: Setting
    scores: Mapping[str, np.ndarray]
    seconds: float = float("nan")
    failed: int = 0
    latents: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))

    def gain(self, over: "Tried", metric: str = GAINED) -> Difference:
        """Mean difference to another setting on the same stimuli, and its standard error over stimuli."""
        d = np.asarray(self.scores[metric]) - np.asarray(over.scores[metric])
        known = d[np.isfinite(d)]
        return mean_difference(known.tolist()) if len(known) else Difference()


@dataclass(frozen=True)
class Choice:
    """What was chosen, and among what.

    Attributes
    ----------
    best : Tried or None
        None where no setting meets the criterion.
    eligible : list of Tried
        Those that do, the largest gain first.
    """

    best: Tried | None
    eligible: list[Tried] = field(default_factory=list)


def choose(tried: Iterable[Tried], baseline: Tried) -> Choice:
    """The setting that `CRITERION` picks; gains are over `baseline`, on the same stimuli."""
    eligible = sorted((one for one in tried if helps(one, baseline)), key=lambda one: -_mean(one.gain(baseline)))
    if not eligible:
        return Choice(None)
    close = [one for one in eligible if _mean(eligible[0].gain(one)) <= (eligible[0].gain(one).se or 0.0)]
    return Choice(min(close, key=lambda one: one.setting.cost), eligible)


def helps(one: Tried, baseline: Tried) -> bool:
    """Whether a setting gains, lets the other scores not fall, has all its images, and latents in range."""
    kept = (one.gain(baseline, metric) for metric in KEPT)
    kept_range = not out_of_range(one.latents, baseline.latents)
    return (
        not one.failed
        and kept_range
        and _mean(one.gain(baseline)) > 0
        and all(_mean(d) >= -(d.se or 0.0) for d in kept)
    )


def least_harmful(tried: Sequence[Tried], baseline: Tried) -> Tried:
    """Where nothing helps: what a search goes on from."""
    return max(tried, key=lambda one: (not one.failed, _mean(one.gain(baseline))))


def _mean(d: Difference) -> float:
    return -np.inf if d.mean is None else d.mean
