"""From decoded embeddings to images: noise the decoded z, denoise with c, pull toward g, decode once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from napari_neuraldiffuser.core.base.memory import halving
from napari_neuraldiffuser.core.diffusion import loop, start
from napari_neuraldiffuser.core.diffusion.build import build_denoiser, critic_of, repeated
from napari_neuraldiffuser.core.diffusion.chunks import Chunked, chunks
from napari_neuraldiffuser.core.diffusion.feature_cache import check_blocks
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.diffusion.solvers import FreshNoise, Problem, check_solver, solver_for
from napari_neuraldiffuser.core.networks.chosen import chosen
from napari_neuraldiffuser.core.networks.embeddings import EmbeddingError, Embeddings
from napari_neuraldiffuser.core.networks.machine import free_memory
from napari_neuraldiffuser.core.networks.models import Models, check_layers, vision_model
from napari_neuraldiffuser.core.networks.precision import computing_in
from napari_neuraldiffuser.core.networks.room import images_with_room
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams


@dataclass
class Reconstruction:
    """Images of some stimuli.

    Attributes
    ----------
    images : ndarray (n_stimuli, repeats, H, W, 3) uint8
    losses : ndarray (n_stimuli, repeats, guided steps) float32
        Feature loss of each image at each guided step.
    finite : ndarray (n_stimuli,) bool
        False where a latent overflowed; those images mean nothing.
    stimulus_ids : ndarray (n_stimuli,) int
    latents : ndarray (n_stimuli, repeats, 3) float32
        `latent_figures` of each image; NaN where they are not known.
    """

    images: np.ndarray
    losses: np.ndarray
    finite: np.ndarray
    stimulus_ids: np.ndarray
    latents: np.ndarray


@dataclass(frozen=True)
class StepEvent:
    """What a callback is told after every diffusion step.

    `clean()` gives the estimate of the clean latents that the step was made with, (n * repeats, 4, h, w); it is
    computed when it is called.  While an inverted start is sought, `done` is 0 and `before` says how far it is.
    """

    stimulus_ids: tuple[int, ...]
    done: int
    total: int
    timestep: float
    loss: np.ndarray | None
    latents: torch.Tensor
    clean: Callable[[], torch.Tensor]
    before: str = ""

    def shown(self) -> torch.Tensor:
        """Latents of the image as far as it has come: the clean estimate, and after the last step the result.

        On the way there the latents themselves are mostly noise.
        """
        return self.latents if self.done == self.total else self.clean()

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", feature loss {self.loss.mean():.4g}"
        stimuli = ", ".join(map(str, self.stimulus_ids))
        return f"stimuli {stimuli}: {self.before or f'step {self.done} of {self.total}'} (t = {self.timestep}{loss})"


def reconstruct(
    decoded: Embeddings,
    models: Models,
    diffusion: DiffusionParams | None = None,
    guidance: GuidanceParams | None = None,
    callback: Callable[[StepEvent], Any] | None = None,
) -> Reconstruction:
    """Reconstruct every stimulus of `decoded`, `diffusion.repeats` times.

    Parameters
    ----------
    decoded : Embeddings
        z, c and g of n stimuli.
    models : Models
    diffusion, guidance : params
        What was chosen for these models where None, else the defaults; `GuidanceParams(guidance_scale=0)` is the
        baseline without guidance.
    callback : callable, optional
        Called with a StepEvent after every step; what it raises ends the run.

    Returns
    -------
    Reconstruction

    Raises
    ------
    EmbeddingError
        If the embeddings do not fit the models or a layer is missing.
    """
    if diffusion is None or guidance is None:
        own = chosen(models.name, models.guide or None)
        diffusion, guidance = diffusion or own.diffusion, guidance or own.guidance
    check_fit(decoded, models, diffusion, guidance)
    parts = [reconstruct_batch(b, models, diffusion, guidance, callback) for b in batches(decoded, diffusion)]
    names = ("images", "losses", "finite", "latents")
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    return Reconstruction(**joined, stimulus_ids=decoded.stimulus_ids)


def batches(decoded: Embeddings, diffusion: DiffusionParams) -> Iterator[Embeddings]:
    """`stimuli_per_batch` whole stimuli at a time."""
    size = diffusion.stimuli_per_batch
    for first in range(0, len(decoded), size):
        yield decoded.subset(decoded.stimulus_ids[first : first + size])


def reconstruct_batch(
    decoded: Embeddings,
    models: Models,
    diffusion: DiffusionParams,
    guidance: GuidanceParams,
    callback: Callable[[StepEvent], Any] | None = None,
) -> Reconstruction:
    """The images of one batch, at most `batch_size` of them in memory at once, fewer where that does not suffice.

    Where memory runs out the batch begins anew with half as many at once: the callback hears of its first step again.
    """
    models.lay_out(diffusion.precision)
    n_images = len(decoded) * diffusion.repeats
    most = min(n_images, diffusion.batch_size or most_at_once(decoded, models, diffusion, guidance))
    return halving(
        lambda most: _reconstruct(decoded, models, diffusion, guidance, callback, most), most, "images", free_memory
    )


def most_at_once(decoded: Embeddings, models: Models, diffusion: DiffusionParams, guidance: GuidanceParams) -> int:
    """Images that memory has room for, by what the first step of one of them takes."""
    plan = loop.schedule(models.scheduler, diffusion)
    one = slice(0, 1)
    latents = start_latents(decoded.subset(decoded.stimulus_ids[:1]), models, diffusion.but(repeats=1), plan)
    denoiser = build_denoiser(decoded, models, diffusion, guidance, one)

    def first_step() -> None:
        with computing_in(diffusion.precision, models.device):
            for step in plan.steps[:1]:
                denoiser(latents, step)

    return images_with_room(first_step, models.device)


def _reconstruct(
    decoded: Embeddings,
    models: Models,
    diffusion: DiffusionParams,
    guidance: GuidanceParams,
    callback: Callable[[StepEvent], Any] | None,
    most: int,
) -> Reconstruction:
    """The story of one batch: start, denoise under guidance, decode; the networks take at most `most` images."""
    plan = loop.schedule(models.scheduler, diffusion)
    decoded = begun(decoded, models, diffusion, guidance, _start_listener(decoded, diffusion, plan, callback), most)
    latents = start_latents(decoded, models, diffusion, plan)
    parts = chunks(len(latents), most)
    denoiser = Chunked([(rows, build_denoiser(decoded, models, diffusion, guidance, rows)) for rows in parts])
    losses: list[torch.Tensor] = []

    def after_step(step: loop.Step, prediction: loop.Prediction, z: torch.Tensor) -> None:
        if prediction.loss is not None:
            losses.append(prediction.loss.cpu())
        if callback is not None:
            loss = None if prediction.loss is None else losses[-1].numpy()
            ids = tuple(int(s) for s in decoded.stimulus_ids)
            clean = partial(clean_latents, step, prediction)
            callback(StepEvent(ids, step.index + 1, step.n_steps, step.timestep, loss, z, clean))

    solver = solver_for(Problem(models.scheduler, diffusion, plan, fresh_noise(decoded, models, diffusion)))
    with computing_in(diffusion.precision, models.device):
        latents = loop.sample(latents, plan.steps, denoiser, after_step, solver)
        images = np.concatenate([to_images(models, latents[rows], diffusion.rounding) for rows in parts])
    n, repeats = len(decoded), diffusion.repeats
    by_stimulus = torch.stack(losses, dim=1) if losses else torch.zeros(n * repeats, 0)
    finite = torch.isfinite(latents).flatten(1).all(dim=1).cpu().numpy().reshape(n, repeats).all(axis=1)
    return Reconstruction(
        images.reshape(n, repeats, *images.shape[1:]),
        by_stimulus.numpy().reshape(n, repeats, -1).astype(np.float32),
        np.asarray(finite),
        decoded.stimulus_ids,
        latent_figures(latents).reshape(n, repeats, -1),
    )


def latent_figures(latents: torch.Tensor) -> np.ndarray:
    """Mean, standard deviation and largest absolute value of each image's latents (n, 4, h, w); (n, 3) float32."""
    flat = latents.detach().float().flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, correction=0), flat.abs().amax(1)], dim=1).cpu().numpy()


