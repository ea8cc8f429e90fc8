"""The layers of a UNet before its first look at the text, computed once for two halves of a batch that differ in it.

Classifier-free guidance gives the network the same latents twice, with the empty caption and with the decoded one.
Until the first cross-attention both halves are the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def before_text(unet: Any) -> list[nn.Module]:
    """Layers of a UNet that the text has no part in, in the order in which they run."""
    layers: list[nn.Module] = [unet.conv_in]
    for block in unet.down_blocks:
        transformers = getattr(block, "attentions", None)
        if transformers is not None:
            return [*layers, block.resnets[0], *_before_text(transformers[0])]
        layers += [*block.resnets, *(block.downsamplers or ())]
    return layers


def _before_text(transformer: Any) -> list[nn.Module]:
    blocks = getattr(transformer, "transformer_blocks", None)
    if not blocks or getattr(blocks[0], "only_cross_attention", True) or getattr(blocks[0], "attn2", None) is None:
        return []
    return [transformer.norm, transformer.proj_in, blocks[0].norm1, blocks[0].attn1]


@contextmanager
def once_for_both_halves(unet: Any) -> Iterator[None]:
    """Inside the block the latents of every batch are the same in both halves: layers before the text compute one.

    Parameters
    ----------
    unet : diffusers.UNet2DConditionModel
        Or a wrapper of one that has its parts; no gradient may go through it.
    """
    layers = [layer for layer in before_text(unet) if "forward" not in vars(layer)]
    for layer in layers:
        layer.forward = Half(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@dataclass
class Half:
    """A layer's forward for the first half of a batch, and its result twice."""

    forward: Callable[..., Tensor]

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        def halved(value: Any) -> Any:
            batch = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(x)
            return value[: len(x) // 2] if batch else value

        rest = {name: halved(value) for name, value in kwargs.items()}
        own = self.forward(halved(x), *map(halved, args), **rest)
        return torch.cat([own, own])
