"""Stages ``decoder`` and ``tiny``: decoders trained on latents that no longer change, so that the UNet's stay valid.

``decoder`` goes on with the VAE's own decoder alone; ``tiny`` is a small `AutoencoderTiny` that imitates it, for
guidance whose gradient runs through a decode at every step. Its latents are the pipeline's scaled ones.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from demo_training import data, unet, vae
from demo_training.trainer import Recipe, Trainer, batch_on, half_precision

BATCH = 8
GRAIN = 0.05  # noise on the latents that tiny learns from: sampled latents are not quite encoded ones


def build_tiny():
    """An untrained tiny autoencoder: 4 x 16 x 16 scaled latents to 64 px and back, most of it at few pixels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(0, 1, 1),
        num_decoder_blocks=(4, 2, 0),
        latent_channels=4,
        scaling_factor=1.0,
    )


def open_tiny(folder):
    """The exported tiny autoencoder in float32, frozen."""
    tiny = AutoencoderTiny.from_pretrained(Path(folder) / "vae_tiny", torch_dtype=torch.float32)
    return tiny.requires_grad_(False).eval()


def final_vae(work):
    """The VAE with its decoder as far as it was trained, frozen."""
    stage = "decoder" if (Path(work) / "decoder.pt").exists() else "vae"
    return unet.trained(vae.build(), work, stage)


def train_decoder(work, budget, device="cpu", on_save=None):
    """Train the VAE's decoder on its encoder's means, or resume; returns the trainer."""
    batch_size = batch_on(device, BATCH)
    torch.manual_seed(11)
    images, model = data.load(work)[0], final_vae(work).to(device)
    for part in (model.decoder, model.post_quant_conv):
        part.requires_grad_(True)
    kept = unet.prepare_latents(work, device)
    scaled, scale = kept["latents"], kept["scale"].to(device)
    trainer = Trainer(model, Recipe("decoder", rate=6e-4, weight_decay=0.0, ema=0.999), work)

    def loss_of(step):
        chosen = torch.randint(len(scaled), (batch_size,), generator=torch.Generator().manual_seed(step))
        with half_precision(device):
            decoded = trainer.model.decode(scaled[chosen].float().to(device) / scale).sample
        value, psnr = vae.difference(decoded, data.to_unit(images[chosen.numpy()]).to(device) * 2 - 1)
        return value, f"loss {value.item():.4f} psnr {psnr:.2f}"

    trainer.run(loss_of, budget, on_save)
    return trainer


def train_tiny(work, budget, device="cpu", on_save=None):
    """Train the tiny autoencoder to decode and encode as the VAE does, or resume; returns the trainer."""
    batch_size = batch_on(device, BATCH)
    torch.manual_seed(50)
    images, teacher = data.load(work)[0], final_vae(work).to(device)
    kept = unet.prepare_latents(work, device)
    scaled, scale = kept["latents"], kept["scale"].to(device)
    trainer = Trainer(build_tiny().to(device), Recipe("tiny", rate=2e-3, weight_decay=0.0, ema=0.998), work)

    def loss_of(step):
        draw = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(scaled), (batch_size,), generator=draw)
        seen = data.to_unit(images[chosen.numpy()]).to(device) * 2 - 1
        latents = scaled[chosen].float()
        noisy = (latents + GRAIN * torch.randn(latents.shape, generator=draw)).to(device)
        with half_precision(device):
            with torch.no_grad():
                wanted = teacher.decode(noisy / scale).sample.float().clamp(-1, 1)
            decoded, encoded = trainer.model.decode(noisy).sample, trainer.model.encode(seen).latents
        value, psnr = vae.difference(decoded, wanted)
        told = f"loss {value.item():.4f} psnr to the VAE's {psnr:.2f}"
        return value + 0.1 * F.mse_loss(encoded.float(), latents.to(device)), told

    trainer.run(loss_of, budget, on_save)
    return trainer
