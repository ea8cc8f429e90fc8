"""Denoiser: a UNet with classifier-free guidance."""

from dataclasses import dataclass

import torch

from napari_neuraldiffuser.core.diffusion.loop import Prediction, Step
from napari_neuraldiffuser.core.networks.parts import UNet


@dataclass(frozen=True)
class ClassifierFree:
    """Denoiser: a UNet with classifier-free guidance, eps = eps_u + s (eps_c - eps_u) (method.md eq. 24).

    Attributes
    ----------
    unet : UNet
    condition : Tensor (B, tokens, width)
        Decoded text embedding of each image.
    unconditional : Tensor (1, tokens, width)
        Embedding of the empty caption.
    cfg_scale : float
    """

    unet: UNet
    condition: torch.Tensor
    unconditional: torch.Tensor
    cfg_scale: float

    def __call__(self, latents: torch.Tensor, step: Step) -> Prediction:
        uncond, cond = (self._apart if latents.requires_grad else self._together)(latents, step)
        terms = ((1 - self.cfg_scale, uncond), (self.cfg_scale, cond.detach()))
        return Prediction(latents, terms, uncond, cond)

    def _together(self, latents: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        text = torch.cat([self.unconditional.expand_as(self.condition), self.condition])
        with torch.no_grad():
            both = self.unet(torch.cat([latents] * 2), step.timestep, encoder_hidden_states=text).sample
        uncond, cond = both.chunk(2)
        return uncond, cond

    def _apart(self, latents: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """The same two forwards, where only the conditional one keeps its graph: half the memory and backward time."""
        with torch.no_grad():
            text = self.unconditional.expand_as(self.condition)
            uncond = self.unet(latents.detach(), step.timestep, encoder_hidden_states=text).sample
        return uncond, self.unet(latents, step.timestep, encoder_hidden_states=self.condition).sample
