"""The published NeuralDiffuser loop as its code runs it, in plain PyTorch, which the package is measured against.

One image at a time, the networks' own dtype, classifier-free guidance as a batch of two, self-attention guidance in
every step, a UNet forward of its own for the gradient of a guided step, and a picture decoded after every step whose
result is thrown away.  Written from docs/method.md; of the package it uses the networks alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYER_WEIGHTS = (1.5, 1.2, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Published:
    """Settings of the loop; the defaults are the published ones."""

    n_steps: int = 50
    strength: float = 0.75
    cfg_scale: float = 7.5
    sag_scale: float = 0.75
    guidance_scale: float = 300000.0
    guidance_strength: float = 0.2


class KeptAttention:
    """Attention processor that keeps the softmax of the last call."""

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        q, k, v = (attn.head_to_batch_dim(project(hidden_states)) for project in (attn.to_q, attn.to_k, attn.to_v))
        self.probabilities = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(self.probabilities @ v)))


@dataclass(frozen=True)
class Loop:
    """One image after the other.

    Attributes
    ----------
    models : Models
    unconditional : Tensor (1, tokens, width)
    settings : Published
    """

    models: Any
    unconditional: torch.Tensor
    settings: Published = Published()

    @property
    def timesteps(self) -> list[int]:
        """The executed ones: the last of the schedule."""
        self.models.scheduler.set_timesteps(self.settings.n_steps)
        return self.models.scheduler.timesteps[self.settings.n_steps - self.executed :].tolist()

    @property
    def executed(self) -> int:
        return int(self.settings.n_steps * self.settings.strength)

    def __call__(
        self, z: torch.Tensor, c: torch.Tensor, g: Sequence[torch.Tensor], noise: torch.Tensor
    ) -> torch.Tensor:
        """The picture (1, 3, H, W) in [0, 1] of one z (1, 4, h, w), c (1, tokens, width), g and noise."""
        latents = self.start(z, noise)
        for index in range(self.executed):
            latents = self.take(latents, index, c, g)
        return self.decode(latents)

    def start(self, z: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """z at the published noise level."""
        abar = float(self.models.scheduler.alphas_cumprod[int(self.executed / self.settings.n_steps * 1000)])
        return abar**0.5 * z + (1 - abar) ** 0.5 * noise

    def take(self, latents: torch.Tensor, index: int, c: torch.Tensor, g: Sequence[torch.Tensor]) -> torch.Tensor:
        """Executed step `index`, and the picture that is shown to nobody."""
        guided = index < int(self.executed * self.settings.guidance_strength)
        latents = self.step(latents, self.timesteps[index], c, g if guided else ())
        self.decode(latents)
        return latents

    def step(self, latents: torch.Tensor, t: int, c: torch.Tensor, g: Sequence[torch.Tensor]) -> torch.Tensor:
        """z_{t-1}; guided where g is not empty."""
        s = self.settings
        abar, before = self.noise_levels(t)
        with torch.no_grad():
            text = torch.cat([self.unconditional, c])
            both, attention = self.with_attention(torch.cat([latents] * 2), t, text)
            uncond, cond = both.chunk(2)
            noise = uncond + s.cfg_scale * (cond - uncond)
            degraded = degrade(latents, uncond, attention, abar)
            again = self.models.unet(degraded, t, encoder_hidden_states=self.unconditional).sample
            noise = noise + s.sag_scale * (uncond - again)
        if g:
            noise = noise + (1 - abar) ** 0.5 * s.guidance_scale * self.gradient(latents, t, c, g, abar)
        x0 = (latents - (1 - abar) ** 0.5 * noise) / abar**0.5
        return before**0.5 * x0 + (1 - before) ** 0.5 * noise

    def noise_levels(self, t: int) -> tuple[float, float]:
        """Cumulative schedule at a timestep and at the one after it."""
        scheduler = self.models.scheduler
        previous = t - scheduler.config.num_train_timesteps // self.settings.n_steps
        final = scheduler.final_alpha_cumprod if previous < 0 else scheduler.alphas_cumprod[previous]
        return float(scheduler.alphas_cumprod[t]), float(final)

    def with_attention(self, latents: torch.Tensor, t: int, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise, and the middle block's self-attention (heads, places, places) of the first image."""
        block = self.models.unet.mid_block.attentions[0].transformer_blocks[0].attn1
        before, kept = block.processor, KeptAttention()
        block.set_processor(kept)
        try:
            noise = self.models.unet(latents, t, encoder_hidden_states=text).sample
        finally:
            block.set_processor(before)
        return noise, kept.probabilities[: len(kept.probabilities) // len(latents)]

    def gradient(
        self, latents: torch.Tensor, t: int, c: torch.Tensor, g: Sequence[torch.Tensor], abar: float
    ) -> torch.Tensor:
        """Of the feature loss with respect to z_t, through a UNet forward of its own."""
        with torch.enable_grad():
            leaf = latents.detach().requires_grad_()
            noise = self.models.unet(leaf, t, encoder_hidden_states=c).sample
            x0 = (leaf - (1 - abar) * noise) / abar**0.5  # the published estimate has no root here
            root = (1 - abar) ** 0.5
            loss = self.loss(root * x0 + (1 - root) * leaf, g)
            return torch.autograd.grad(loss, leaf)[0]

    def loss(self, clean: torch.Tensor, g: Sequence[torch.Tensor]) -> torch.Tensor:
        """Weighted mean squares between the features of the decoded picture and g."""
        encoder = getattr(self.models.image_encoder, "vision_model", self.models.image_encoder)
        features: list[torch.Tensor] = []
        taps = [b.mlp.fc2.register_forward_hook(lambda m, i, o: features.append(o)) for b in encoder.encoder.layers]
        size = (encoder.config.image_size,) * 2
        picture = ((self.models.vae.decode(clean / self.models.vae.config.scaling_factor).sample + 1) / 2).clamp(0, 1)
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
        mean, std = (picture.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        encoder((picture - mean) / std)
        for tap in taps:
            tap.remove()
        inverse = torch.stack([1 / target.norm() for target in g])
        weights = inverse / inverse.sum() * inverse.new_tensor(LAYER_WEIGHTS[: len(g)])
        return sum(w * F.mse_loss(f, target) for w, f, target in zip(weights, features, g, strict=False))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            picture = self.models.vae.decode(latents / self.models.vae.config.scaling_factor).sample
        return ((picture + 1) / 2).clamp(0, 1)


def degrade(latents: torch.Tensor, noise: torch.Tensor, attention: torch.Tensor, abar: float) -> torch.Tensor:
    """Latents whose clean estimate is blurred where the attention (heads, places, places) is high."""
    x0 = (latents - (1 - abar) ** 0.5 * noise) / abar**0.5
    h, w = latents.shape[-2:]
    received = attention.mean(0).sum(0)
    shrink = (h * w / len(received)) ** 0.5
    mask = (received > 1).to(latents.dtype).reshape(1, 1, round(h / shrink), round(w / shrink))
    mask = F.interpolate(mask, (h, w))
    line = torch.exp(-0.5 * torch.arange(-4.0, 5.0, device=x0.device, dtype=x0.dtype) ** 2)
    kernel = (torch.outer(line, line) / line.sum() ** 2).expand(x0.shape[1], 1, 9, 9)
    blurred = F.conv2d(F.pad(x0, (4, 4, 4, 4), mode="reflect"), kernel, groups=x0.shape[1])
    return abar**0.5 * (mask * blurred + (1 - mask) * x0) + (1 - abar) ** 0.5 * noise
