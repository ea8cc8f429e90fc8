"""The operations in plain PyTorch: what the compiled kernels are tested against, and what runs where there are none.

Half-precision input is accumulated in float32, float64 input in float64.  The arguments are those of the functions of
the same names in `ops`, which has them checked first.  The compiled kernels make the same checks themselves, in the
same words (csrc/checks.h), so that a call through them is not checked twice.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_neuraldiffuser.core.base.errors import UserError

MAX_LAYERS, MAX_TERMS = 24, 6
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class OpsError(UserError):
    """Tensors or coefficients do not fit together; the message names the one and the rule."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which `dtype` is computed with: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_constants(where: str, **tensors: Tensor | Sequence[Tensor]) -> None:
    """Raise OpsError where a gradient is expected that the operation does not give."""
    for name, value in tensors.items():
        for tensor in (value,) if isinstance(value, Tensor) else value:
            if tensor.requires_grad:
                raise OpsError(
                    f"{name} must be constant in {where}, got a tensor that requires a gradient. "
                    "Detach it or call requires_grad_(False)."
                )


def check_floating(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in DTYPES:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise OpsError(
            f"{name} must be float32, bfloat16, float16 or float64, got {kind}. Convert it with .to(torch.float32)."
        )


def check_layers(features: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor, grad_scale: float) -> None:
    if not features:
        raise OpsError("features must be at least one layer, got none.")
    if len(features) > MAX_LAYERS:
        raise OpsError(f"features must be at most {MAX_LAYERS} layers, got {len(features)}.")
    if len(targets) != len(features):
        raise OpsError(f"targets must be one per layer ({len(features)}), got {len(targets)}.")
    if features[0].ndim < 2:
        raise OpsError(f"features[0] must be (batch, ...), got {tuple(features[0].shape)}.")
    for i, (feature, target) in enumerate(zip(features, targets, strict=True)):
        _check_layer(i, feature, target, features[0])
    batch, n = len(features[0]), len(features)
    check_floating(weights, "weights")
    _check_device(weights, features[0], "weights", "the features")
    if weights.ndim != 2 or weights.shape[1] != n or weights.shape[0] not in (1, batch):
        raise OpsError(
            f"weights must be shaped ({batch} or 1, {n}), got {tuple(weights.shape)}. "
            "Give one row for all images or one per image."
        )
    if not (math.isfinite(grad_scale) and grad_scale > 0 and math.frexp(grad_scale)[0] == 0.5):
        raise OpsError(f"grad_scale must be a power of two above 0, got {grad_scale}. Others would round the gradient.")


def _check_layer(i: int, feature: Tensor, target: Tensor, first: Tensor) -> None:
    check_floating(feature, f"features[{i}]")
    check_floating(target, f"targets[{i}]")
    if feature.dtype != first.dtype:
        raise OpsError(f"features[{i}] must have the dtype of features[0]. Convert it.")
    _check_device(feature, first, f"features[{i}]", "features[0]")
    _check_device(target, first, f"targets[{i}]", "the features")
    if feature.ndim < 2 or len(feature) != len(first) or feature.numel() == 0:
        raise OpsError(f"features[{i}] must be ({len(first)}, ...) and not empty, got {tuple(feature.shape)}.")
    if target.shape[1:] != feature.shape[1:] or len(target) not in (1, len(feature)):
        raise OpsError(
            f"targets[{i}] must be shaped ({len(feature)} or 1, ...) like {tuple(feature.shape)}, got "
            f"{tuple(target.shape)}. Targets and features must come from the same model and layers."
        )


def _check_device(tensor: Tensor, like: Tensor, name: str, whom: str) -> None:
    if tensor.device != like.device:
        raise OpsError(f"{name} must be on {like.device} like {whom}, got {tensor.device}.")


def check_terms(terms: Sequence[Tensor]) -> None:
    if not 1 <= len(terms) <= MAX_TERMS:
        raise OpsError(f"terms must be 1 to {MAX_TERMS} tensors, got {len(terms)}.")
    first = terms[0]
    for i, term in enumerate(terms):
        check_floating(term, f"terms[{i}]")
        _check_device(term, first, f"terms[{i}]", "terms[0]")
        if term.shape != first.shape:
            raise OpsError(f"terms[{i}] must be shaped {tuple(first.shape)}, got {tuple(term.shape)}.")
        if (term.dtype == torch.float64) != (first.dtype == torch.float64):
            raise OpsError(f"terms[{i}] must be float64 if and only if terms[0] is. Convert one of them.")


def check_coefficients(terms: Sequence[Tensor], coefficients: Sequence[float]) -> None:
    check_terms(terms)
    if len(coefficients) != len(terms):
        raise OpsError(f"coefficients must be one per term ({len(terms)}), got {len(coefficients)}.")
    for i, value in enumerate(coefficients):
        if not math.isfinite(value):
            raise OpsError(f"coefficients[{i}] must be a finite number, got {value}.")


def check_table(terms: Sequence[Tensor], table: Tensor) -> None:
    check_terms(terms)
    first = terms[0]
    if first.ndim == 0:
        raise OpsError("terms[0] must be (batch, ...) when a table is used, got a single number.")
    if table.dtype != torch.float64:
        raise OpsError("table must be float64, so that folded coefficients keep their digits.")
    if table.ndim != 2 or table.shape[0] not in (1, len(first)) or table.shape[1] != len(terms):
        raise OpsError(f"table must be shaped ({len(first)} or 1, {len(terms)}), got {tuple(table.shape)}.")
    _check_device(table, first, "table", "the terms")
    # reading it on a GPU would wait for the GPU, and a traced graph has no values to read
    if table.is_cpu and not torch.compiler.is_compiling():
        broken = table[~torch.isfinite(table)]
        if len(broken):
            raise OpsError(f"table must hold finite numbers, got {broken[0].item()}.")


def check_image(image: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    check_floating(image, "image")
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape[2:]:
        raise OpsError(f"image must be shaped (B, 3, H, W), got {tuple(image.shape)}.")
    if size < 1:
        raise OpsError(f"size must be at least 1 pixel, got {size}.")
    for name, values, rule in (("mean", mean, "finite numbers"), ("std", std, "numbers above 0")):
        if len(values) != 3:
            raise OpsError(f"{name} must be 3 numbers, got {len(values)}.")
        for value in values:
            if not math.isfinite(value) or (name == "std" and value <= 0):
                raise OpsError(f"{name} must be 3 {rule}, got {value}.")


def check_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> None:
    check_floating(x, "x")
    if not 2 <= x.ndim <= 5:
        raise OpsError(f"x must be (batch, channels, ...) with 2 to 5 dimensions, got {tuple(x.shape)}.")
    channels = x.shape[1]
    if groups < 1 or channels == 0 or channels % groups:
        raise OpsError(f"groups must divide the {channels} channels, got {groups}.")
    if len(x) and x.numel() == 0:
        raise OpsError(f"x must have at least one element per channel, got {tuple(x.shape)}.")
    for name, tensor in (("weight", weight), ("bias", bias)):
        check_floating(tensor, name)
        _check_device(tensor, x, name, "x")
        if tensor.shape != (channels,):
            raise OpsError(f"{name} must be shaped ({channels}), got {tuple(tensor.shape)}.")
    if not (math.isfinite(eps) and eps >= 0):
        raise OpsError(f"eps must be a finite number of at least 0, got {eps}.")


def feature_loss_grad(
    features: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor, grad_scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """Loss per image, and its gradient for every feature times grad_scale (method.md eq. 33)."""
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


def prepare_image(
    image: Tensor, size: int, mean: Sequence[float], std: Sequence[float], antialias: bool = True
) -> Tensor:
    """(resize(clamp((image + 1) / 2, 0, 1)) - mean) / std, bilinear (method.md eq. 31)."""
    dtype = accumulation_dtype(image.dtype)  # the antialiased resize has no bfloat16 on CPUs
    image01 = (image.to(dtype) * 0.5 + 0.5).clamp(0, 1)
    if image.shape[-2:] != (size, size):
        image01 = F.interpolate(image01, (size, size), mode="bilinear", antialias=antialias, align_corners=False)
    shift, scale = (image01.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return ((image01 - shift) / scale).to(image.dtype).contiguous()


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """GroupNorm (Wu and He 2018), then SiLU."""
    normalised = F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
    return F.silu(normalised) if silu else normalised
