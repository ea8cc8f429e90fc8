"""Guidance: a wrapper around a denoiser that pulls it toward the decoded features g (method.md eq. 29-35).

    loop  ->  Guided( SelfAttentionGuided( ClassifierFree( UNet ) ) )

A rule says where the gradient enters; `base.registry.GUIDANCE_RULES` maps `GuidanceParams.rule` to a function, so that
another rule is one function more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from napari_neuraldiffuser.core.base.registry import GUIDANCE_RULES
from napari_neuraldiffuser.core.diffusion.loop import Denoiser, Prediction, Step
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.params import GuidanceParams


@dataclass(frozen=True)
class Pull:
    """What a critic says of a batch.

    Attributes
    ----------
    loss : Tensor (B,)
    gradient : Tensor (B, 4, h, w)
        `scale` times the gradient of each image's loss with respect to its z_t.
    scale : float
        Power of two that keeps the gradient from underflow in half precision.
    """

    loss: torch.Tensor
    gradient: torch.Tensor
    scale: float = 1.0


Critic = Callable[[torch.Tensor, torch.Tensor], Pull]
"""Judges clean latents (B, 4, h, w) that were computed from z_t, the leaf (B, 4, h, w)."""

Rule = Callable[[Prediction, Pull, Step, GuidanceParams], Prediction]
"""The prediction with the pull in it."""


@dataclass(frozen=True)
class FeatureCritic:
    """Feature loss of decoded latents against the target features g.

    L_b = sum_l w_bl mean((f_bl - g_bl)^2) (method.md eq. 33) with the weights w of `layer_loss_weights`.

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

    models: Models
    targets: Sequence[torch.Tensor]
    layers: Sequence[str]
    layer_weights: Sequence[float]
    feature_normalisation: str = "imagenet"

    def __call__(self, clean: torch.Tensor, leaf: torch.Tensor) -> Pull:
        features = self.features(clean)
        weights = layer_loss_weights(self.targets, self.layer_weights)
        scale = ops.gradient_scale(features[0].dtype, max(f[0].numel() for f in features))
        with torch.no_grad():
            loss, grads = ops.feature_loss_grad(features, list(self.targets), weights, scale)
        # the loss is per image, so the gradient of one image does not depend on the others
        (gradient,) = torch.autograd.grad(features, leaf, grads)
        return Pull(loss, gradient, scale)

    def features(self, clean: torch.Tensor) -> list[torch.Tensor]:
        """Features of each layer, (B, tokens, width), of what clean latents decode to (method.md eq. 31)."""
        mean, std = self.models.normalisation(self.feature_normalisation)
        image = self.models.decode_latents(clean)
        pixels = ops.prepare_image(image, self.models.guide_size(), mean, std)
        return self.models.features(pixels, self.layers)


def layer_loss_weights(targets: Sequence[torch.Tensor], layer_weights: Sequence[float]) -> torch.Tensor:
    """Weights w (B, L) of the layer losses: a_l times the normalised inverse norms of the targets (method.md eq. 32).

    In float32 at least: the norm of a layer does not fit float16.
    """
    dtype = torch.promote_types(targets[0].dtype, torch.float32)
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=dtype) for g in targets]
    inverse = 1 / torch.stack(norms, dim=1)
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
            clean = clean_estimate(leaf, prediction.noise_cond, step, self.params)
            pull = self.critic(clean, leaf)
        detached = prediction.but(latents=latents, noise_cond=prediction.noise_cond.detach(), loss=pull.loss.float())
        rule: Rule = GUIDANCE_RULES[self.params.rule]
        return rule(detached, pull, step, self.params)


def n_guided_steps(n_steps: int, params: GuidanceParams) -> int:
    """`int(eta * executed steps)` (24 of 37 at the defaults); none when kappa is 0 (method.md eq. 29)."""
    return int(n_steps * params.guidance_strength) if params.guidance_scale > 0 else 0


def clean_estimate(latents: torch.Tensor, noise: torch.Tensor, step: Step, params: GuidanceParams) -> torch.Tensor:
    """The latents that the critic sees: x0, blended with z_t if `x0_blend` (method.md eq. 30)."""
    of_latents, of_noise = step.clean_factors(published=params.x0_estimate == "published")
    if params.x0_blend:
        sigma = (1 - step.abar) ** 0.5
        of_latents, of_noise = sigma * of_latents + (1 - sigma), sigma * of_noise
    return ops.guided_step([latents, noise], [of_latents, of_noise])


def noise_rule(prediction: Prediction, pull: Pull, step: Step, params: GuidanceParams) -> Prediction:
    """eps += sqrt(1-abar) kappa gradient, or kappa times the rms of (eps_c - eps_u) (method.md eq. 34-35)."""
    if params.normalise == "rms":
        spread, size = rms(prediction.noise_cond - prediction.noise_uncond), rms(pull.gradient)
        # no gradient, no pull; where something overflowed, the tensors themselves carry it on
        coefficient = (params.guidance_scale * spread / size).nan_to_num(0, 0, 0)
    else:
        coefficient = (1 - step.abar) ** 0.5 * params.guidance_scale / pull.scale
    return prediction.but(pull=((coefficient, pull.gradient),))


def rms(values: torch.Tensor) -> torch.Tensor:
    """Root mean square per image, (B,) float64."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    norm = torch.linalg.vector_norm(values.flatten(1), dim=1, dtype=dtype)
    return norm.double() / values[0].numel() ** 0.5
