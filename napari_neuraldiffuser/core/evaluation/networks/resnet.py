"""ResNet-50 (He et al. 2016) with the stride in the 3 x 3 convolution: 25,557,032 weights."""

import torch
from torch import nn

from napari_neuraldiffuser.core.evaluation.networks.blocks import pooled

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and stride of the first block."""
WIDER = 4


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * WIDER
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or inside != out:
            self.downsample = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """State as torchvision's `resnet50`; gives {"": (n, 2048)}, the pooled features, of images (n, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool, inside = nn.MaxPool2d(3, 2, 1), 64
        for k, (width, blocks, stride) in enumerate(STAGES, 1):
            insides = [inside, *[width * WIDER] * (blocks - 1)]
            stage = [Bottleneck(one, width, 1 if j else stride) for j, one in enumerate(insides)]
            self.add_module(f"layer{k}", nn.Sequential(*stage))
            inside = width * WIDER
        self.fc = nn.Linear(inside, 1000)  # never run, but part of the file

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for k in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{k}")(x)
        return {"": pooled(x)}
