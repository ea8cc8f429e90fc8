"""Guidance: a wrapper around a denoiser that pulls it toward the decoded features g (METHOD: one step, 2).

    loop  ->  Guided( SelfAttentionGuided( ClassifierFree( UNet ) ) )

A rule says where the gradient enters; `RULES` maps `GuidanceParams.rule` to a function, so that the other members of
the family (METHOD: the family of guidance rules) are one function each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from . import ops
from .diffusion import Denoiser, Prediction, Step
from .params import PRESETS, DiffusionParams, GuidanceParams, ParamError


class Critic(Protocol):
    """Clean latents (B, 4, h, w) to a loss per image (B,), differentiable."""

    def __call__(self, latents: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class FeatureCritic:
    """Feature loss of decoded latents against the target features g.

    L_b = sum_l w_bl mean((f_bl - g_bl)^2) with w_bl = a_l (1/|g_bl|) / sum_k (1/|g_bk|).

    Attributes
    ----------
    models : Models
    targets : list of Tensor (B, tokens, width)
        Decoded features of each layer in `layers`.
    layers : sequence of str
    layer_weights : sequence of float
        a_l.
    feature_normalisation : str
        The one that the targets were computed with.
    """

    models: Any
    targets: Sequence[torch.Tensor]
    layers: Sequence[str]
    layer_weights: Sequence[float]
    feature_normalisation: str = "imagenet"

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self.models.normalisation(self.feature_normalisation)
        image = self.models.decode_latents(latents)
        pixels = ops.prepare_image(image, self.models.guide_size(), mean, std)
        features = self.models.features(pixels, self.layers)
        return ops.feature_loss(features, list(self.targets), layer_loss_weights(self.targets, self.layer_weights))


def layer_loss_weights(targets: Sequence[torch.Tensor], layer_weights: Sequence[float]) -> torch.Tensor:
    """Weights w (B, L) of the layer losses: a_l times the normalised inverse norms of the targets, per image."""
    inverse = torch.stack([1 / g.flatten(1).norm(dim=1) for g in targets], dim=1)
    return inverse / inverse.sum(dim=1, keepdim=True) * inverse.new_tensor(layer_weights)


@dataclass(frozen=True)
class Guided:
    """Denoiser that adds the feature gradient in the first `guidance_strength` of the executed steps."""

    denoiser: Denoiser
    critic: Critic
    params: GuidanceParams

    def __call__(self, latents: torch.Tensor, step: Step) -> Prediction:
        if step.index >= n_guided_steps(step.n_steps, self.params):
            return self.denoiser(latents, step)
        with torch.enable_grad():
            leaf = latents.detach().requires_grad_()
            prediction = self.denoiser(leaf, step)
            loss = self.critic(clean_estimate(leaf, prediction.noise_cond, step, self.params))
            # the loss is per image, so the gradient of one image does not depend on the others
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        detached = prediction.but(
            latents=latents, noise_cond=prediction.noise_cond.detach(), loss=loss.detach().float()
        )
        return RULES[self.params.rule](detached, gradient, step, self.params)


def n_guided_steps(n_steps: int, params: GuidanceParams) -> int:
    """`int(eta * executed steps)` (7 of 37 at the defaults); none when kappa is 0."""
    return int(n_steps * params.guidance_strength) if params.guidance_scale > 0 else 0


def clean_estimate(latents: torch.Tensor, noise: torch.Tensor, step: Step, params: GuidanceParams) -> torch.Tensor:
    """The latents that the critic sees: x0 from the noise prediction, blended with z_t if `x0_blend`.

    x0 = (z_t - sqrt(1-abar) eps) / sqrt(abar); the published code has (1-abar) in place of its root.
    """
    sigma = (1 - step.abar) ** 0.5
    factor = sigma if params.x0_estimate == "exact" else sigma**2
    x0 = (latents - factor * noise) / step.abar**0.5
    return sigma * x0 + (1 - sigma) * latents if params.x0_blend else x0


def noise_rule(prediction: Prediction, gradient: torch.Tensor, step: Step, params: GuidanceParams) -> Prediction:
    """eps += sqrt(1-abar) kappa gradient, or scaled to kappa times the rms of (eps_c - eps_u)."""
    term = (1 - step.abar) ** 0.5 * gradient
    if params.normalise == "rms":
        term = term * (rms(prediction.noise_cond - prediction.noise_uncond) / rms(term))
    return prediction.but(noise=prediction.noise + params.guidance_scale * term)


def rms(values: torch.Tensor) -> torch.Tensor:
    """Root mean square per image, shape (B, 1, 1, 1); never zero, so that it can divide."""
    tiny = torch.finfo(values.dtype).tiny
    return values.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(tiny)


RULES: dict[str, Callable[[Prediction, torch.Tensor, Step, GuidanceParams], Prediction]] = {"noise": noise_rule}


def preset(name: str, diffusion: DiffusionParams | None = None) -> tuple[DiffusionParams, GuidanceParams]:
    """Diffusion and guidance parameters of a named preset; `diffusion` supplies what the preset leaves open.

    Raises
    ------
    ParamError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ParamError(f"guidance preset must be one of {sorted(PRESETS)}, got {name!r}.")
    changes = PRESETS[name]
    base = diffusion or DiffusionParams()
    return base.but(**changes["diffusion"]), GuidanceParams(**changes["guidance"])
