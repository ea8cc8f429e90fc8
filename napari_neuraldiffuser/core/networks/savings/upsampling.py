"""An image that is doubled and then convolved by 3 x 3, convolved by 2 x 2 as it is.

Of a doubled image (nearest neighbour) the nine places under a kernel hold the values of four pixels only.  Which of
them share a pixel depends on whether row and column of the output are even or odd; so the sums of their weights make
four kernels of 2 x 2, one for each of these, and 16 products of a pixel do the work of 36.
"""

from typing import Any

import torch
from torch import Tensor, nn

from napari_neuraldiffuser.core.networks.steady import (
    Settings,
    SteadyConv2d,
    conv2d,
    conv2d_gradient,
    memory_format,
)

PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))
SETTINGS: Settings = ((1, 1), (1, 1), (1, 1), 1)
"""Of the convolution by 2 x 2: its output has one row and one column more than the image."""


def folded(weight: Tensor) -> Tensor:
    """The four kernels (4 D, C, 2, 2), one for each of `PARITIES`, of a kernel (D, C, 3, 3)."""
    wide = weight.detach().double()
    kernels = [column for row in _pairs(wide, 2) for column in _pairs(row, 3)]
    return torch.cat(kernels).to(weight.dtype).contiguous(memory_format=memory_format(weight))


def _pairs(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Weights of the pixels under an even and under an odd place, along one dimension."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


class DoubledConv(torch.autograd.Function):
    """Convolution by 3 x 3 of the doubled image, with the four kernels; keeps no activation for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(kernels)
        ctx.shape, ctx.layout = x.shape, memory_format(x)
        return apart(conv2d(x, kernels, None if bias is None else bias.repeat(4), SETTINGS))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        kernels = ctx.saved_tensors[0].to(upstream.dtype)  # autocast may have computed in half precision
        # never read: it tells shape and memory format
        shaped = torch.empty(ctx.shape, dtype=upstream.dtype, device=upstream.device, memory_format=ctx.layout)
        return conv2d_gradient(beside(upstream), shaped, kernels, SETTINGS), None, None


def apart(outputs: Tensor) -> Tensor:
    """Outputs of the four kernels (B, 4 D, H + 1, W + 1) to the places of the doubled image (B, D, 2 H, 2 W)."""
    n, channels, height, width = outputs.shape[0], outputs.shape[1] // 4, outputs.shape[2] - 1, outputs.shape[3] - 1
    shape = (n, channels, 2 * height, 2 * width)
    doubled = torch.empty(shape, dtype=outputs.dtype, device=outputs.device, memory_format=memory_format(outputs))
    for (i, j), own in zip(PARITIES, outputs.split(channels, dim=1), strict=True):
        doubled[:, :, i::2, j::2] = own[:, :, i : i + height, j : j + width]
    return doubled


def beside(doubled: Tensor) -> Tensor:
    """The transpose of `apart`: (B, D, 2 H, 2 W) to (B, 4 D, H + 1, W + 1), zero where nothing goes."""
    n, channels, height, width = doubled.shape[0], doubled.shape[1], doubled.shape[2] // 2, doubled.shape[3] // 2
    outputs = torch.zeros(
        (n, 4 * channels, height + 1, width + 1), dtype=doubled.dtype, device=doubled.device
    ).contiguous(memory_format=memory_format(doubled))
    for (i, j), own in zip(PARITIES, outputs.split(channels, dim=1), strict=True):
        own[:, :, i : i + height, j : j + width] = doubled[:, :, i::2, j::2]
    return outputs


class Doubling:
    """What diffusers' `Upsample2D` does, in its place; another size than twice the image's is left to the class."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._kernels = torch.empty(0)
        self._made_of: tuple[Any, ...] = ()

    def __call__(self, x: Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        twice = tuple(2 * side for side in x.shape[-2:])
        if (output_size is not None and tuple(output_size) != twice) or args or kwargs:
            plain: Tensor = type(self.layer).forward(self.layer, x, output_size, *args, **kwargs)
            return plain
        conv = self.layer.conv
        return DoubledConv.apply(conv.laid_out(x), self.kernels(conv.weight), conv.bias)

    def kernels(self, weight: Tensor) -> Tensor:
        """The four kernels of the layer's weight, made once of each that it has had."""
        made_of = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if made_of != self._made_of:
            self._kernels, self._made_of = folded(weight), made_of
        return self._kernels


def double_and_convolve(network: nn.Module) -> None:
    """Have the upsampling layers of a `steady` diffusers network convolve the small image; in place.

    Once is enough, and `restore` undoes it.
    """
    for module in network.modules():
        if type(module).__name__ == "Upsample2D" and "forward" not in vars(module) and _foldable(module):
            module.forward = Doubling(module)


def _foldable(layer: Any) -> bool:
    """Whether a layer doubles by nearest neighbours and convolves by 3 x 3, and does nothing else."""
    conv = getattr(layer, "conv", None)
    if layer.norm is not None or layer.use_conv_transpose or not (layer.interpolate and layer.use_conv):
        return False
    one = (1, 1)
    return isinstance(conv, SteadyConv2d) and (
        (conv.kernel_size, conv.padding, conv.stride, conv.dilation, conv.groups) == ((3, 3), one, one, one, 1)
    )
