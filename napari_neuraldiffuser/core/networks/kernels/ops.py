"""The arithmetic of one guided step, one function per operation: compiled kernels where there are any, else PyTorch.

`backend` decides for the device of the tensors, `reference` has the same operations in plain PyTorch, and everything
faster is tested against those.  Half-precision input is accumulated in float32, float64 input in float64 (for gradient
checks).  The equations follow Li, Wu and Chen, IEEE TIP 2025 (arXiv 2402.13809); DDIM is Song, Meng and Ermon, ICLR
2021 (arXiv 2010.02502), equation 12 without noise.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from napari_neuraldiffuser.core.networks.kernels import backend, reference
from napari_neuraldiffuser.core.networks.kernels import registration as kernels
from napari_neuraldiffuser.core.networks.kernels.backend import backend_info
from napari_neuraldiffuser.core.networks.kernels.reference import OpsError

__all__ = [
    "OpsError",
    "backend_info",
    "feature_loss_grad",
    "gradient_scale",
    "group_norm_silu",
    "guided_step",
    "guided_step_table",
    "kernels_run",
    "prepare_image",
    "reference",
    "step_coefficients",
]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _compiled(device: str) -> bool:
    return backend.kernels_for(torch.device(device)) is not None


def kernels_run(tensor: Tensor) -> bool:
    """Whether the compiled kernels run for this tensor; what torch.compile traces keeps the answer of its tracing."""
    if torch.compiler.is_compiling():
        return _compiled(str(tensor.device))
    if tensor.is_cpu and backend.ready_on_cpu():
        return True
    return backend.kernels_for(tensor.device) is not None


def feature_loss_grad(
    features: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor, grad_scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """Per-image weighted feature distance and its gradient with respect to every feature (method.md eq. 33).

    L_b = sum_l w_bl mean((f_bl - g_bl)^2),   dL_b / df_bl = 2 w_bl (f_bl - g_bl) / n_l,

    with n_l the number of elements of layer l in one image.  An image's gradient depends on that image only.  The loss
    is differentiable in the features, once; the gradients are constants.

    Parameters
    ----------
    features : sequence of Tensor, each (B, ...)
        Features f_l of the current image estimates, for instance (B, tokens, width), at most 24 layers of one dtype.
    targets : sequence of Tensor, each (B, ...) or (1, ...)
        Decoded features g_l; a batch of 1 serves every image.
    weights : Tensor, (B, n_layers) or (1, n_layers)
        Layer weights w_bl.
    grad_scale : float
        Power of two that the gradients are multiplied by, see `gradient_scale`; the loss is not.

    Returns
    -------
    loss : Tensor, (B,)
        In float32 (float64 for float64 features).
    grads : list of Tensor, each shaped like its feature and in its dtype, contiguous

    Raises
    ------
    OpsError
        If counts, shapes, devices or dtypes do not fit together, or a target or weight requires a gradient.
    """
    reference.check_constants("the feature loss", targets=targets, weights=weights)
    if features and kernels_run(features[0]):
        operation = torch.ops.neuraldiffuser.feature_loss_grad.default
        return kernels.call(operation, features, list(features), list(targets), weights, grad_scale)
    reference.check_layers(features, targets, weights, grad_scale)
    return reference.feature_loss_grad(features, targets, weights, grad_scale)


def gradient_scale(dtype: torch.dtype, numel: int) -> float:
    """Power of two that keeps a feature gradient from underflow: 1 unless `dtype` is float16.

    The gradient of a mean over n elements is of the order of 1/n, where float16 has few digits left or none; the
    scale is the largest power of two up to n.  The one who uses the gradient divides by it again.

    Parameters
    ----------
    dtype : torch.dtype
        Of the features.
    numel : int
        Elements n of one image's layer.
    """
    return 2.0 ** (int(numel).bit_length() - 1) if dtype == torch.float16 else 1.0


def step_coefficients(abar: float, abar_prev: float) -> tuple[float, float]:
    """What one DDIM step multiplies the latents and the noise by, folded in double precision (method.md eq. 36).

    z_prev = sqrt(abar_prev / abar) z + e eps,   e = sqrt(1 - abar_prev) - sqrt(abar_prev (1 - abar) / abar)

    Parameters
    ----------
    abar, abar_prev : float
        Cumulative noise schedule at this and at the next executed timestep, in (0, 1].

    Raises
    ------
    OpsError
        If the schedule leaves (0, 1].
    """
    abar, abar_prev = float(abar), float(abar_prev)
    for name, value in (("abar", abar), ("abar_prev", abar_prev)):
        if not 0 < value <= 1:
            raise OpsError(f"{name} must be in (0, 1], got {value}. Pass values of alphas_cumprod.")
    return math.sqrt(abar_prev / abar), math.sqrt(1 - abar_prev) - math.sqrt(abar_prev * (1 - abar) / abar)


def guided_step(terms: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """One linear combination, sum_i c_i t_i, differentiable in every term.

    A whole guided DDIM step is one: of the latents, the noise predictions and the feature gradient.

    Parameters
    ----------
    terms : sequence of 1 to 6 Tensor, all (B, ...)
        z_t first.  Dtypes may differ, but float64 goes with float64 only.
    coefficients : sequence of float
        One per term, finite, see `step_coefficients`.

    Returns
    -------
    Tensor, (B, ...)
        In the first term's dtype, summed in at least float32.

    Raises
    ------
    OpsError
        If counts, shapes, devices or dtypes do not fit together, or a coefficient is not finite.
    """
    if terms and kernels_run(terms[0]):
        return kernels.call(torch.ops.neuraldiffuser.guided_step.default, terms, list(terms), list(coefficients))
    reference.check_coefficients(terms, coefficients)
    return reference.guided_step(terms, coefficients)


def guided_step_table(terms: Sequence[Tensor], table: Tensor) -> Tensor:
    """`guided_step` with coefficients per image from a table on the terms' device; nothing is read back from a GPU.

    Parameters
    ----------
    terms : sequence of 1 to 6 Tensor, all (B, ...)
    table : Tensor, (B or 1, n_terms), float64
        Constant.

    Returns
    -------
    Tensor, (B, ...), in the first term's dtype

    Raises
    ------
    OpsError
        If counts, shapes, devices or dtypes do not fit together, or the table requires a gradient; on a CPU also if
        a coefficient is not finite.
    """
    reference.check_constants("a step", table=table)
    if terms and kernels_run(terms[0]):
        return kernels.call(torch.ops.neuraldiffuser.guided_step.table, terms, list(terms), table)
    reference.check_table(terms, table)
    return reference.guided_step_table(terms, table)


def prepare_image(
    image: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...], antialias: bool = True
) -> Tensor:
    """Decoder output to guide-network input: clamp((image + 1) / 2, 0, 1), resize, (x - mean) / std (method.md eq. 31).

    Parameters
    ----------
    image : Tensor, (B, 3, H, W)
        In the VAE decoder's range [-1, 1].
    size : int
        Side of the guide network's input in pixels; the resize is bilinear.
    mean, std : tuple of 3 floats
        Channel statistics in the range [0, 1].
    antialias : bool
        Whether the resize averages over what lies between pixels; without, PyTorch computes it.

    Returns
    -------
    Tensor, (B, 3, size, size), in the image's dtype

    Raises
    ------
    OpsError
        If the image is not (B, 3, H, W), the size is not positive or a statistic is not usable.
    """
    if antialias and kernels_run(image):
        return kernels.call(torch.ops.neuraldiffuser.prepare_image.default, (image,), image, size, mean, std)
    reference.check_image(image, size, mean, std)
    return reference.prepare_image(image, size, mean, std, antialias)


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, silu: bool = True
) -> Tensor:
    """GroupNorm (Wu and He 2018, arXiv 1803.08494) and SiLU in one, differentiable in `x`, once.

    The compiled kernels keep `x` and the groups' statistics for backward and nothing else, and give a 4-D result in
    channels-last memory.

    Parameters
    ----------
    x : Tensor, (B, C, ...), 2 to 5 dimensions
    groups : int
        Divides C.
    weight, bias : Tensor, (C,)
        Constants.
    eps : float
        Added to the variance.
    silu : bool
        False leaves SiLU out.

    Returns
    -------
    Tensor, (B, C, ...), in the dtype of `x`

    Raises
    ------
    OpsError
        If shapes, devices or dtypes do not fit together, or weight or bias requires a gradient.
    """
    reference.check_constants("group_norm_silu", weight=weight, bias=bias)
    if kernels_run(x):
        operation = torch.ops.neuraldiffuser.group_norm_silu.default
        return kernels.call(operation, (x,), x, weight, bias, groups, eps, silu)[0]
    reference.check_norm(x, weight, bias, groups, eps)
    return reference.group_norm_silu(x, groups, weight, bias, eps, silu)
