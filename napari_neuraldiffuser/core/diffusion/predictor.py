"""The UNet as everything else sees it: from latents, timestep and text to noise, whatever it predicts itself.

Stable Diffusion 2.1 predicts v = sqrt(abar) eps - sqrt(1-abar) x0 (Salimans and Ho, ICLR 2022, arXiv 2202.00512), and
latent consistency models take the classifier-free scale as a condition (Luo et al. 2023, arXiv 2310.04378) instead of a
second forward.
"""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.networks.parts import NoiseSchedule, UNet

LARGEST_PERIOD = 10_000


def noise_predictor(models: Models, cfg_scale: float) -> UNet:
    """The models' UNet where it predicts noise and takes nothing else, or a Predictor around it."""
    width = scale_width(models.unet)
    kind = models.scheduler.config.prediction_type
    if kind == "epsilon" and width is None:
        return models.unet
    return Predictor(models.unet, models.scheduler, kind, scale_embedding(cfg_scale, width) if width else None)


def takes_scale(unet: UNet) -> bool:
    """Whether the classifier-free scale is a condition of the network."""
    return scale_width(unet) is not None


def scale_width(unet: UNet) -> int | None:
    """Width of the embedding of the classifier-free scale; None where the network takes none."""
    return getattr(unet.config, "time_cond_proj_dim", None)


def scale_embedding(cfg_scale: float, width: int) -> torch.Tensor:
    """Sines and cosines (1, width) of the scale that a latent consistency model was distilled with, s - 1."""
    half = width // 2
    rates = torch.exp(-math.log(LARGEST_PERIOD) / (half - 1) * torch.arange(half, dtype=torch.float32))
    angles = (cfg_scale - 1) * 1000 * rates
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]


@dataclass(frozen=True)
class Predictor:
    """A UNet that predicts noise, made from one that predicts v or takes the classifier-free scale.

    Attributes
    ----------
    unet : UNet
    scheduler : NoiseSchedule
        Tells the noise level of a timestep.
    kind : str
        What the network predicts: "epsilon" or "v_prediction".
    scale : Tensor (1, width) or None
        Embedding of the classifier-free scale.
    """

    unet: UNet
    scheduler: NoiseSchedule
    kind: str
    scale: torch.Tensor | None = None
    _sigmas: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        abar = self.scheduler.alphas_cumprod.double().clamp(min=2.0**-24).numpy()
        object.__setattr__(self, "_sigmas", ((1 - abar) / abar) ** 0.5)

    def __call__(self, latents: torch.Tensor, timestep: float, **conditions: Any) -> Any:
        """Latents (n, 4, h, w) to `.sample`, the noise in them (n, 4, h, w)."""
        if self.scale is not None:
            conditions["timestep_cond"] = self.scale_of(latents)
        found = self.unet(latents, timestep, **conditions).sample
        return SimpleNamespace(sample=self.as_noise(found, latents, timestep))

    def scale_of(self, latents: torch.Tensor) -> torch.Tensor | None:
        """The embedding of the scale for each image, (n, width)."""
        return None if self.scale is None else self.scale.to(latents).expand(len(latents), -1)

    def as_noise(self, found: torch.Tensor, latents: torch.Tensor, timestep: float) -> torch.Tensor:
        """The noise (n, 4, h, w) that an output of the network means."""
        if self.kind == "epsilon":
            return found
        abar = self.abar(timestep)
        return ops.guided_step([found, latents], [abar**0.5, (1 - abar) ** 0.5])

    def abar(self, timestep: float) -> float:
        """Cumulative schedule; between whole timesteps as the solvers' schedules have it, linear in sigma."""
        sigma = float(np.interp(timestep, np.arange(len(self._sigmas)), self._sigmas))
        return 1 / (1 + sigma**2)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the network's."""
        return getattr(self.unet, name)
