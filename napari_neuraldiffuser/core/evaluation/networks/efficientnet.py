"""EfficientNet-B1 (Tan and Le 2019): inverted residuals with squeeze and excitation, 7,794,184 weights."""

import torch
from torch import nn

from napari_neuraldiffuser.core.evaluation.networks.blocks import ConvNorm, pooled

STAGES = (
    (1, 3, 1, 16, 2),
    (6, 3, 2, 24, 3),
    (6, 5, 2, 40, 3),
    (6, 3, 2, 80, 4),
    (6, 5, 1, 112, 4),
    (6, 5, 2, 192, 5),
    (6, 3, 1, 320, 2),
)
"""Expansion, kernel, stride of the first block, channels and blocks; blocks are those of B0 times 1.1, rounded up."""
FIRST, LAST = 32, 1280


class SqueezeExcitation(nn.Module):
    """Every channel times a gate that is computed from the means of all (Hu et al. 2018)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = nn.functional.silu(self.fc1(pooled(x)[:, :, None, None]))
        return x * torch.sigmoid(self.fc2(gate))


class InvertedResidual(nn.Module):
    """Expand, convolve each channel alone, gate, project; beside a shortcut where size and channels stay."""

    def __init__(self, inside: int, expansion: int, kernel: int, stride: int, out: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.block = nn.Sequential(
            *([ConvNorm(inside, wide, 1, act=nn.SiLU())] if expansion > 1 else []),
            ConvNorm(wide, wide, kernel, stride, wide, nn.SiLU()),
            SqueezeExcitation(wide, inside // 4),
            ConvNorm(wide, out, 1),
        )
        self.shortcut = stride == 1 and inside == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.block(x)
        return x + y if self.shortcut else y


class EfficientNetB1(nn.Module):
    """State as torchvision's `efficientnet_b1`; gives {"": (n, 1280)}, the pooled features, of images (n, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, FIRST, 3, 2, act=nn.SiLU())]
        inside = FIRST
        for expansion, kernel, stride, out, blocks in STAGES:
            insides = [inside, *[out] * (blocks - 1)]
            shapes = [(one, expansion, kernel, 1 if j else stride, out) for j, one in enumerate(insides)]
            layers.append(nn.Sequential(*(InvertedResidual(*shape) for shape in shapes)))
            inside = out
        self.features = nn.Sequential(*layers, ConvNorm(inside, LAST, 1, act=nn.SiLU()))
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(LAST, 1000))  # never run, but part of the file

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"": pooled(self.features(x))}
