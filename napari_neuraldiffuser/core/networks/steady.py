"""Layers that give an image the same bits whatever the batch it is in, put into a network whose weights are frozen.

On a CPU PyTorch chooses by the size of a batch how it computes: a convolution of one small image, and a 1 x 1 one of
fewer than 16 images, otherwise than that of more; a matrix product of a few rows otherwise than that of many; and
where several threads share an activation, the ends of their shares in scalar code.  All of it is right to rounding,
and strong guidance makes several grey levels of a rounding.  Here convolutions are oneDNN's at every size, and what
else depends on the size is computed image by image.  Other devices, other dtypes and torch.compile are left alone.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]
Settings = tuple[Pair, Pair, Pair, int]
"""Stride, padding, dilation and groups of a convolution."""
FEW_ROWS = 32
"""Matrix products of fewer rows than this are rounded by their number."""
VECTOR = 64
"""Elements that vector code takes at once, at most; PyTorch gives `GRAIN` elements to a thread at least."""
GRAIN = 32768


def chosen_by_size(x: Tensor) -> bool:
    """Whether PyTorch may choose by the number of images, and these layers have to see to it."""
    return x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling() and not _autocast()


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu")


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
    """Convolution (B, C, H, W) to (B, D, H', W')."""
    stride, padding, dilation, groups = settings
    if not (chosen_by_size(x) and torch.backends.mkldnn.is_available()):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)


def conv2d_gradient(upstream: Tensor, like: Tensor, weight: Tensor, settings: Settings) -> Tensor:
    """Gradient of a convolution in its input; `like` tells shape and memory format of that, and is not read."""
    stride, padding, dilation, groups = settings
    reach = tuple(side - 1 - p for side, p in zip(weight.shape[2:], padding, strict=True))
    steady = chosen_by_size(upstream)
    if steady and stride == dilation == (1, 1) and groups == 1 and min(reach) >= 0:
        # the convolution with the turned kernel, from outputs to inputs
        turned = weight.transpose(0, 1).flip(2, 3)
        upstream = upstream.contiguous(memory_format=memory_format(like))
        return conv2d(upstream, turned, None, (stride, (reach[0], reach[1]), dilation, groups))
    alone = steady and len(upstream) == 1
    if alone:
        upstream, like = upstream.repeat(2, 1, 1, 1), torch.cat([like, like])
    outputs = (True, False, False)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        upstream, like, weight, None, stride, padding, dilation, False, [0, 0], groups, outputs
    )[0]
    return gradient[:1] if alone else gradient


def by_row(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layer` of x (B, C) or (B, T, C), a matrix product that does not depend on B; once where all rows are one."""
    rows = math.prod(x.shape[1:-1])
    if len(x) < 2 or rows >= FEW_ROWS or not chosen_by_size(x):
        return layer(x)
    if torch.equal(x, x[:1].expand_as(x)):  # the embedding of the time
        one = layer(x[:1])
        return one.expand(len(x), *one.shape[1:])
    return torch.cat([layer(image) for image in x.split(1)])


def by_image(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise `function` of x (B, ...), image by image where threads would share it unevenly."""
    if len(x) < 2 or not chosen_by_size(x) or _even(x):
        return function(x)
    return torch.cat([function(image) for image in x.split(1)])


def _even(x: Tensor) -> bool:
    """Whether every thread's share of any number of images is a multiple of a vector."""
    threads = torch.get_num_threads() if x.numel() > GRAIN else 1
    unit = x[0].numel() if x.is_contiguous() else x.shape[-1]
    return unit % (VECTOR * math.lcm(*range(1, threads + 1))) == 0


class SteadyConv2d(nn.Conv2d):
    """A convolution whose weights are frozen; keeps no activation for backward."""

    def forward(self, x: Tensor) -> Tensor:
        x, settings = self.laid_out(x), (self.stride, self.padding, self.dilation, self.groups)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return conv2d(x, self.weight, self.bias, settings)  # type: ignore[arg-type]
        return FrozenConv.apply(x, self.weight, self.bias, settings)

    def laid_out(self, x: Tensor) -> Tensor:
        """The images in the memory format that the layer computes in."""
        return x


class SteadyLinear(nn.Linear):
    """A linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return by_row(super().forward, x)


class SteadySiLU(nn.SiLU):
    """SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return by_image(F.silu, x)


class FrozenConv(torch.autograd.Function):
    """A convolution that is differentiable in its input and does not save it: backward needs no more than its shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.settings, ctx.shape, ctx.layout = settings, x.shape, memory_format(x)
        return conv2d(x, weight, bias, settings)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        weight = ctx.saved_tensors[0].to(upstream.dtype)  # autocast may have computed in half precision
        # never read: it tells shape and memory format
        shaped = torch.empty(ctx.shape, dtype=upstream.dtype, device=upstream.device, memory_format=ctx.layout)
        return conv2d_gradient(upstream, shaped, weight, ctx.settings), None, None, None


def memory_format(x: Tensor) -> torch.memory_format:
    """Channels last, or what every tensor is taken for otherwise."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


STEADY: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SteadyConv2d,
    nn.Linear: SteadyLinear,
    nn.SiLU: SteadySiLU,
}
ACTIVATIONS = ("GELUActivation", "QuickGELUActivation", "GELU")
"""Classes of transformers and torch whose forward is elementwise; diffusers' own have a method `gelu` that is."""


def steady(network: nn.Module) -> nn.Module:
    """Make a frozen network compute every image the same way whatever the batch; in place, and once is enough.

    Names and values of the parameters stay, and what the network computes stays up to rounding.
    """
    for module in network.modules():
        kind = type(module)
        if kind in STEADY and is_plain(module):
            module.__class__ = STEADY[kind]
        elif name := _elementwise(kind):
            setattr(module, name, vars(module).get(name) or ByImage(getattr(module, name)))
    return network


def is_plain(module: nn.Module) -> bool:
    """Whether a convolution is padded with zeros, by a number; everything else is plain."""
    return not isinstance(module, nn.Conv2d) or (module.padding_mode == "zeros" and not isinstance(module.padding, str))


def _elementwise(kind: type) -> str:
    """Name of the method of a class of modules that is elementwise; none where empty."""
    if hasattr(kind, "gelu"):
        return "gelu"
    return "forward" if kind.__name__ in ACTIVATIONS else ""


class ByImage:
    """A method that is elementwise, image by image."""

    def __init__(self, method: Callable[[Tensor], Tensor]) -> None:
        self.method = method

    def __call__(self, x: Tensor) -> Tensor:
        return by_image(self.method, x)
