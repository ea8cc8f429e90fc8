"""The operations in plain PyTorch: what the compiled kernels are tested against, and what runs where there are none.

Half-precision input is accumulated in float32, float64 input in float64.  The arguments are those of the functions of
the same names in `ops`, which check them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_neuraldiffuser.core.networks.kernels.checks import accumulation_dtype


def feature_loss_grad(
    features: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor, grad_scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """Loss per image, and its gradient for every feature times grad_scale (method.md eq. 26)."""
    dtype = accumulation_dtype(features[0].dtype)
    loss = torch.zeros(len(features[0]), dtype=dtype, device=features[0].device)
    grads = []
    for feature, target, weight in zip(features, targets, weights.unbind(1), strict=True):
        difference = feature.to(dtype) - target.to(dtype)
        per_image = difference.flatten(1)  # (B, n_l)
        loss = loss + weight.to(dtype) * per_image.square().mean(1)
        factor = (weight.double() * (2 * grad_scale / per_image.shape[1])).to(dtype)
        grad = difference.detach() * _per_image(factor, feature)
        grads.append(grad.to(feature.dtype).contiguous())
    return loss, grads


def guided_step(terms: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """sum_i c_i t_i in the first term's dtype."""
    dtype = accumulation_dtype(terms[0].dtype)
    total = terms[0].to(dtype) * coefficients[0]
    for coefficient, term in zip(coefficients[1:], terms[1:], strict=True):
        total = total + term.to(dtype) * coefficient
    return total.to(terms[0].dtype)


def guided_step_table(terms: Sequence[Tensor], table: Tensor) -> Tensor:
    """sum_i c_bi t_i with c = table."""
    dtype = accumulation_dtype(terms[0].dtype)
    total = torch.zeros((), dtype=dtype, device=terms[0].device)
    for coefficient, term in zip(table_columns(table, terms[0]), terms, strict=True):
        total = total + term.to(dtype) * coefficient
    return total.to(terms[0].dtype)


def table_columns(table: Tensor, like: Tensor) -> list[Tensor]:
    """Coefficients of each term, (B or 1, 1, ...), in the dtype in which `like` is computed with."""
    return [_per_image(c.to(accumulation_dtype(like.dtype)), like) for c in table.unbind(1)]


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) to (B, 1, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def prepare_image(image: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(resize(clamp((image + 1) / 2, 0, 1)) - mean) / std, antialiased bilinear (method.md eq. 24)."""
    dtype = accumulation_dtype(image.dtype)  # the antialiased resize has no bfloat16 on CPUs
    image01 = (image.to(dtype) * 0.5 + 0.5).clamp(0, 1)
    if image.shape[-2:] != (size, size):
        image01 = F.interpolate(image01, (size, size), mode="bilinear", antialias=True, align_corners=False)
    shift, scale = (image01.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return ((image01 - shift) / scale).to(image.dtype).contiguous()


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """GroupNorm (Wu and He 2018), then SiLU."""
    normalised = F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
    return F.silu(normalised) if silu else normalised
