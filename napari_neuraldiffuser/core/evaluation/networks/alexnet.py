"""AlexNet in the form of "One weird trick" (Krizhevsky 2014): five convolutions, 61,100,840 weights."""

import torch
from torch import nn

CONVOLUTIONS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
"""Channels in and out, kernel, stride and padding."""
POOLED = (0, 1, 4)
"""Convolutions after which the largest of 3 x 3 places is kept, at a stride of 2."""
TAPS = {"2": 4, "5": 11}
"""What the field calls layers 2 and 5: the activations of the second and fifth convolution, by place in `features`."""


class AlexNet(nn.Module):
    """State as torchvision's `alexnet`; gives {"2": (n, d2), "5": (n, d5)} of images (n, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, shape in enumerate(CONVOLUTIONS):
            layers += [nn.Conv2d(*shape), nn.ReLU(), *([nn.MaxPool2d(3, 2)] if k in POOLED else [])]
        self.features = nn.Sequential(*layers)
        # never run, but part of the file
        sizes = (256 * 6 * 6, 4096, 4096, 1000)
        full = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        skip = nn.Identity
        self.classifier = nn.Sequential(skip(), full[0], skip(), skip(), full[1], skip(), full[2])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for k in range(max(TAPS.values()) + 1):
            x = self.features[k](x)
            found |= {name: x.flatten(1) for name, place in TAPS.items() if place == k}
        return found
