"""From decoded embeddings to images: noise the decoded z, denoise with c, pull toward g, decode once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from napari_neuraldiffuser.core.base.memory import halving
from napari_neuraldiffuser.core.diffusion import loop
from napari_neuraldiffuser.core.diffusion.chunks import Chunked, chunks
from napari_neuraldiffuser.core.diffusion.classifier_free import ClassifierFree
from napari_neuraldiffuser.core.diffusion.critic import FeatureCritic
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.feature_cache import FeatureCache, check_blocks
from napari_neuraldiffuser.core.diffusion.guidance import Guided
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.diffusion.sag import SelfAttentionGuided
from napari_neuraldiffuser.core.diffusion.solvers import FreshNoise, Problem, solver_for
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
    """

    images: np.ndarray
    losses: np.ndarray
    finite: np.ndarray
    stimulus_ids: np.ndarray


@dataclass(frozen=True)
class StepEvent:
    """What a callback is told after every diffusion step.

    `clean()` gives the estimate of the clean latents that the step was made with, (n * repeats, 4, h, w); it is
    computed when it is called.
    """

    stimulus_ids: tuple[int, ...]
    done: int
    total: int
    timestep: float
    loss: np.ndarray | None
    latents: torch.Tensor
    clean: Callable[[], torch.Tensor]

    def shown(self) -> torch.Tensor:
        """Latents of the image as far as it has come: the clean estimate, and after the last step the result.

        On the way there the latents themselves are mostly noise.
        """
        return self.latents if self.done == self.total else self.clean()

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", feature loss {self.loss.mean():.4g}"
        stimuli = ", ".join(map(str, self.stimulus_ids))
        return f"stimuli {stimuli}: step {self.done} of {self.total} (t = {self.timestep}{loss})"


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
        Defaults where None; `GuidanceParams(guidance_scale=0)` is the baseline without guidance.
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
    diffusion, guidance = diffusion or DiffusionParams(), guidance or GuidanceParams()
    check_fit(decoded, models, diffusion, guidance)
    parts = [reconstruct_batch(b, models, diffusion, guidance, callback) for b in batches(decoded, diffusion)]
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("images", "losses", "finite")}
    return Reconstruction(**joined, stimulus_ids=decoded.stimulus_ids)


def batches(decoded: Embeddings, diffusion: DiffusionParams) -> Iterator[Embeddings]:
    """`stimuli_per_batch` whole stimuli at a time."""
    size = diffusion.stimuli_per_batch
    for start in range(0, len(decoded), size):
        yield decoded.subset(decoded.stimulus_ids[start : start + size])


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
        images = np.concatenate([to_images(models, latents[rows]) for rows in parts])
    n, repeats = len(decoded), diffusion.repeats
    by_stimulus = torch.stack(losses, dim=1) if losses else torch.zeros(n * repeats, 0)
    finite = torch.isfinite(latents).flatten(1).all(dim=1).cpu().numpy().reshape(n, repeats).all(axis=1)
    return Reconstruction(
        images.reshape(n, repeats, *images.shape[1:]),
        by_stimulus.numpy().reshape(n, repeats, -1).astype(np.float32),
        np.asarray(finite),
        decoded.stimulus_ids,
    )


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
    images = product(map(int, decoded.stimulus_ids), range(diffusion.repeats))
    return torch.from_numpy(
        np.stack([loop.noise_for(diffusion.seed, *image, decoded.z.shape[1:], *step) for image in images])
    )


def fresh_noise(decoded: Embeddings, models: Models, diffusion: DiffusionParams) -> FreshNoise:
    """Noise that a step adds, of the step and of each image alone."""
    return lambda step: noise_of(decoded, diffusion, step.index + 1).to(models.device)


def build_denoiser(
    decoded: Embeddings,
    models: Models,
    diffusion: DiffusionParams,
    guidance: GuidanceParams,
    rows: slice = slice(None),
) -> loop.Denoiser:
    """Guided( SelfAttentionGuided( ClassifierFree( UNet ) ) ), each only where its scale is above zero.

    `rows` says for which of the n * repeats images.
    """
    condition = repeated(models, decoded.c, diffusion.repeats, rows)
    plain = classifier_free(condition, models, diffusion, guidance)
    denoiser = SelfAttentionGuided(plain, diffusion.sag_scale) if diffusion.sag_scale > 0 else plain
    if n_guided_steps(diffusion.executed_steps, guidance) == 0:
        return denoiser
    targets = [repeated(models, decoded[layer], diffusion.repeats, rows) for layer in guidance.layers]
    normalisation = decoded.attrs.get("feature_normalisation", "imagenet")
    critic = FeatureCritic(models, targets, guidance.layers, guidance.layer_weights, normalisation, guidance.decoder)
    draws = Draws(diffusion.seed, list(product(map(int, decoded.stimulus_ids), range(diffusion.repeats)))[rows])
    return Guided(denoiser, critic, guidance, draws)


def classifier_free(
    condition: torch.Tensor, models: Models, diffusion: DiffusionParams, guidance: GuidanceParams
) -> ClassifierFree:
    """The UNet with classifier-free guidance; after the guided steps alone its features may be reused."""
    guided = n_guided_steps(diffusion.executed_steps, guidance)
    features = FeatureCache(diffusion.cache_every, guided) if diffusion.cache_every > 1 else None
    unconditional = models.encode_text([""])
    return ClassifierFree(
        models.unet, condition, unconditional, diffusion.cfg_scale, diffusion.cfg_until, guided, features
    )


def repeated(models: Models, values: np.ndarray, repeats: int, rows: slice = slice(None)) -> torch.Tensor:
    """Rows of `values`, each `repeats` times in a row, on the models' device; `rows` of that."""
    of_image = np.repeat(np.arange(len(values)), repeats)[rows]
    return torch.as_tensor(np.ascontiguousarray(values[of_image])).to(models.device, models.dtype)


def to_images(models: Models, latents: torch.Tensor) -> np.ndarray:
    """Latents (n, 4, h, w) to images (n, H, W, 3) uint8 (method.md eq. 37)."""
    with torch.no_grad():
        image = models.decode_latents(latents)
    image = ((image + 1) / 2).clamp(0, 1).nan_to_num(0).permute(0, 2, 3, 1)
    return (image.float().cpu().numpy() * 255).round().astype(np.uint8)


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
    if n_guided_steps(diffusion.executed_steps, guidance):
        if guidance.decoder == "tiny":
            models.check_tiny()
        layers = guidance.layers
        check_layers(layers, len(vision_model(models.image_encoder).encoder.layers))
        missing = [layer for layer in layers if layer not in decoded.g]
        if missing:
            raise EmbeddingError(
                f"decoded must have the guidance layers {list(layers)}, missing: {', '.join(missing)}. "
                "Decode them or leave them out of the guidance layers."
            )
