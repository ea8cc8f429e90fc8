"""The VAE, UNet, text encoder and guide network of one reconstruction, and what images and texts are to them.

A model folder has the layout of a diffusers Stable Diffusion 1.x or 2.x folder plus `image_encoder/`, a CLIP vision
model that serves as the guide network (for Stable Diffusion 1.4: CLIP ViT-B/32).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.registry import LAYERS
from napari_neuraldiffuser.core.networks.digest import PARTS as PARTS
from napari_neuraldiffuser.core.networks.digest import folder_digest, model_source
from napari_neuraldiffuser.core.networks.lean import lean
from napari_neuraldiffuser.core.networks.machine import check_gpu
from napari_neuraldiffuser.core.networks.opening import open_parts
from napari_neuraldiffuser.core.networks.parts import VAE, ImageEncoder, NoiseSchedule, TextEncoder, UNet
from napari_neuraldiffuser.core.networks.precision import HALVES, memory_format, resolved
from napari_neuraldiffuser.core.networks.savings.upsampling import double_and_convolve
from napari_neuraldiffuser.core.networks.source import ModelError
from napari_neuraldiffuser.core.networks.steady import steady

NORMALISATION = {
    # (mean, standard deviation) per RGB channel
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class PixelError(UserError):
    """Images that are not what the networks take; the message names the dtype and the shape."""


@dataclass(eq=False)
class Models:
    """The networks of one reconstruction, on one device and in one precision.

    All are made `steady` and convolve before they double; the VAE's decoder, which guidance differentiates, is `lean`.

    Attributes
    ----------
    vae, unet, text_encoder, image_encoder : Network
        Frozen, in evaluation mode.
    scheduler : NoiseSchedule
        diffusers.DDIMScheduler.
    tokenizer : transformers tokenizer
    name, digest : str
        Folder or hub id, and the SHA-256 over every weight and configuration file.
    guide : str
        Folder or hub id of the guide network, where it is not that of the models.
    vae_tiny : Network, optional
        A small decoder of the same latents (diffusers.AutoencoderTiny), for guided steps alone.
    """

    vae: VAE
    unet: UNet
    scheduler: NoiseSchedule
    text_encoder: TextEncoder
    tokenizer: Any
    image_encoder: ImageEncoder
    name: str = "in memory"
    digest: str = ""
    guide: str = ""
    vae_tiny: VAE | None = None

    def __post_init__(self) -> None:
        self.own_layers()

    def own_layers(self) -> None:
        """Freeze the networks and give them the package's layers, which `restore` takes away from each."""
        for part in self.networks:
            double_and_convolve(steady(part.requires_grad_(False).eval()))
        for vae in (self.vae, self.vae_tiny):
            if vae is not None:
                lean(vae.decoder)

    @property
    def networks(self) -> list[Any]:
        """The parts that have weights."""
        parts = (self.vae, self.unet, self.text_encoder, self.image_encoder, self.vae_tiny)
        return [part for part in parts if part is not None]

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of z."""
        size = self.unet.config.sample_size
        return self.unet.config.in_channels, size, size

    @property
    def image_size(self) -> int:
        """Side of the decoded image in pixels."""
        return self.latent_shape[1] * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> "Models":
        """Move every network (in place)."""
        for part in self.networks:
            part.to(device=device, dtype=dtype)
        return self

    def lay_out(self, precision: str) -> None:
        """Put the weights of the convolutions into the memory format that suits device and precision (in place).

        No number changes, but a GPU may round otherwise.
        """
        half = resolved(precision, self.device) in HALVES or self.dtype in HALVES.values()
        for part in (self.unet, self.vae, self.vae_tiny):
            if part is not None:
                part.to(memory_format=memory_format(half, self.device))

    def encode_images(self, images: np.ndarray, how: str = "bilinear", noise: np.ndarray | None = None) -> torch.Tensor:
        """Images (n, H, W, 3) uint8 to latents z (n, 4, h, w), times the VAE's scaling factor (method.md eq. 5).

        Parameters
        ----------
        how : str
            Resize: "bilinear" or "lanczos".
        noise : ndarray (n, 4, h, w), optional
            Of a sample of the posterior, in place of its mean.
        """
        if how == "lanczos":
            images = lanczos(images, self.image_size)
        pixels = to_tensor(images, self.device, self.dtype)
        pixels = resize(pixels, self.image_size) * 2 - 1
        with torch.no_grad():
            posterior = self.vae.encode(pixels).latent_dist
        z = posterior.mean
        if noise is not None:
            z = z + posterior.std * torch.as_tensor(noise).to(z)
        return z * self.vae.config.scaling_factor

    def decode_latents(self, latents: torch.Tensor, decoder: str = "vae") -> torch.Tensor:
        """Latents z (n, 4, h, w) to images (n, 3, H, W) in the decoder's range, about [-1, 1]; differentiable.

        `decoder` is "vae" or "tiny".

        Raises
        ------
        ModelError
            If it is tiny, and there is none.
        """
        if decoder == "tiny":
            self.check_tiny()
        vae: Any = self.vae_tiny if decoder == "tiny" else self.vae
        image: torch.Tensor = vae.decode(latents / vae.config.scaling_factor).sample
        return image

    def check_tiny(self) -> None:
        """Raise ModelError where there is no tiny decoder."""
        if self.vae_tiny is None:
            raise ModelError(
                f"guide_decoder must be vae for models without a tiny decoder, got tiny for {self.name}. Save an "
                "AutoencoderTiny of the same latents as vae_tiny in their folder (for Stable Diffusion 1.x: TAESD), "
                "or use decoder vae."
            )

    def encode_text(self, captions: Sequence[str]) -> torch.Tensor:
        """Captions to text embeddings (n, tokens, width): the last hidden state, padded to the full length."""
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.text_encoder.config.max_position_embeddings,
            return_tensors="pt",
        )
        with torch.no_grad():
            return self.text_encoder(tokens.input_ids.to(self.device))[0]

    def features(self, pixels: torch.Tensor, layers: Sequence[str] = LAYERS) -> list[torch.Tensor]:
        """Guidance features of normalised pixels (n, 3, S, S): one (n, tokens, width) tensor per layer; differentiable.

        The output of the second MLP linear, before the residual addition, of the block that each layer names
        (method.md eq. 8).  Blocks behind the last layer that is asked for are not run.
        """
        vision = vision_model(self.image_encoder)
        blocks = [layer_block(layer) for layer in layers]
        check_layers(layers, len(vision.encoder.layers))
        taps: dict[int, torch.Tensor] = {}
        hooks = [
            vision.encoder.layers[b].mlp.fc2.register_forward_hook(lambda m, i, out, b=b: taps.__setitem__(b, out))
            for b in blocks
        ]
        try:
            hidden = vision.pre_layrnorm(vision.embeddings(pixels))
            for block in vision.encoder.layers[: max(blocks) + 1]:
                out = block(hidden, attention_mask=None)
                hidden = out[0] if isinstance(out, tuple) else out
        finally:
            for hook in hooks:
                hook.remove()
        return [taps[b] for b in blocks]

    def guide_size(self) -> int:
        """Side of the guide network's input in pixels."""
        return vision_model(self.image_encoder).config.image_size

    def normalisation(self, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that `FeatureParams.feature_normalisation` names."""
        if name == "model":
            return getattr(self.image_encoder, "pixel_statistics", NORMALISATION["clip"])
        return NORMALISATION[name]

    def guide_input(self, images: np.ndarray, normalisation: str, antialias: bool = True) -> torch.Tensor:
        """Images (n, H, W, 3) uint8 as the guide network takes them, (n, 3, size, size), resized and normalised."""
        pixels = resize(to_tensor(images, self.device, self.dtype), self.guide_size(), antialias)
        return normalise(pixels, *self.normalisation(normalisation))

    def image_features(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Final image embeddings (n, d) float32 of images (n, H, W, 3) uint8, for two-way identification."""
        out = []
        for start in range(0, len(images), batch_size):
            with torch.no_grad():
                encoded = self.image_encoder(self.guide_input(images[start : start + batch_size], "model"))
            embedding = getattr(encoded, "image_embeds", None)
            out.append((encoded.pooler_output if embedding is None else embedding).float().cpu().numpy())
        return np.concatenate(out)


def to_tensor(images: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Images (n, H, W, 3) uint8 to a tensor (n, 3, H, W) in [0, 1]."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise PixelError(f"images must be uint8 of shape (n, H, W, 3), got {images.dtype} {images.shape}.")
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).to(dtype) / 255


def resize(pixels: torch.Tensor, size: int, antialias: bool = True) -> torch.Tensor:
    """Bilinear resize of (n, 3, H, W) to a square."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=antialias, align_corners=False)


def lanczos(images: np.ndarray, size: int) -> np.ndarray:
    """Pillow's Lanczos resize of images (n, H, W, 3) uint8 to a square."""
    from PIL import Image

    filter_ = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), filter_)) for image in images])


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(pixels - mean) / std per channel (method.md eq. 7)."""
    shape = (1, -1, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)


def vision_model(encoder: ImageEncoder) -> Any:
    """The transformer inside a CLIP vision model, with or without its projection."""
    return getattr(encoder, "vision_model", encoder)


def layer_block(layer: str) -> int:
    """Transformer block of a guidance layer: g02 is block 0, g12 is block 5."""
    if layer not in LAYERS:
        raise ModelError(f"Guidance layer must be one of {list(LAYERS)}, got {layer!r}.")
    return LAYERS.index(layer)


def check_layers(layers: Sequence[str], n_blocks: int) -> None:
    """Raise ModelError if the guide network has no block for one of `layers`."""
    for layer in layers:
        if layer_block(layer) >= n_blocks:
            raise ModelError(
                f"Guidance layer must be in the guide network's first {n_blocks} blocks, got {layer!r} "
                f"(block {layer_block(layer)}). Leave it out of layers or use a deeper image encoder."
            )


def load(
    path: str | Path, guide: str | Path | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Models:
    """Open a model folder, the bundled models (`"demo"`), or a hub id that is in the local cache.

    Parameters
    ----------
    path : str or Path
        `"demo"`, a folder in the diffusers layout, or `owner/name` on the hub; nothing is downloaded.
    guide : str or Path, optional
        Guide network (CLIP vision model) where the folder has no `image_encoder`, for instance
        `openai/clip-vit-base-patch32`.
    device : str
        torch device.
    dtype : torch.dtype
        Precision of all networks.

    Raises
    ------
    ModelError
        If a part is missing, lacks weights or is of another kind of model.
    UserError
        If torch does not see the device.
    """
    check_gpu(device)
    parts = open_parts(path, guide)
    digest = folder_digest(model_source(path), guide)
    return Models(**parts, name=str(path), digest=digest, guide=str(guide or "")).to(device, dtype)
