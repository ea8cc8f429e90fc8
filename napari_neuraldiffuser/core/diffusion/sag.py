"""Self-attention guidance (Hong et al., ICCV 2023, equation 25), which the published NeuralDiffuser code runs at 0.75.

The unconditional half's self-attention of the UNet's middle block says where the network looks; the clean estimate is
blurred there, noised again, and the difference of the two unconditional predictions is added.  One more UNet forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from napari_neuraldiffuser.core.diffusion.classifier_free import ClassifierFree
from napari_neuraldiffuser.core.diffusion.loop import Prediction, Step, add_noise
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.parts import UNet

BLUR_SIZE, BLUR_SIGMA = 9, 1.0
ATTENTION_THRESHOLD = 1.0


class AttentionTap:
    """Attention processor that computes plain softmax attention and keeps the probabilities of the first call."""

    def __init__(self) -> None:
        self.probabilities = torch.empty(0)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(project(x))
            for project, x in ((attn.to_q, hidden_states), (attn.to_k, source), (attn.to_v, source))
        )
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        if not len(self.probabilities):
            self.probabilities = probabilities.detach().unflatten(0, (-1, attn.heads))
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](mixed))


@contextmanager
def tapped(unet: UNet) -> Iterator[AttentionTap]:
    """Put an AttentionTap on the self-attention of the UNet's middle block, and the old processor back."""
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    before, tap = attention.processor, AttentionTap()
    attention.set_processor(tap)
    try:
        yield tap
    finally:
        attention.set_processor(before)


@dataclass
class SelfAttentionGuided:
    """Denoiser that adds sag_scale (eps_u - eps_u(degraded z_t)) (method.md eq. 28).

    In steps without classifier-free guidance the conditional prediction stands for the unconditional one.  Where the
    UNet's deep features are reused, so is the attention that came with them: one denoiser for every batch.
    """

    denoiser: ClassifierFree
    sag_scale: float
    _attention: torch.Tensor = field(default_factory=lambda: torch.empty(0), init=False, repr=False)

    def __call__(self, latents: torch.Tensor, step: Step) -> Prediction:
        plain = self.denoiser
        with tapped(plain.unet) as tap:
            prediction = plain(latents, step)
        uncond = prediction.noise_uncond
        if len(tap.probabilities):
            # either call order of ClassifierFree puts the unconditional half first
            self._attention = tap.probabilities[: len(uncond)]
        text = plain.unconditional.expand_as(plain.condition) if plain.has_both(step) else plain.condition
        with torch.no_grad():
            degraded = degrade(latents.detach(), uncond, self._attention, step)
            noise = plain.noise(degraded, step, text, "degraded")
        return prediction.plus((self.sag_scale, uncond), (-self.sag_scale, noise))


def degrade(latents: torch.Tensor, noise: torch.Tensor, attention: torch.Tensor, step: Step) -> torch.Tensor:
    """z_t whose clean estimate is blurred where the self-attention (B, heads, hw, hw) is high (method.md eq. 27)."""
    x0 = ops.guided_step([latents, noise], step.clean_factors())
    mask = attention_mask(attention, latents.shape[-2:]).to(latents.dtype)
    blurred = gaussian_blur(x0) * mask + x0 * (1 - mask)
    return add_noise(blurred, noise, step.abar)


def attention_mask(attention: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Places (B, 1, h, w) that receive more attention than an even share, summed over queries, mean over heads
    (method.md eq. 26).
    """
    received = attention.mean(dim=1).sum(dim=1)
    # the middle block works on the latents' grid, 2^k times coarser, rounded up
    shrink = (size[0] * size[1] / received.shape[1]) ** 0.5
    rows = round(size[0] / shrink)
    mask = (received > ATTENTION_THRESHOLD).unflatten(1, (rows, -1)).unsqueeze(1)
    return F.interpolate(mask.float(), tuple(size))


def gaussian_blur(x: torch.Tensor) -> torch.Tensor:
    """9 x 9 Gaussian of sigma 1 with reflected edges, per channel."""
    half = BLUR_SIZE // 2
    line = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    line = torch.exp(-0.5 * (line / BLUR_SIGMA) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    weight = kernel.expand(x.shape[1], 1, BLUR_SIZE, BLUR_SIZE)
    return F.conv2d(F.pad(x, (half,) * 4, mode="reflect"), weight, groups=x.shape[1])
