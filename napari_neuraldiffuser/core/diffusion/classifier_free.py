"""Denoiser: a UNet with classifier-free guidance."""

from dataclasses import dataclass

import torch

from napari_neuraldiffuser.core.diffusion.feature_cache import FeatureCache
from napari_neuraldiffuser.core.diffusion.loop import Prediction, Step
from napari_neuraldiffuser.core.networks.parts import UNet
from napari_neuraldiffuser.core.networks.savings.prefix import once_for_both_halves


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
    cfg_until : float
        Share of the steps with classifier-free guidance; after them, and at a scale of 1, eps = eps_c.
    both_until : int
        Steps of which both predictions are wanted even so: a guidance rule may measure by their difference.
    features : FeatureCache, optional
        Of steps that no gradient goes through.
    """

    unet: UNet
    condition: torch.Tensor
    unconditional: torch.Tensor
    cfg_scale: float
    cfg_until: float = 1.0
    both_until: int = 0
    features: FeatureCache | None = None

    def __call__(self, latents: torch.Tensor, step: Step) -> Prediction:
        if not self.has_both(step):
            cond = self.noise(latents, step, self.condition, "conditional")
            return Prediction(latents, ((1.0, cond.detach()),), cond.detach(), cond)
        uncond, cond = (self._apart if latents.requires_grad else self._together)(latents, step)
        scale = self.cfg_scale if self._guides(step) else 1.0
        return Prediction(latents, ((1 - scale, uncond), (scale, cond.detach())), uncond, cond)

    def has_both(self, step: Step) -> bool:
        """Whether the step has an unconditional prediction; without one the conditional stands for it."""
        return self._guides(step) or step.index < self.both_until

    def _guides(self, step: Step) -> bool:
        return self.cfg_scale != 1 and step.index < int(step.n_steps * self.cfg_until)

    def noise(self, latents: torch.Tensor, step: Step, text: torch.Tensor, call: str) -> torch.Tensor:
        """The UNet's prediction, (B, 4, h, w); `call` names it among those of the step."""
        if latents.requires_grad or self.features is None:
            with torch.set_grad_enabled(latents.requires_grad):
                predicted: torch.Tensor = self.unet(latents, step.timestep, encoder_hidden_states=text).sample
            return predicted
        return self.features(self.unet, latents, step, text, call)

    def _together(self, latents: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        text = torch.cat([self.unconditional.expand_as(self.condition), self.condition])
        with once_for_both_halves(self.unet):
            uncond, cond = self.noise(torch.cat([latents] * 2), step, text, "both").chunk(2)
        return uncond, cond

    def _apart(self, latents: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """The same two forwards, where only the conditional one keeps its graph: half the memory and backward time."""
        text = self.unconditional.expand_as(self.condition)
        with torch.no_grad():
            uncond: torch.Tensor = self.unet(latents.detach(), step.timestep, encoder_hidden_states=text).sample
        return uncond, self.noise(latents, step, self.condition, "conditional")
