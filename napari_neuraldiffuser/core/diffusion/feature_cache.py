"""Deep features of the UNet, reused between neighbouring steps: DeepCache (Ma, Fang and Wang, CVPR 2024, arXiv
2312.00858).

What the inner blocks of the UNet compute hardly changes from one step to the next.  At every k-th step the whole UNet
runs, and what enters the last layers of its last block is kept; in between only the first layer and those last layers
run, on the new latents and the kept features.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from napari_neuraldiffuser.core.diffusion.loop import Step
from napari_neuraldiffuser.core.diffusion.predictor import Predictor
from napari_neuraldiffuser.core.networks.parts import UNet
from napari_neuraldiffuser.core.networks.source import ModelError

FIRST_BLOCKS, LAST_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")


@dataclass
class FeatureCache:
    """Features of one batch; a fresh one for every batch.

    Attributes
    ----------
    every : int
        The whole UNet runs at every so manieth step.
    first : int
        Index of the first step that counts; before it nothing is kept or reused.
    """

    every: int
    first: int
    _kept: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, unet: UNet, latents: torch.Tensor, step: Step, text: torch.Tensor, call: str) -> torch.Tensor:
        """What `unet` predicts, (B, 4, h, w), from kept features where there are some; without gradients.

        Parameters
        ----------
        call : str
            Which of a step's calls this is: each has features of its own.
        """
        since = step.index - self.first
        if since < 0:
            with torch.no_grad():
                plain: torch.Tensor = unet(latents, step.timestep, encoder_hidden_states=text).sample
            return plain
        if since % self.every and call in self._kept:
            return from_features(unet, latents, step.timestep, text, self._kept[call])
        predicted, self._kept[call] = with_features(unet, latents, step.timestep, text)
        return predicted


def check_blocks(unet: UNet) -> None:
    """Raise ModelError unless the first and the last block of a UNet are of the usual kinds."""
    parts: Any = unet
    first, last = type(parts.down_blocks[0]).__name__, type(parts.up_blocks[-1]).__name__
    if first not in FIRST_BLOCKS or last not in LAST_BLOCKS:
        raise ModelError(
            f"cache_every must be 1 for a UNet that begins with {first} and ends with {last}: features are kept of "
            f"{' or '.join(FIRST_BLOCKS)} and {' or '.join(LAST_BLOCKS)} alone."
        )


def with_features(
    unet: UNet, latents: torch.Tensor, timestep: float, text: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction of the whole UNet, and what enters the last two layers of its last block, (B, C, h, w)."""
    parts: Any = unet
    seen: list[torch.Tensor] = []
    skipped = parts.down_blocks[0].resnets[0].out_channels

    def keep(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        # the layer's input is the features, and behind them what skipped the deep part
        seen.append(inputs[0][:, : inputs[0].shape[1] - skipped].clone())

    hook = parts.up_blocks[-1].resnets[-2].register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            predicted = unet(latents, timestep, encoder_hidden_states=text).sample
    finally:
        hook.remove()
    return predicted, seen[0]


def from_features(
    unet: UNet, latents: torch.Tensor, timestep: float, text: torch.Tensor, features: torch.Tensor
) -> torch.Tensor:
    """Prediction (B, 4, h, w) of the first layer and the last two, between which the given features stand."""
    parts: Any = unet
    with torch.no_grad():
        scale = unet.scale_of(latents) if isinstance(unet, Predictor) else None
        time = parts.time_embedding(parts.get_time_embed(sample=latents, timestep=timestep), scale)
        if parts.time_embed_act is not None:
            time = parts.time_embed_act(time)
        outer = parts.conv_in(2 * latents - 1 if parts.config.center_input_sample else latents)
        inner = _layer(parts.down_blocks[0], 0, outer, time, text)
        found = features
        for layer, skipped in ((-2, inner), (-1, outer)):
            found = _layer(parts.up_blocks[-1], layer, torch.cat([found, skipped], dim=1), time, text)
        if parts.conv_norm_out is not None:
            found = parts.conv_act(parts.conv_norm_out(found))
        predicted: torch.Tensor = parts.conv_out(found)
        return unet.as_noise(predicted, latents, timestep) if isinstance(unet, Predictor) else predicted


def _layer(block: Any, index: int, hidden: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """One residual layer of a block, and its attention where the block has some."""
    hidden = block.resnets[index](hidden, time)
    attentions = getattr(block, "attentions", None)
    if attentions is not None:
        hidden = attentions[index](hidden, encoder_hidden_states=text, return_dict=False)[0]
    return hidden
