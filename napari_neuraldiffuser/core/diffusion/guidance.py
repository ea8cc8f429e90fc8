"""Guidance: a wrapper around a denoiser that pulls it toward the decoded features g (method.md eq. 29-35).

    loop  ->  Guided( SelfAttentionGuided( ClassifierFree( UNet ) ) )

The engine of all rules: it asks the critic for gradients, by z_t through the UNet or by the clean estimate alone, and a
rule of rules.py says where they enter the step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from napari_neuraldiffuser.core.base.fields import that_matter
from napari_neuraldiffuser.core.base.registry import GUIDANCE_RULES
from napari_neuraldiffuser.core.diffusion import rules
from napari_neuraldiffuser.core.diffusion.critic import Critic, Pull
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.loop import Denoiser, Prediction, Step, add_noise, combine, ddim_step
from napari_neuraldiffuser.core.diffusion.rules import Rule, n_guided_steps
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.params import GuidanceParams


@dataclass
class Guided:
    """Denoiser with a guidance rule in the first `guidance_strength` of the executed steps.

    One of its own for every batch: it keeps the last pull for steps that take no fresh gradient (`guide_every`).

    Attributes
    ----------
    denoiser : Denoiser
    critic : Critic
    params : GuidanceParams
    draws : Draws
        Noise of rules that need some.
    """

    denoiser: Denoiser
    critic: Critic
    params: GuidanceParams
    draws: Draws
    _kept: Pull | None = field(default=None, init=False, repr=False)

    @property
    def rule(self) -> Rule:
        rule: Rule = GUIDANCE_RULES[self.params.rule]
        return rule

    def __call__(self, latents: torch.Tensor, step: Step) -> Prediction:
        if step.index >= n_guided_steps(step.n_steps, self.params):
            return self.denoiser(latents, step)
        if self._kept is not None and step.index % self.params.guide_every:
            return self.rule.update(self.denoiser(latents, step), self._kept, step, self.params)
        again = n_rounds(self.params) - 1
        for round_ in range(again):
            earlier = ddim_step(self._guide(latents, step, round_), step)
            noise = self.draws(earlier, step, round_, 0)
            latents = add_noise(earlier, noise, step.abar / step.abar_prev)
        return self._guide(latents, step, again)

    def _guide(self, latents: torch.Tensor, step: Step, round_: int) -> Prediction:
        """The prediction with a fresh pull in it."""
        through = self.rule.through and that_matter(self.params).get("gradient", "through") == "through"
        with torch.set_grad_enabled(through):
            leaf = latents.detach().requires_grad_(through)
            found = self.denoiser(leaf, step)
            clean = clean_estimate(leaf, found.noise_cond, step, self.params)
        prediction = found.but(latents=latents, noise_cond=found.noise_cond.detach())
        judged = self._judge(clean.detach(), step, round_)
        correction = self._descend(clean.detach(), judged, prediction, step, round_)
        # a chain: the critic's graph is gone before the UNet's is walked back
        gradient = (
            torch.autograd.grad(clean, leaf, judged.gradient)[0]
            if through
            else judged.gradient * estimate_factors(step, self.params)[0]
        )
        self._kept = Pull(judged.loss, gradient, judged.scale, correction)
        guided = self.rule.update(prediction, self._kept, step, self.params)
        return guided.but(loss=judged.loss.float())

    def _judge(self, clean: torch.Tensor, step: Step, round_: int) -> Pull:
        """What the critic says of clean latents, or of noisy copies of them together."""
        return together([self.critic(copy) for copy in self._copies(clean, step, round_)])

    def _copies(self, clean: torch.Tensor, step: Step, round_: int) -> Iterator[torch.Tensor]:
        """x0 + gamma sqrt(1-abar) noise, as many times as the rule says, or x0 itself."""
        options = that_matter(self.params)
        size = options.get("copies_noise", 0.0) * (1 - step.abar) ** 0.5
        if size == 0:
            yield clean
            return
        for copy in range(1, options["guidance_copies"] + 1):
            yield combine([(1.0, clean), (size, self.draws(clean, step, round_, copy))])

    def _descend(
        self, clean: torch.Tensor, judged: Pull, prediction: Prediction, step: Step, round_: int
    ) -> torch.Tensor:
        """Correction of x0 by steps along its own gradient, D -= mu grad L(x0 + D), from D = 0 (method.md eq. 71)."""
        if not self.rule.leaf:
            return torch.empty(0)
        share = estimate_factors(step, self.params)[2]
        correction = torch.zeros_like(clean)
        for k in range(rules.leaf_steps(self.params)):
            if k > 0:
                judged = self._judge(combine([(1.0, clean), (share, correction)]), step, round_)
            size = rules.leaf_step(self.rule, prediction, judged, step, self.params)
            correction = combine([(1.0, correction), (-share * size, judged.gradient)])
        return correction


def together(pulls: list[Pull]) -> Pull:
    """The pull of -log of the mean over copies of exp(-L): their gradients, weighted by softmax(-L).

    That is how LGD-MC (method.md eq. 73) and TFG average; copies whose losses hardly differ have equal weights.
    """
    if len(pulls) == 1:
        return pulls[0]
    losses = torch.stack([pull.loss.double() for pull in pulls])  # (copies, B)
    weights = torch.softmax(-losses, dim=0)
    gradient = torch.zeros_like(pulls[0].gradient, dtype=torch.promote_types(pulls[0].gradient.dtype, torch.float32))
    for weight, pull in zip(weights, pulls, strict=True):
        gradient += weight.view(-1, 1, 1, 1).to(gradient) * pull.gradient
    loss = torch.tensor(len(pulls)).log() - torch.logsumexp(-losses, dim=0)
    return Pull(loss.to(pulls[0].loss), gradient.to(pulls[0].gradient), pulls[0].scale)


def n_rounds(params: GuidanceParams) -> int:
    """How often a guided step with a fresh gradient is taken."""
    return int(that_matter(params).get("recurrence", 1))


def n_gradients(n_steps: int, params: GuidanceParams) -> int:
    """UNet predictions of one image that a fresh gradient is taken at, of so many executed steps."""
    return -(-n_guided_steps(n_steps, params) // params.guide_every) * n_rounds(params)


def estimate_factors(step: Step, params: GuidanceParams) -> tuple[float, float, float]:
    """What z_t, the noise and x0 are multiplied by in the latents that the critic sees (method.md eq. 30)."""
    of_latents, of_noise = step.clean_factors(published=params.x0_estimate == "published")
    if not params.x0_blend:
        return of_latents, of_noise, 1.0
    sigma = (1 - step.abar) ** 0.5
    return sigma * of_latents + (1 - sigma), sigma * of_noise, sigma


def clean_estimate(latents: torch.Tensor, noise: torch.Tensor, step: Step, params: GuidanceParams) -> torch.Tensor:
    """The latents that the critic sees: x0, blended with z_t if `x0_blend` (method.md eq. 30)."""
    return ops.guided_step([latents, noise], estimate_factors(step, params)[:2])
