"""Images between NumPy and the networks: uint8 to tensor, resize, normalise."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from napari_neuraldiffuser.core.base.errors import UserError

NORMALISATION = {
    # (mean, standard deviation) per RGB channel
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class PixelError(UserError):
    """Images that are not what the networks take; the message names the dtype and the shape."""


def to_tensor(images: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Images (n, H, W, 3) uint8 to a tensor (n, 3, H, W) in [0, 1]."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise PixelError(f"images must be uint8 of shape (n, H, W, 3), got {images.dtype} {images.shape}.")
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).to(dtype) / 255


def resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased bilinear resize of (n, 3, H, W) to a square."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(pixels - mean) / std per channel (method.md eq. 7)."""
    shape = (1, -1, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)
