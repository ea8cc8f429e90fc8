"""Stage ``vae``: images to 4 x 16 x 16 latents and back."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

from demo_training import data
from demo_training.trainer import Recipe, Trainer, batch_on, half_precision

BATCH = 8
CHANNELS = (24, 48, 64)


def build():
    """An untrained autoencoder; no attention, so that a decode with its gradient stays cheap."""
    return AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=data.SIZE,
        mid_block_add_attention=False,
    )


def difference(decoded, images):
    """L1 + MSE + gradient difference of images in [-1, 1], and the PSNR in dB."""
    error = decoded.float() - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    square = error.square().mean()
    return error.abs().mean() + 8 * square + 0.25 * edges, -10 * torch.log10(square.detach() / 4)


def loss(model, images):
    """`difference` of the reconstruction plus a little KL; images in [-1, 1]."""
    with half_precision(images.device):
        posterior = model.encode(images).latent_dist
        decoded = model.decode(posterior.sample()).sample
    value, psnr = difference(decoded, images)
    return value + 1e-6 * posterior.kl().mean(), psnr


def train(work, budget, device="cpu", on_save=None):
    """Train or resume; returns the trainer."""
    batch_size = batch_on(device, BATCH)
    torch.manual_seed(10)
    images, _ = data.load(work)
    trainer = Trainer(build().to(device), Recipe("vae", rate=1e-3, weight_decay=0.0, ema=0.999), work)

    def loss_of(step):
        chosen = torch.randint(len(images), (batch_size,), generator=torch.Generator().manual_seed(step)).numpy()
        value, psnr = loss(trainer.model, data.to_unit(images[chosen]).to(device) * 2 - 1)
        return value, f"loss {value.item():.4f} psnr {psnr:.2f}"

    trainer.run(loss_of, budget, on_save)
    return trainer


@torch.no_grad()
def encode_all(model, images, device="cpu", batch=64):
    """Posterior means of uint8 images: float32 (n, 4, 16, 16), not yet scaled."""
    parts = []
    for start in range(0, len(images), batch):
        chunk = data.to_unit(images[start : start + batch]).to(device) * 2 - 1
        with half_precision(device):
            mean = model.encode(chunk).latent_dist.mean
        parts.append(mean.float().cpu())
    return torch.cat(parts).contiguous()


@torch.no_grad()
def psnr(model, images, batch=50):
    """Mean over images of the reconstruction's PSNR in dB, images uint8 (n, 64, 64, 3)."""
    values = []
    for start in range(0, len(images), batch):
        seen = data.to_unit(images[start : start + batch]) * 2 - 1
        values.append(psnr_between(model.decode(model.encode(seen).latent_dist.mean).sample, seen))
    return float(sum(values) / len(values))


def psnr_between(decoded, images):
    """Mean over images of the PSNR in dB; both (n, 3, H, W) in [-1, 1], whose width is the peak."""
    return (-10 * torch.log10((decoded.clamp(-1, 1) - images).square().mean((1, 2, 3)) / 4)).mean().item()
