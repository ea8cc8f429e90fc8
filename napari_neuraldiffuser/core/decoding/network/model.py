"""The network behind the voxel encoders: residual backbone, a head for each target, and the prior's denoisers."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, interpolate

from napari_neuraldiffuser.core.decoding.network.basis import Basis, TargetBasis

Noisy = dict[str, tuple[torch.Tensor, torch.Tensor]]
UPSAMPLED = 4
"""How many times smaller the z head's map is than the latent image, along each side."""
CHANNELS = 16
TIME = 64


@dataclass(frozen=True)
class Shape:
    """What decides the network's weights' sizes: all that is needed to build one before its weights are read."""

    width: int
    blocks: int
    dropout: float
    prior: bool
    targets: dict[str, tuple[int, tuple[int, ...]]]
    """Components, and shape of a stimulus' target, of every target."""


class Block(nn.Module):
    """h + W2 gelu(W1 norm(h)): starts as the identity (method.md eq. 62)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.outer(self.dropout(gelu(self.inner(self.norm(h)))))


class Head(nn.Module):
    """Latent to scores of a target's components, and those to its columns (method.md eq. 63)."""

    def __init__(self, width: int, n_components: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.scores = nn.Linear(width, n_components)
        self.columns = nn.Linear(n_components, math.prod(shape))
        self.columns.requires_grad_(False)

    def start(self, basis: TargetBasis, loadings: np.ndarray) -> None:
        """Take the weights with which the head says of a latent what the components say."""
        with torch.no_grad():
            self.scores.weight.zero_()
            self.scores.bias.zero_()
            self.scores.weight[:, : loadings.shape[1]] = torch.from_numpy(loadings)
            self.columns.weight.copy_(torch.from_numpy(basis.components.T))
            self.columns.bias.copy_(torch.from_numpy(basis.mean))


class Upsampler(nn.Module):
    """What z has beyond its components: a small map that convolutions enlarge; nothing at the start."""

    def __init__(self, width: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, *self.size = shape
        self.small = [max(1, side // UPSAMPLED) for side in self.size]
        self.map = nn.Linear(width, CHANNELS * math.prod(self.small))
        self.convolutions = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(CHANNELS, channels, 3, padding=1)
        for weights in self.last.parameters():
            nn.init.zeros_(weights)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        image = self.map(h).reshape(len(h), CHANNELS, *self.small)
        half = [max(1, side // 2) for side in self.size]
        for size, convolution in zip((half, self.size), self.convolutions, strict=True):
            image = gelu(convolution(interpolate(image, size=size, mode="bilinear", align_corners=False)))
        return self.last(image).flatten(1)


class Denoiser(nn.Module):
    """Clean scores from noisy ones, the head's prediction and the timestep; says the prediction at the start.

    Noisy and clean scores are in `unit`, the root of a component's mean variance (method.md eq. 68).
    """

    unit: torch.Tensor

    def __init__(self, n_components: int) -> None:
        super().__init__()
        hidden = 2 * n_components
        self.time = nn.Linear(TIME, hidden)
        self.first, self.inner = nn.Linear(2 * n_components, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, n_components)
        self.register_buffer("unit", torch.ones(()))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        predicted = predicted / self.unit
        h = self.first(torch.cat([noisy, predicted], 1)) + self.time(waves(t).to(noisy.dtype))
        return predicted + self.last(gelu(self.inner(gelu(h))))


def waves(t: torch.Tensor) -> torch.Tensor:
    """Sines and cosines (B, TIME) of timesteps (B,)."""
    rates = torch.exp(torch.arange(TIME // 2, device=t.device) * (-math.log(1e4) / (TIME // 2)))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Network(nn.Module):
    """Latents (B, width) to every target.

    Targets without variance have no head: their prediction is their mean, which the decoder adds.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.about = shape
        varying = {name: about for name, about in shape.targets.items() if about[0]}
        self.blocks = nn.ModuleList(Block(shape.width, shape.dropout) for _ in range(shape.blocks))
        self.heads = nn.ModuleDict({name: Head(shape.width, b, size) for name, (b, size) in varying.items()})
        drawn = "z" in varying and len(varying["z"][1]) == 3
        self.upsampler = Upsampler(shape.width, varying["z"][1]) if drawn else None
        with_prior = [name for name in varying if shape.prior and name != "z"]
        self.denoisers = nn.ModuleDict({name: Denoiser(varying[name][0]) for name in with_prior})

    def start(self, basis: Basis) -> None:
        """Say of a latent what the targets' components say of it."""
        for name in self.heads:
            self.head(name).start(basis.targets[name], basis.loadings[name])
        for name in self.denoisers:
            self.denoiser(name).unit.fill_(math.sqrt(basis.targets[name].size / len(basis.targets[name].components)))

    def head(self, name: str) -> Head:
        """The head of a target."""
        return cast(Head, self.heads[name])

    def denoiser(self, name: str) -> Denoiser:
        """The prior's denoiser of a target."""
        return cast(Denoiser, self.denoisers[name])

    def only(self, names: Collection[str]) -> "Network":
        """The same network without the heads of other targets."""
        for heads in (self.heads, self.denoisers):
            for name in set(heads) - set(names):
                del heads[name]
        if "z" not in names:
            self.upsampler = None
        self.about = replace(self.about, targets={k: v for k, v in self.about.targets.items() if k in names})
        return self

    def hidden(self, latents: torch.Tensor) -> torch.Tensor:
        """The backbone's output (B, width)."""
        for block in self.blocks:
            latents = block(latents)
        return latents

    def forward(
        self, latents: torch.Tensor, whole: Collection[str] = (), noisy: Noisy | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Scores (B, b) of every target, all columns (B, T) of those in `whole`; and clean scores of the `noisy` ones.

        Parameters
        ----------
        latents : Tensor (B, width)
        whole : collection of str
        noisy : dict of str to (Tensor (B, b), Tensor (B,))
            Noisy scores in the denoiser's units, and timesteps.
        """
        h = self.hidden(latents)
        scores = {name: self.head(name).scores(h) for name in self.heads}
        clean = {name: self.denoiser(name)(*given, scores[name]) for name, given in (noisy or {}).items()}
        out = {name: self.columns(name, s, h) if name in whole else s for name, s in scores.items()}
        return out, clean

    def columns(self, name: str, scores: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """A target (B, T) from its scores (B, b) and the backbone's output."""
        out: torch.Tensor = self.head(name).columns(scores)
        return out + self.upsampler(h) if name == "z" and self.upsampler is not None else out
