"""What the method asks of the networks, whoever wrote them; those of diffusers and transformers have it."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch


class Network(Protocol):
    """A module with weights and, in `config`, what it was built from."""

    config: Any

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def requires_grad_(self, requires_grad: bool) -> Any: ...

    def to(self, **where: Any) -> Any: ...


class VAE(Network, Protocol):
    """Images to latents and back."""

    decoder: torch.nn.Module

    def encode(self, pixels: torch.Tensor) -> Any:
        """Pixels (n, 3, H, W) in [-1, 1] to `.latent_dist` with `.mean` (n, 4, h, w)."""

    def decode(self, latents: torch.Tensor) -> Any:
        """Latents (n, 4, h, w) to `.sample` (n, 3, H, W)."""


class UNet(Network, Protocol):
    """Predicts the noise in latents."""

    mid_block: Any

    def __call__(self, latents: torch.Tensor, timestep: float, *, encoder_hidden_states: torch.Tensor) -> Any:
        """Latents (n, 4, h, w) and text (n, tokens, width) to `.sample` (n, 4, h, w)."""


class NoiseSchedule(Protocol):
    """How much noise the latents have at every timestep."""

    config: Any
    timesteps: torch.Tensor
    alphas_cumprod: torch.Tensor
    final_alpha_cumprod: torch.Tensor

    def set_timesteps(self, n_steps: int) -> None:
        """Choose the timesteps of a run."""


class TextEncoder(Network, Protocol):
    """Tokens to a text embedding."""

    def __call__(self, tokens: torch.Tensor) -> Any:
        """Tokens (n, tokens) to a tuple whose first is (n, tokens, width)."""


class ImageEncoder(Network, Protocol):
    """A CLIP vision model: the guide network."""

    def __call__(self, pixels: torch.Tensor) -> Any:
        """Normalised pixels (n, 3, S, S) to `.image_embeds` or `.pooler_output` (n, d)."""
