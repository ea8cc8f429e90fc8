"""Noise of guidance rules: of copies of the clean estimate, and of steps that are taken again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_neuraldiffuser.core.diffusion.loop import Step, noise_for


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
        key = (step.index + 1, round_, draw)
        rows = [noise_for(self.seed, *image, like.shape[1:], *key) for image in self.images]
        return torch.from_numpy(np.stack(rows)).to(like)