def begun(
    decoded: Embeddings,
    models: Models,
    diffusion: DiffusionParams,
    guidance: GuidanceParams,
    listener: start.Listener | None = None,
    most: int | None = None,
) -> Embeddings:
    """The embeddings with the z that is noised: as decoded, or inverted (`DiffusionParams.start`), `most` at once."""

    def solve(rows: Embeddings) -> torch.Tensor:
        found = []
        for part in chunks(len(rows), most or len(rows)):
            z, critic = repeated(models, rows.z, 1, part), critic_of(rows, models, guidance, 1, part)
            with computing_in(diffusion.precision, models.device):
                found.append(start.invert(z, critic, diffusion, listener))
        return torch.cat(found)

    made_by = [models.digest, str(models.device), str(models.dtype), diffusion.precision]
    return start.started(decoded, made_by, (diffusion, guidance), solve)


def _start_listener(
    decoded: Embeddings,
    diffusion: DiffusionParams,
    plan: loop.Schedule,
    callback: Callable[[StepEvent], Any] | None,
) -> start.Listener | None:
    """Tells the callback of the gradient steps that come before the first step of the diffusion."""
    if callback is None:
        return None
    tell, ids = callback, tuple(int(s) for s in decoded.stimulus_ids)
    timestep = plan.steps[0].timestep if plan.steps else 0

    def after_step(event: start.StartEvent) -> None:
        z = event.latents.repeat_interleave(diffusion.repeats, dim=0)
        what = f"start, gradient step {event.done} of {event.total}"
        tell(StepEvent(ids, 0, len(plan.steps), timestep, None, z, lambda: z, what))

    return after_step


