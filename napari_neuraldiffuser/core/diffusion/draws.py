"""Noise of guidance rules: of copies of the clean estimate, and of steps that are taken again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_neuraldiffuser.core.diffusion.loop import Step


@dataclass(frozen=True)
class Draws:
    """Standard normal noise that depends on (seed, stimulus, repeat, step, round, draw) alone, never on the batch.

    Attributes
    ----------
    seed : int
    images : sequence of (stimulus id, repeat)
        The rows of the batch.
    """

    seed: int
    images: Sequence[tuple[int, int]]

    def __call__(self, like: torch.Tensor, step: Step, round_: int, draw: int) -> torch.Tensor:
        """Noise of the shape, type and device of `like`, (B, 4, h, w)."""
        shape = tuple(like.shape[1:])
        rows = [_normal((self.seed, *image, step.index + 1, round_, draw), shape) for image in self.images]
        return torch.from_numpy(np.stack(rows)).to(like)


def _normal(key: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    # a step's number starts at 1: a seed sequence takes missing words for zeros, and three words are the start's noise
    bits = np.random.Philox(np.random.SeedSequence(list(key)))
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)
