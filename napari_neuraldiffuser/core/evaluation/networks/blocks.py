"""Layers that the scoring networks share."""

import torch
from torch import nn

Size = int | tuple[int, int]


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation and, where there is one, an activation.

    Parameters
    ----------
    width, out : int
        Channels.
    kernel : int or (int, int)
        An odd kernel is padded to keep the size.
    stride, groups : int
    act : Module, optional
    """

    def __init__(
        self, width: int, out: int, kernel: Size, stride: int = 1, groups: int = 1, act: nn.Module | None = None
    ) -> None:
        conv = nn.Conv2d(width, out, kernel, stride, same(kernel), groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out), *([act] if act else []))


def same(kernel: Size) -> Size:
    """Padding with which a stride of 1 keeps the size."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Mean over places: (n, channels, height, width) to (n, channels)."""
    return x.mean(dim=(2, 3))
