"""The denoiser and the critic of a batch: what the params ask for, around the networks of the models."""

from itertools import product

import numpy as np
import torch

from napari_neuraldiffuser.core.diffusion import loop
from napari_neuraldiffuser.core.diffusion.classifier_free import ClassifierFree
from napari_neuraldiffuser.core.diffusion.critic import FeatureCritic
from napari_neuraldiffuser.core.diffusion.draws import Draws
from napari_neuraldiffuser.core.diffusion.feature_cache import FeatureCache
from napari_neuraldiffuser.core.diffusion.guidance import Guided
from napari_neuraldiffuser.core.diffusion.predictor import noise_predictor, takes_scale
from napari_neuraldiffuser.core.diffusion.rules import n_guided_steps
from napari_neuraldiffuser.core.diffusion.sag import SelfAttentionGuided
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams


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
    draws = Draws(diffusion.seed, list(product(map(int, decoded.stimulus_ids), range(diffusion.repeats)))[rows])
    return Guided(denoiser, critic_of(decoded, models, guidance, diffusion.repeats, rows), guidance, draws)


def critic_of(
    decoded: Embeddings, models: Models, guidance: GuidanceParams, repeats: int, rows: slice = slice(None)
) -> FeatureCritic:
    """Judge of clean latents by the decoded features, each stimulus `repeats` times in a row; `rows` of that."""
    targets = [repeated(models, decoded[layer], repeats, rows) for layer in guidance.layers]
    normalisation = decoded.attrs.get("feature_normalisation", "imagenet")
    antialias = decoded.attrs.get("antialias") != "no"
    weights, decoder = guidance.layer_weights, guidance.guide_decoder
    return FeatureCritic(models, targets, guidance.layers, weights, normalisation, decoder, antialias)


def classifier_free(
    condition: torch.Tensor, models: Models, diffusion: DiffusionParams, guidance: GuidanceParams
) -> ClassifierFree:
    """The UNet with classifier-free guidance; after the guided steps alone its features may be reused."""
    guided = n_guided_steps(diffusion.executed_steps, guidance)
    features = FeatureCache(diffusion.cache_every, guided) if diffusion.cache_every > 1 else None
    unet, unconditional = noise_predictor(models, diffusion.cfg_scale), models.encode_text([""])
    # the network itself follows the scale where it takes it
    scale = 1.0 if takes_scale(models.unet) else diffusion.cfg_scale
    both_until = guided if scale != 1 else _both_until(guided, diffusion, guidance)
    return ClassifierFree(unet, condition, unconditional, scale, diffusion.cfg_until, both_until, features)


def _both_until(guided: int, diffusion: DiffusionParams, guidance: GuidanceParams) -> int:
    """Steps that need the unconditional prediction although classifier-free guidance does not."""
    if diffusion.sag_scale > 0:
        return diffusion.executed_steps
    return guided if guidance.normalise == "rms" or guidance.rule == "freedom" else 0


def repeated(models: Models, values: np.ndarray, repeats: int, rows: slice = slice(None)) -> torch.Tensor:
    """Rows of `values`, each `repeats` times in a row, on the models' device; `rows` of that."""
    of_image = np.repeat(np.arange(len(values)), repeats)[rows]
    return torch.as_tensor(np.ascontiguousarray(values[of_image])).to(models.device, models.dtype)