def clean_latents(step: loop.Step, prediction: loop.Prediction) -> torch.Tensor:
    """x0 (method.md eq. 25) with the guidance's pull included; (n * repeats, 4, h, w)."""
    of_latents, of_noise = step.clean_factors()
    noise = [(of_noise * c, tensor) for c, tensor in prediction.terms + prediction.pull]
    return loop.combine([(of_latents, prediction.latents), *noise])


def start_latents(decoded: Embeddings, models: Models, diffusion: DiffusionParams, plan: loop.Schedule) -> torch.Tensor:
    """Decoded z, repeated and noised to the start of the schedule; (n * repeats, 4, h, w)."""
    z = repeated(models, decoded.z, diffusion.repeats)
    return loop.add_noise(z, noise_of(decoded, diffusion).to(z), plan.start_abar)


def noise_of(decoded: Embeddings, diffusion: DiffusionParams, *step: int) -> torch.Tensor:
    """Noise of the start of every image, or what a step adds anew; (n * repeats, 4, h, w) float32."""
    stimuli = [0] * len(decoded) if diffusion.noise == "shared" else map(int, decoded.stimulus_ids)
    images = product(stimuli, range(diffusion.repeats))
    return torch.from_numpy(
        np.stack([loop.noise_for(diffusion.seed, *image, decoded.z.shape[1:], *step) for image in images])
    )


def fresh_noise(decoded: Embeddings, models: Models, diffusion: DiffusionParams) -> FreshNoise:
    """Noise that a step adds, of the step and of each image alone."""
    return lambda step: noise_of(decoded, diffusion, step.index + 1).to(models.device)


def to_images(models: Models, latents: torch.Tensor, rounding: str = "nearest") -> np.ndarray:
    """Latents (n, 4, h, w) to images (n, H, W, 3) uint8, to the nearest value or truncated (method.md eq. 37)."""
    with torch.no_grad():
        image = models.decode_latents(latents)
    image = ((image + 1) / 2).clamp(0, 1).nan_to_num(0).permute(0, 2, 3, 1)
    values = image.float().cpu().numpy() * 255
    return (values if rounding == "truncate" else values.round()).astype(np.uint8)


def start_images(
    decoded: Embeddings,
    models: Models,
    diffusion: DiffusionParams,
    guidance: GuidanceParams,
    listener: start.Listener | None = None,
) -> np.ndarray:
    """What the diffusion begins from as images (n, H, W, 3) uint8, in the batches that it runs in."""
    parts = [begun(batch, models, diffusion, guidance, listener).z for batch in batches(decoded, diffusion)]
    return decode_start(np.concatenate(parts), models)


def decode_start(z: np.ndarray, models: Models) -> np.ndarray:
    """Decoded z (n, 4, h, w) as images (n, H, W, 3) uint8: the starting points, what z alone shows."""
    parts = [to_images(models, repeated(models, z[i : i + 8], 1)) for i in range(0, len(z), 8)]
    return np.concatenate(parts)


def check_fit(decoded: Embeddings, models: Models, diffusion: DiffusionParams, guidance: GuidanceParams) -> None:
    """Raise EmbeddingError where shapes, layers or the number of stimuli cannot work."""
    if len(decoded) == 0:
        raise EmbeddingError("decoded must have at least one stimulus, got none. Check the test set.")
    if tuple(decoded.z.shape[1:]) != tuple(models.latent_shape):
        raise EmbeddingError(
            f"z must have shape {tuple(models.latent_shape)} for {models.name}, got {tuple(decoded.z.shape[1:])}. "
            "Decode with targets that these models made."
        )
    if diffusion.cache_every > 1:
        check_blocks(models.unet)
    width = models.unet.config.cross_attention_dim
    if decoded.c.shape[-1] != width:
        raise EmbeddingError(f"c must have width {width} for {models.name}, got {decoded.c.shape[-1]}.")
    check_solver(models, diffusion)
    if diffusion.start == "inverted" or n_guided_steps(diffusion.executed_steps, guidance):
        if guidance.guide_decoder == "tiny":
            models.check_tiny()
        layers = guidance.layers
        check_layers(layers, len(vision_model(models.image_encoder).encoder.layers))
        missing = [layer for layer in layers if layer not in decoded.g]
        if missing:
            raise EmbeddingError(
                f"decoded must have the guidance layers {list(layers)}, missing: {', '.join(missing)}. "
                "Decode them or leave them out of the guidance layers."
            )
