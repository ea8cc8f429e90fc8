"""A denoiser of more images than memory holds at once: some at a time, joined to one prediction for the solver."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from napari_neuraldiffuser.core.diffusion.loop import Denoiser, Prediction, Step, Term


@dataclass(frozen=True)
class Chunked:
    """Denoiser that has others predict for some images each.

    Attributes
    ----------
    parts : sequence of (slice, Denoiser)
        Which images of the batch, in order and without gaps, and what predicts for them.
    """

    parts: Sequence[tuple[slice, Denoiser]]

    def __call__(self, latents: torch.Tensor, step: Step) -> Prediction:
        return joined([denoiser(latents[rows], step) for rows, denoiser in self.parts])


def chunks(n_images: int, most: int) -> list[slice]:
    """Slices of at most `most` of `n_images` images."""
    return [slice(start, min(start + most, n_images)) for start in range(0, n_images, most)]


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """One prediction for all images from those for some each, which denoisers of one kind made."""
    if len(predictions) == 1:
        return predictions[0]
    losses = [p.loss for p in predictions if p.loss is not None]
    return Prediction(
        torch.cat([p.latents for p in predictions]),
        _terms([p.terms for p in predictions]),
        torch.cat([p.noise_uncond for p in predictions]),
        torch.cat([p.noise_cond for p in predictions]),
        _terms([p.pull for p in predictions]),
        _terms([p.shift for p in predictions]),
        torch.cat(losses) if losses else None,
    )


def _terms(parts: Sequence[tuple[Term, ...]]) -> tuple[Term, ...]:
    """The k-th terms of all parts as one; a coefficient is one number for all images, or one for each."""
    return tuple(
        (_coefficient([c for c, _ in same]), torch.cat([tensor for _, tensor in same]))
        for same in zip(*parts, strict=True)
    )


def _coefficient(values: Sequence[float | torch.Tensor]) -> float | torch.Tensor:
    numbers = [value for value in values if not isinstance(value, torch.Tensor)]
    if len(numbers) == len(values):
        return numbers[0]
    return torch.cat([value for value in values if isinstance(value, torch.Tensor)])
