"""The published NeuralDiffuser step, written out plainly from its equations, one image at a time, in float64.

Shares no code with the package beyond the networks themselves: it is what the package is tested against.
"""

import numpy as np
import torch
import torch.nn.functional as F

LAYER_FACTORS = (1.5, 1.2, 1.0, 1.0, 1.0, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def attention_of(unet, latents, t, text):
    """UNet output and softmax self-attention of the middle block, from the inputs of its projections."""
    block = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    seen = {}
    hook = block.register_forward_pre_hook(lambda m, args, kwargs: seen.update(x=args[0]), with_kwargs=True)
    noise = unet(latents, t, encoder_hidden_states=text).sample
    hook.remove()
    n, places, width = seen["x"].shape
    split = lambda v: v.reshape(n, places, block.heads, -1).transpose(1, 2)  # noqa: E731
    q, k = split(block.to_q(seen["x"])), split(block.to_k(seen["x"]))
    return noise, torch.softmax(q @ k.transpose(-1, -2) / np.sqrt(q.shape[-1]), dim=-1)


def blur(x):
    """9 x 9 Gaussian, sigma 1, by explicit shifts of the reflected image."""
    line = np.exp(-0.5 * np.arange(-4, 5) ** 2.0)
    line /= line.sum()
    padded, (h, w) = F.pad(x, (4, 4, 4, 4), mode="reflect"), x.shape[-2:]
    return sum(line[i] * line[j] * padded[..., i : i + h, j : j + w] for i in range(9) for j in range(9))


def self_attention_term(unet, latents, noise_uncond, attention, t, uncond, abar, scale):
    """scale (eps_u - eps_u(degraded))."""
    x0 = (latents - (1 - abar) ** 0.5 * noise_uncond) / abar**0.5
    side = int(attention.shape[-1] ** 0.5)
    mask = (attention.mean(1).sum(1) > 1).double().reshape(1, 1, side, side)
    mask = mask.repeat_interleave(latents.shape[2] // side, 2).repeat_interleave(latents.shape[3] // side, 3)
    degraded = abar**0.5 * (mask * blur(x0) + (1 - mask) * x0) + (1 - abar) ** 0.5 * noise_uncond
    return scale * (noise_uncond - unet(degraded, t, encoder_hidden_states=uncond).sample)


def clip_features(encoder, pixels, n_layers):
    """Outputs of the second MLP linear, by hooks on a whole forward."""
    seen, vision = [], getattr(encoder, "vision_model", encoder)
    hooks = [b.mlp.fc2.register_forward_hook(lambda m, i, o: seen.append(o)) for b in vision.encoder.layers]
    encoder(pixels)
    for hook in hooks:
        hook.remove()
    return seen[:n_layers]


def loss_of(models, x, targets):
    """The published loss of one image."""
    image = models.vae.decode(x / models.vae.config.scaling_factor).sample
    image = torch.clamp((image + 1) / 2, 0, 1)
    size = getattr(models.image_encoder, "vision_model", models.image_encoder).config.image_size
    image = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
    pixels = (image - torch.tensor(MEAN).double().view(1, 3, 1, 1)) / torch.tensor(STD).double().view(1, 3, 1, 1)
    features = clip_features(models.image_encoder, pixels, len(targets))
    inverse = np.array([1 / np.linalg.norm(g.numpy()) for g in targets])
    weights = inverse / inverse.sum() * np.array(LAYER_FACTORS[: len(targets)])
    return sum(w * torch.mean((f - g) ** 2) for w, f, g in zip(weights, features, targets, strict=True))


def published_step(models, latents, t, c, uncond, targets, options):
    """z_{t-1} of one image (1, 4, h, w).

    options: abar, abar_prev, cfg, sag, kappa, guided.
    """
    abar = options["abar"]
    with torch.no_grad():
        noise_u, attention = attention_of(models.unet, latents, t, uncond)
        noise_c = models.unet(latents, t, encoder_hidden_states=c).sample
        noise = noise_u + options["cfg"] * (noise_c - noise_u)
        noise = noise + self_attention_term(models.unet, latents, noise_u, attention, t, uncond, abar, options["sag"])
    if options["guided"]:
        z = latents.clone().requires_grad_()
        eps = models.unet(z, t, encoder_hidden_states=c).sample
        x0 = (z - (1 - abar) * eps) / abar**0.5  # published: no root over (1 - abar)
        x = (1 - abar) ** 0.5 * x0 + (1 - (1 - abar) ** 0.5) * z
        gradient = torch.autograd.grad(options["kappa"] * loss_of(models, x, targets), z)[0]
        noise = noise + (1 - abar) ** 0.5 * gradient
    x0 = (latents - (1 - abar) ** 0.5 * noise) / abar**0.5
    return options["abar_prev"] ** 0.5 * x0 + (1 - options["abar_prev"]) ** 0.5 * noise


def published_alphas(n_steps=50):
    """SD 1.4's timesteps and cumulative schedule, from the formula: scaled-linear betas, offset 1."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    abar = torch.cumprod(1 - betas, 0).double()
    timesteps = [1 + k * (1000 // n_steps) for k in range(n_steps)][::-1]
    return timesteps, abar
