"""The arithmetic of one guided step: one function per kernel, each with its plain-PyTorch reference.

Everything faster is tested against the functions of this module.  Half-precision input is accumulated in
float32, float64 input in float64 (for gradient checks).  The equations follow Li, Wu and Chen, IEEE TIP 2025
(arXiv 2402.13809); DDIM is Song, Meng and Ermon, ICLR 2021 (arXiv 2010.02502), equation 12 without noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_neuraldiffuser.core.backend import backend_info
from napari_neuraldiffuser.core.errors import UserError

__all__ = [
    "OpsError",
    "StepCoefficients",
    "backend_info",
    "cfg",
    "ddim_step",
    "feature_loss",
    "feature_loss_grad",
    "guided_step",
    "prepare_image",
    "step_coefficients",
]


class OpsError(UserError):
    """Tensors or coefficients do not fit together; the message names the one and the rule."""


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which `tensor` is computed with: float32, or float64 for float64 input."""
    if not tensor.is_floating_point():
        raise OpsError(f"tensor must be a floating-point tensor, got {tensor.dtype}. Use .float().")
    return torch.promote_types(tensor.dtype, torch.float32)


# ---- multi-layer feature loss -------------------------------------------------------------------


def feature_loss_grad(
    features: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Per-image weighted feature distance and its gradient with respect to every feature.

    L_b = sum_l w_bl mean((f_bl - g_bl)^2),   dL_b / df_bl = 2 w_bl (f_bl - g_bl) / n_l,

    with n_l the number of elements of layer l in one image.  An image's gradient depends on that image only.

    Parameters
    ----------
    features : sequence of Tensor, each (B, ...)
        Features f_l of the current image estimates, for instance (B, tokens, width).
    targets : sequence of Tensor, each (B, ...) or (1, ...)
        Decoded features g_l; a batch of 1 serves every image.
    weights : Tensor, (B, n_layers) or (1, n_layers)
        Layer weights w_bl.

    Returns
    -------
    loss : Tensor, (B,)
        In float32 (float64 for float64 features).
    grads : list of Tensor, each shaped like its feature, in the loss's dtype

    Raises
    ------
    OpsError
        If counts, shapes, devices or dtypes do not fit together.
    """
    _check_layers(features, targets, weights)
    batch, dtype = len(features[0]), accumulation_dtype(features[0])
    loss = torch.zeros(batch, dtype=dtype, device=features[0].device)
    grads = []
    for feature, target, weight in zip(features, targets, weights.to(dtype).unbind(1), strict=True):
        difference = feature.detach().to(dtype) - target.detach().to(dtype)
        per_image = difference.flatten(1)  # (B, n_l)
        loss += weight * per_image.square().mean(1)
        scale = (2.0 / per_image.shape[1]) * weight
        grads.append(difference * scale.view(-1, *[1] * (feature.ndim - 1)))
    return loss, grads


class _FeatureLoss(torch.autograd.Function):
    """`feature_loss_grad` under autograd: the gradient comes with the loss and is only scaled in backward."""

    @staticmethod
    def forward(ctx, targets, weights, *features):
        loss, grads = feature_loss_grad(features, targets, weights)
        ctx.save_for_backward(*grads)
        ctx.dtypes = [feature.dtype for feature in features]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        scaled = (g * upstream.view(-1, *[1] * (g.ndim - 1)) for g in ctx.saved_tensors)
        return None, None, *(g.to(dtype) for g, dtype in zip(scaled, ctx.dtypes, strict=True))


def feature_loss(features: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Per-image weighted feature distance, differentiable with respect to the features.

    The loss of `feature_loss_grad` (same arguments and errors).  Targets and weights are constants: one that
    requires a gradient is an error, because it would silently get none.

    Returns
    -------
    Tensor, (B,)
    """
    for name, tensor in [("weights", weights), *((f"targets[{i}]", t) for i, t in enumerate(targets))]:
        if tensor.requires_grad:
            raise OpsError(f"{name} must be a constant, got a tensor that requires a gradient. Detach it.")
    return _FeatureLoss.apply(tuple(targets), weights, *features)


def _check_layers(features, targets, weights) -> None:
    if not features:
        raise OpsError("features must be at least one layer, got none.")
    if len(targets) != len(features):
        raise OpsError(f"targets must be one per layer ({len(features)}), got {len(targets)}.")
    batch = len(features[0])
    if weights.ndim != 2 or weights.shape[1] != len(features) or weights.shape[0] not in (1, batch):
        raise OpsError(
            f"weights must be shaped ({batch} or 1, {len(features)}), got {tuple(weights.shape)}. "
            "Give one row for all images or one per image."
        )
    for i, (feature, target) in enumerate(zip(features, targets, strict=True)):
        _check_layer(i, feature, target, batch)


def _check_layer(i: int, feature: Tensor, target: Tensor, batch: int) -> None:
    if feature.ndim < 2 or len(feature) != batch or feature[0].numel() == 0:
        raise OpsError(f"features[{i}] must be ({batch}, ...) and not empty, got {tuple(feature.shape)}.")
    if target.shape[1:] != feature.shape[1:] or len(target) not in (1, batch):
        raise OpsError(
            f"targets[{i}] must be shaped ({batch} or 1, ...) like {tuple(feature.shape)}, got "
            f"{tuple(target.shape)}. Targets and features must come from the same model and layers."
        )
    if target.device != feature.device:
        raise OpsError(f"targets[{i}] must be on {feature.device} like the features, got {target.device}.")
    accumulation_dtype(feature)
    accumulation_dtype(target)


# ---- diffusion step -----------------------------------------------------------------------------


@dataclass(frozen=True)
class StepCoefficients:
    """Factors of the tensors that one guided DDIM step adds up, folded in double precision."""

    latents: float
    noise_uncond: float
    noise_cond: float
    gradient: float


def step_coefficients(
    abar: float, abar_prev: float, cfg_scale: float = 1.0, guidance_scale: float = 0.0
) -> StepCoefficients:
    """Fold classifier-free guidance, feature guidance and the DDIM update into one linear combination.

    eps = eps_u + s (eps_c - eps_u) + sqrt(1 - abar) kappa A
    z_prev = sqrt(abar_prev / abar) z + e eps,   e = sqrt(1 - abar_prev) - sqrt(abar_prev (1 - abar) / abar)

    Parameters
    ----------
    abar, abar_prev : float
        Cumulative noise schedule at this and at the next executed timestep, in (0, 1].
    cfg_scale : float
        Classifier-free guidance scale s.
    guidance_scale : float
        Weight kappa of the feature gradient A = dL / dz.

    Raises
    ------
    OpsError
        If the schedule leaves (0, 1] or a scale is not finite.
    """
    abar, abar_prev = _schedule("abar", abar), _schedule("abar_prev", abar_prev)
    for name, scale in (("cfg_scale", cfg_scale), ("guidance_scale", guidance_scale)):
        if not math.isfinite(scale):
            raise OpsError(f"{name} must be a finite number, got {scale}.")
    noise = math.sqrt(1 - abar_prev) - math.sqrt(abar_prev * (1 - abar) / abar)
    return StepCoefficients(
        latents=math.sqrt(abar_prev / abar),
        noise_uncond=noise * (1 - cfg_scale),
        noise_cond=noise * cfg_scale,
        gradient=noise * math.sqrt(1 - abar) * guidance_scale,
    )


def _schedule(name: str, value: float) -> float:
    value = float(value)
    if not 0 < value <= 1:
        raise OpsError(f"{name} must be in (0, 1], got {value}. Pass values of alphas_cumprod.")
    return value


def guided_step(
    latents: Tensor,
    noise_uncond: Tensor,
    noise_cond: Tensor,
    gradient: Tensor | None,
    coefficients: StepCoefficients,
) -> Tensor:
    """One guided DDIM step as a single linear combination of up to four tensors.

    z_prev = c_z z + c_u eps_u + c_c eps_c + c_g A

    Parameters
    ----------
    latents, noise_uncond, noise_cond : Tensor, (B, 4, h, w)
        z_t and the two noise predictions; their dtypes may differ.
    gradient : Tensor, (B, 4, h, w), or None
        Gradient A of the feature loss with respect to z_t; None in an unguided step.
    coefficients : StepCoefficients
        From `step_coefficients`.

    Returns
    -------
    Tensor, (B, 4, h, w)
        z_{t-1} in the latents' dtype, summed in at least float32.
    """
    terms = [(coefficients.noise_uncond, noise_uncond), (coefficients.noise_cond, noise_cond)]
    if gradient is not None:
        terms.append((coefficients.gradient, gradient))
    return _combine(latents, coefficients.latents, terms)


def _combine(latents: Tensor, factor: float, terms: list[tuple[float, Tensor]]) -> Tensor:
    dtype = accumulation_dtype(latents)
    total = latents.to(dtype) * factor
    for coefficient, tensor in terms:
        if tensor.shape != latents.shape:
            raise OpsError(
                f"every tensor of a step must be shaped {tuple(latents.shape)}, got {tuple(tensor.shape)}."
            )
        total = total + tensor.to(dtype) * coefficient
    return total.to(latents.dtype)


def cfg(noise_uncond: Tensor, noise_cond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, eps_u + s (eps_c - eps_u) (Ho and Salimans 2022, arXiv 2207.12598)."""
    return noise_uncond + scale * (noise_cond - noise_uncond)


def ddim_step(latents: Tensor, noise: Tensor, abar: float, abar_prev: float) -> Tensor:
    """The deterministic DDIM update, sqrt(abar_prev) x0 + sqrt(1 - abar_prev) eps.

    x0 = (z - sqrt(1 - abar) eps) / sqrt(abar) is folded in, so that two tensors are read once.

    Parameters
    ----------
    latents, noise : Tensor, (B, 4, h, w)
        z_t and the (guided) noise prediction eps.
    abar, abar_prev : float
        Cumulative noise schedule at this and at the next executed timestep, in (0, 1].

    Returns
    -------
    Tensor, (B, 4, h, w), in the latents' dtype
    """
    coefficients = step_coefficients(abar, abar_prev)
    return _combine(latents, coefficients.latents, [(coefficients.noise_cond, noise)])


# ---- image for the guide network ----------------------------------------------------------------


def prepare_image(
    image: Tensor, size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Decoder output to guide-network input: clamp((image + 1) / 2, 0, 1), resize, (x - mean) / std.

    Parameters
    ----------
    image : Tensor, (B, 3, H, W)
        In the VAE decoder's range [-1, 1].
    size : int
        Side of the guide network's input in pixels; the resize is bilinear and antialiased.
    mean, std : tuple of 3 floats
        Channel statistics in the range [0, 1].

    Returns
    -------
    Tensor, (B, 3, size, size), in the image's dtype

    Raises
    ------
    OpsError
        If the image is not (B, 3, H, W), the size is not positive or a statistic is not usable.
    """
    _check_image(image, size, mean, std)
    dtype = accumulation_dtype(image)  # the antialiased resize has no bfloat16 on CPUs
    image01 = (image.to(dtype) * 0.5 + 0.5).clamp(0, 1)
    if image.shape[-2:] != (size, size):
        image01 = F.interpolate(image01, (size, size), mode="bilinear", antialias=True, align_corners=False)
    shift, scale = (image01.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return ((image01 - shift) / scale).to(image.dtype)


def _check_image(image, size, mean, std) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise OpsError(f"image must be shaped (B, 3, H, W), got {tuple(image.shape)}.")
    if size < 1:
        raise OpsError(f"size must be at least 1 pixel, got {size}.")
    if len(mean) != 3 or not all(map(math.isfinite, mean)):
        raise OpsError(f"mean must be 3 finite numbers, got {mean}.")
    if len(std) != 3 or not all(math.isfinite(s) and s > 0 for s in std):
        raise OpsError(f"std must be 3 numbers above 0, got {std}.")
