"""Layers that keep less for backward, put into a network whose weights are frozen.

Guidance differentiates the VAE decoder with respect to its input only, but PyTorch keeps the input of every convolution
(for a weight gradient that nobody asks for), and GroupNorm and SiLU one tensor each.  Here a convolution keeps nothing
but its weight, and GroupNorm with SiLU keeps its input, from which backward computes the rest again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.kernels.ops import OpsError
from napari_neuraldiffuser.core.networks.savings.upsampling import Doubling
from napari_neuraldiffuser.core.networks.steady import (
    ByImage,
    FrozenConv,
    Pair,
    SteadyConv2d,
    SteadyLinear,
    SteadySiLU,
    by_image,
    by_row,
    is_plain,
)


def frozen_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
    """`torch.nn.functional.conv2d` with a frozen weight: keeps no activation for backward.

    Parameters
    ----------
    x : Tensor, (B, C, H, W)
    weight : Tensor, (D, C / groups, h, w)
    bias : Tensor, (D,), optional
    settings
        stride, padding, dilation (int or two of them) and groups, as in `conv2d`; padding not as a word.

    Returns
    -------
    Tensor, (B, D, H', W')
        Differentiable in `x`, once.

    Raises
    ------
    OpsError
        If the weight or the bias requires a gradient.
    """
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.requires_grad:
            raise OpsError(
                f"{name} must be frozen in frozen_conv2d, got one that requires a gradient. "
                "Call requires_grad_(False), or restore() the network before training it."
            )
    pairs = (_pair(settings.get(name, default)) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)))
    return FrozenConv.apply(x, weight, bias, (*pairs, settings.get("groups", 1)))


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class FrozenConv2d(SteadyConv2d):
    """A convolution that keeps no activation for backward, and computes in the memory format of the kernels."""

    def laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if ops.kernels_run(x) else x


class GroupNormSiLU(nn.GroupNorm):
    """GroupNorm and the SiLU behind it."""

    def forward(self, x: Tensor) -> Tensor:
        if ops.kernels_run(x):
            return self._joined(x)
        return by_image(self._joined, x)

    def _joined(self, x: Tensor) -> Tensor:
        # under autocast the weights have more bits than what comes in
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return ops.group_norm_silu(x, self.num_groups, weight, bias, self.eps)


class SiLULinear(SteadyLinear):
    """A linear layer and the SiLU before it."""

    def forward(self, x: Tensor) -> Tensor:
        return by_row(self._joined, x)

    def _joined(self, x: Tensor) -> Tensor:
        return F.linear(F.silu(x), self.weight, self.bias)


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    FrozenConv2d: nn.Conv2d,
    GroupNormSiLU: nn.GroupNorm,
    SiLULinear: nn.Linear,
    SteadyConv2d: nn.Conv2d,
    SteadyLinear: nn.Linear,
    SteadySiLU: nn.SiLU,
}

JOINED = {
    "ResnetBlock2D": (("norm1", "norm2"), "nonlinearity"),
    "Decoder": (("conv_norm_out",), "conv_act"),
    "UNet2DConditionModel": (("conv_norm_out",), "conv_act"),
}
"""Classes of diffusers: their norms, and the activation that follows each of them."""


def lean(network: nn.Module) -> nn.Module:
    """Make a frozen diffusers network keep less for backward; in place, and once is enough.

    The convolutions become `FrozenConv2d`, and in the residual blocks and at the end of the network GroupNorm and SiLU
    become one.  Names and values of the parameters stay, and what the network computes stays up to rounding.

    Parameters
    ----------
    network : module
        A VAE decoder or a UNet of diffusers, its parameters frozen.

    Raises
    ------
    OpsError
        If a parameter requires a gradient.
    """
    if any(p.requires_grad for p in network.parameters()):
        raise OpsError("network must be frozen, got parameters that require a gradient. Call requires_grad_(False).")
    for module in network.modules():
        if type(module) in (nn.Conv2d, SteadyConv2d) and is_plain(module):
            module.__class__ = FrozenConv2d
        elif type(module).__name__ in JOINED:
            _join(module, *JOINED[type(module).__name__])
    return network


def restore(network: nn.Module) -> nn.Module:
    """Undo `lean`, `steady` and `double_and_convolve`, in place, for instance to train the network."""
    for module in network.modules():
        norms, activation = JOINED.get(type(module).__name__, ((), ""))
        if norms and type(getattr(module, norms[0])) is GroupNormSiLU:
            setattr(module, activation, nn.SiLU())
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
        for name in [name for name, value in vars(module).items() if isinstance(value, (ByImage, Doubling))]:
            delattr(module, name)
    return network


def _join(module: nn.Module, names: tuple[str, ...], activation: str) -> None:
    """Join the norms of a module with its activation, which itself then does nothing."""
    norms = [getattr(module, name) for name in names]
    plain = all(type(norm) is nn.GroupNorm and norm.affine for norm in norms)
    # "scale_shift" puts the time between norm and activation
    adjacent = getattr(module, "time_embedding_norm", "") != "scale_shift"
    if not plain or not adjacent or not isinstance(getattr(module, activation), nn.SiLU):
        return
    embedding = getattr(module, "time_emb_proj", None)
    if embedding is not None and not module.skip_time_act:
        embedding.__class__ = SiLULinear  # the block's activation serves the time embedding too
    for norm in norms:
        norm.__class__ = GroupNormSiLU
    setattr(module, activation, nn.Identity())
