"""The critic of guidance: how far what clean latents decode to is from the decoded features g (method.md eq. 31-33)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.networks.models import Models


@dataclass(frozen=True)
class Pull:
    """What a critic says of a batch, and what a rule makes a step of.

    Attributes
    ----------
    loss : Tensor (B,)
    gradient : Tensor (B, 4, h, w)
        `scale` times the gradient of each image's loss: by the clean latents as a critic gives it, by z_t as a rule
        gets it.
    scale : float
        Power of two that keeps the gradient from underflow in half precision.
    correction : Tensor (B, 4, h, w)
        Where the rule descends on the clean estimate itself, how far it went.
    """

    loss: torch.Tensor
    gradient: torch.Tensor
    scale: float = 1.0
    correction: torch.Tensor = field(default_factory=lambda: torch.empty(0))


Critic = Callable[[torch.Tensor], Pull]
"""Judges clean latents (B, 4, h, w); the gradient of one image must not depend on the others."""


@dataclass(frozen=True)
class FeatureCritic:
    """Feature loss of decoded latents against the target features g.

    L_b = sum_l w_bl mean((f_bl - g_bl)^2) (method.md eq. 33) with the weights w of `layer_loss_weights`.

    Attributes
    ----------
    models : Models
    targets : list of Tensor (B, tokens, width)
        Decoded features of each layer in `layers`.
    layers : sequence of str
    layer_weights : sequence of float
        a_l.
    feature_normalisation : str
        The one that the targets were computed with.
    decoder : str
        "vae", or "tiny" for the models' tiny decoder.
    antialias : bool
        Likewise, of the resize.
    """

    models: Models
    targets: Sequence[torch.Tensor]
    layers: Sequence[str]
    layer_weights: Sequence[float]
    feature_normalisation: str = "imagenet"
    decoder: str = "vae"
    antialias: bool = True

    def __call__(self, clean: torch.Tensor) -> Pull:
        with torch.enable_grad():
            leaf = clean.detach().requires_grad_()
            computed = self.features(leaf)
            features = [feature.to(clean.dtype) for feature in computed]  # autocast may have halved them
        weights = layer_loss_weights(self.targets, self.layer_weights)
        scale = ops.gradient_scale(computed[0].dtype, max(f[0].numel() for f in features))
        with torch.no_grad():
            loss, grads = ops.feature_loss_grad(features, list(self.targets), weights, scale)
        # the loss is per image, so the gradient of one image does not depend on the others
        (gradient,) = torch.autograd.grad(features, leaf, grads)
        return Pull(loss, gradient, scale)

    def features(self, clean: torch.Tensor) -> list[torch.Tensor]:
        """Features of each layer, (B, tokens, width), of what clean latents decode to (method.md eq. 31)."""
        mean, std = self.models.normalisation(self.feature_normalisation)
        image = self.models.decode_latents(clean, self.decoder)
        pixels = ops.prepare_image(image, self.models.guide_size(), mean, std, self.antialias)
        return self.models.features(pixels, self.layers)


def layer_loss_weights(targets: Sequence[torch.Tensor], layer_weights: Sequence[float]) -> torch.Tensor:
    """Weights w (B, L) of the layer losses: a_l times the normalised inverse norms of the targets (method.md eq. 32).

    In float32 at least: the norm of a layer does not fit float16.
    """
    dtype = torch.promote_types(targets[0].dtype, torch.float32)
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=dtype) for g in targets]
    inverse = 1 / torch.stack(norms, dim=1)
    return inverse / inverse.sum(dim=1, keepdim=True) * inverse.new_tensor(layer_weights)
