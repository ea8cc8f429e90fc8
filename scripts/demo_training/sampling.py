"""Images from captions by plain DDIM with classifier-free guidance: how the demo models are judged."""

from __future__ import annotations

import torch


@torch.no_grad()
def sample(unet, scheduler, conditions, options):
    """Latents from pure noise.

    Parameters
    ----------
    unet, scheduler : diffusers models
    conditions : tuple of Tensor
        Text embeddings (n, 32, 64) and the empty caption's (1, 32, 64).
    options : dict
        ``steps``, ``cfg_scale``, ``seed``.

    Returns
    -------
    Tensor of shape (n, 4, 16, 16)
        Scaled latents.
    """
    said, empty = conditions
    both = torch.cat([empty.expand_as(said), said])
    z = torch.randn(len(said), 4, 16, 16, generator=torch.Generator().manual_seed(options["seed"])).to(said.device)
    scheduler.set_timesteps(options["steps"])
    for t in scheduler.timesteps:
        without, given = unet(torch.cat([z, z]), t, both).sample.chunk(2)
        z = scheduler.step(without + options["cfg_scale"] * (given - without), t, z).prev_sample
    return z


@torch.no_grad()
def decode(vae, latents):
    """Scaled latents to images (n, 3, 64, 64) in [0, 1]."""
    parts = [vae.decode(part / vae.config.scaling_factor).sample for part in latents.split(20)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def sample_images(models, text_tokens, options):
    """Images for token ids (n, 32), drawn 20 at a time; ``models`` has vae, unet, scheduler, text, empty_tokens."""
    with torch.no_grad():
        empty = models.text(input_ids=models.empty_tokens).last_hidden_state
        said = models.text(input_ids=text_tokens).last_hidden_state
    images = []
    for number, part in enumerate(said.split(20)):
        latents = sample(models.unet, models.scheduler, (part, empty), {**options, "seed": options["seed"] + number})
        images.append(decode(models.vae, latents))
    return torch.cat(images)
