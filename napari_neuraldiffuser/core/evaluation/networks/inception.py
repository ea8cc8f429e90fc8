"""Inception v3 (Szegedy et al. 2016) as it was ported from TensorFlow: 27,161,264 weights with the auxiliary head."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from napari_neuraldiffuser.core.evaluation.networks.blocks import Size, pooled, same

Step = tuple[str, int, Size] | tuple[str, int, Size, int]
"""Name, channels and kernel of a convolution; a stride of 2, with which it is not padded."""
TRAINED_WITH = ((0.229, 0.224, 0.225), (0.485, 0.456, 0.406))
"""What images were normalised with; the network itself was trained on images from -1 to 1."""


class BasicConv(nn.Module):
    """Convolution without bias, batch normalisation and rectification."""

    def __init__(self, width: int, out: int, kernel: Size, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, same(kernel) if padded and stride == 1 else 0, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, joined by channel; the last is of pooled places.

    Parameters
    ----------
    width : int
        Channels that come in.
    branches : sequence of sequence of Step
    kept : int
        Channels of the pooled branch: means of 3 x 3 places, convolved; 0 keeps the largest of each, at a stride of 2.
    forks : mapping of str to (str, str)
        Name that ends a branch -> two convolutions of it side by side.
    """

    def __init__(
        self,
        width: int,
        branches: Sequence[Sequence[Step]],
        kept: int = 0,
        forks: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        super().__init__()
        self.names = [[step[0] for step in branch] for branch in branches]
        self.kept, self.forks, self.out = kept, dict(forks or {}), kept or width
        for branch in branches:
            inside = width
            for name, out, *shape in branch:
                self.add_module(name, BasicConv(inside, out, *shape))  # type: ignore[arg-type]  # kernel and stride
                inside = out
            ends = self.forks.get(branch[-1][0], ())
            for name, kernel in zip(ends, ((1, 3), (3, 1)), strict=False):
                self.add_module(name, BasicConv(inside, inside, kernel))
            self.out += inside * (len(ends) or 1)
        if kept:
            self.branch_pool = BasicConv(width, kept, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = []
        for names in self.names:
            y = x
            for name in names:
                y = self.get_submodule(name)(y)
            parts += [self.get_submodule(end)(y) for end in self.forks[names[-1]]] if names[-1] in self.forks else [y]
        functional = nn.functional
        parts.append(
            self.branch_pool(functional.avg_pool2d(x, 3, 1, 1)) if self.kept else functional.max_pool2d(x, 3, 2)
        )
        return torch.cat(parts, dim=1)


def mixed_a(width: int, kept: int) -> Mixed:
    """35 x 35 places: 1 x 1, 5 x 5 and twice 3 x 3."""
    double: list[Step] = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return Mixed(width, [[("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)], double], kept)


def mixed_b(width: int) -> Mixed:
    """From 35 x 35 places to 17 x 17."""
    double: list[Step] = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)]
    return Mixed(width, [[("branch3x3", 384, 3, 2)], double])


def mixed_c(width: int, inner: int) -> Mixed:
    """17 x 17 places: 7 x 7 as a row and a column."""
    row, column = (1, 7), (7, 1)
    single: list[Step] = [("branch7x7_1", inner, 1), ("branch7x7_2", inner, row), ("branch7x7_3", 192, column)]
    kernels: list[tuple[int, Size]] = [(inner, 1), (inner, column), (inner, row), (inner, column), (192, row)]
    double: list[Step] = [(f"branch7x7dbl_{k}", out, kernel) for k, (out, kernel) in enumerate(kernels, 1)]
    return Mixed(width, [[("branch1x1", 192, 1)], single, double], 192)


def mixed_d(width: int) -> Mixed:
    """From 17 x 17 places to 8 x 8."""
    kernels: list[tuple[int, Size]] = [(192, 1), (192, (1, 7)), (192, (7, 1))]
    wide: list[Step] = [(f"branch7x7x3_{k}", out, kernel) for k, (out, kernel) in enumerate(kernels, 1)]
    return Mixed(width, [[("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)], [*wide, ("branch7x7x3_4", 192, 3, 2)]])


def mixed_e(width: int) -> Mixed:
    """8 x 8 places, whose 3 x 3 branches end in a row beside a column."""
    double: list[Step] = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)]
    forks = {"branch3x3_1": ("branch3x3_2a", "branch3x3_2b"), "branch3x3dbl_2": ("branch3x3dbl_3a", "branch3x3dbl_3b")}
    return Mixed(width, [[("branch1x1", 320, 1)], [("branch3x3_1", 384, 1)], double], 192, forks)


class AuxiliaryHead(nn.Module):
    """Helps in training only; never run, but part of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.fc = BasicConv(768, 128, 1), BasicConv(128, 768, 5), nn.Linear(768, 1000)


class InceptionV3(nn.Module):
    """State as torchvision's `inception_v3`; gives {"": (n, 2048)}, the pooled features, of images (n, 3, H, W).

    Images are normalised as for the other networks, and brought back to the range that these weights were trained with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = BasicConv(3, 32, 3, 2), BasicConv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3, self.maxpool1 = BasicConv(32, 64, 3), nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = BasicConv(64, 80, 1), BasicConv(80, 192, 3, padded=False)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = mixed_a(192, 32), mixed_a(256, 64), mixed_a(288, 64)
        self.Mixed_6a, self.Mixed_6b = mixed_b(288), mixed_c(768, 128)
        self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = mixed_c(768, 160), mixed_c(768, 160), mixed_c(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = mixed_d(768), mixed_e(1280), mixed_e(2048)
        self.AuxLogits, self.fc = AuxiliaryHead(), nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        scale, shift = (x.new_tensor(values)[:, None, None] for values in TRAINED_WITH)
        x = (x * scale + shift) / 0.5 - 1
        for name, layer in self.named_children():
            if name not in ("AuxLogits", "fc"):
                x = layer(x)
        return {"": pooled(x)}
