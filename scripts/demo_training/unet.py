"""Stage ``unet``: the noise predictor, conditioned on a caption's embedding or the mean over an image's captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file

from demo_training import data, encoders, vae
from demo_training.trainer import Recipe, Trainer, batch_on, half_precision

BATCH = 32
CHANNELS = (64, 96)
GAMMA = 5.0  # min-SNR weight
P_EMPTY, P_SINGLE, P_HIDDEN = 0.10, 0.42, 0.08  # the rest is conditioned on the mean over an image's captions
HIDDEN = 0.25  # share of words that a caption with hidden words lacks


def build():
    """An untrained UNet for 4 x 16 x 16 latents."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        # text enters at 8 x 8 only: attention over 256 tokens cost a third of the time
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        cross_attention_dim=encoders.WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def schedule():
    """The scheduler of Stable Diffusion 1.4, as DDIM."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def prepare_latents(work, device="cpu"):
    """Encode the images with the trained VAE, once: ``latents.safetensors``, scaled to unit standard deviation."""
    path = Path(work) / "latents.safetensors"
    if not path.exists():
        images, _ = data.load(work)
        latents = vae.encode_all(trained(vae.build(), work, "vae").to(device), images, device)
        scale = 1.0 / latents.std()
        save_file({"latents": (latents * scale).half().contiguous(), "scale": scale.reshape(1)}, f"{path}.tmp")
        Path(f"{path}.tmp").replace(path)
    return load_file(path)


def prepare_states(work, text, device="cpu"):
    """Embed all captions, once: ``states.npy``, float16 (n, 4, 32, 64), the fourth with words hidden."""
    path = Path(work) / "states.npy"
    if not path.exists():
        tokens, rng = data.load(work)[1], np.random.default_rng(31)
        hidden = data.hide_words(tokens[:, rng.integers(tokens.shape[1])], HIDDEN, rng)
        tokens = np.concatenate([tokens, hidden[:, None]], 1)
        shape = (*tokens.shape, encoders.WIDTH)
        states = np.lib.format.open_memmap(f"{path}.tmp", "w+", np.float16, shape)
        for start in range(0, len(tokens), 500):
            states[start : start + 500] = embed(text, tokens[start : start + 500], device)
        states.flush()
        Path(f"{path}.tmp").replace(path)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def embed(text, tokens, device="cpu"):
    """Token ids (..., 32) as an array to embeddings (..., 32, 64), float32."""
    flat = torch.from_numpy(tokens.reshape(-1, tokens.shape[-1]).astype(np.int64)).to(device)
    return text(input_ids=flat).last_hidden_state.float().cpu().numpy().reshape(*tokens.shape, -1)


def trained(model, work, name):
    """``model`` with the averaged weights of a stage's checkpoint, frozen."""
    state = torch.load(Path(work) / f"{name}.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["average"])
    return model.requires_grad_(False).eval()


class Conditions:
    """Draws text conditions for a batch: empty, a caption, one with words hidden, or the mean over captions."""

    def __init__(self, states, empty):
        self.states, self.empty = states, torch.from_numpy(empty)

    def draw(self, chosen, draw):
        """Embeddings (n, 32, 64) for image indices (n,), randomness from the generator ``draw``."""
        states = torch.from_numpy(self.states[chosen.numpy()]).float()
        n, said = len(chosen), data.N_CAPTIONS
        single = states[torch.arange(n), torch.randint(said, (n,), generator=draw)]
        coin = torch.rand(n, generator=draw)[:, None, None]
        picked = torch.where(coin < P_EMPTY + P_SINGLE + P_HIDDEN, states[:, said], states[:, :said].mean(1))
        picked = torch.where(coin < P_EMPTY + P_SINGLE, single, picked)
        return torch.where(coin < P_EMPTY, self.empty, picked)


def loss(model, scheduler, batch, draw):
    """Min-SNR weighted noise-prediction error of ``batch = (latents, conditions, weights)``, and the plain error."""
    latents, conditions, weights = batch
    noise = torch.randn(latents.shape, generator=draw).to(latents.device)
    # one timestep per stratum: the batch covers the schedule evenly, which lowers the gradient's noise
    strata = (torch.arange(len(latents)) + torch.rand(len(latents), generator=draw)) / len(latents)
    steps = (strata * scheduler.config.num_train_timesteps).long().to(latents.device)
    with half_precision(latents.device):
        predicted = model(scheduler.add_noise(latents, noise, steps), steps, conditions).sample
    alpha = scheduler.alphas_cumprod.to(latents.device)[steps]
    snr = alpha / (1 - alpha)
    error = (predicted.float() - noise).square()
    weighted = (error * weights[:, None]).mean((1, 2, 3)) / weights.mean()
    return (weighted * snr.clamp(max=GAMMA) / snr).mean(), error.mean().detach()


def train(work, budget, device="cpu", on_save=None):
    """Train or resume; returns the trainer."""
    batch_size = batch_on(device, BATCH)
    torch.manual_seed(30)
    latents = prepare_latents(work, device)["latents"]
    weights = torch.from_numpy(data.object_weights(data.TRAIN_SEED, len(latents), latents.shape[-1]))
    text = trained(encoders.Pair(), work, "encoders").text.to(device)
    conditions = Conditions(prepare_states(work, text, device), embed(text, data.encode(""), device))
    model, scheduler = build().to(device), schedule()
    model.set_attn_processor(AttnProcessor())  # plain products: fused attention in bfloat16 is slow backward on CPUs
    trainer = Trainer(model, Recipe("unet", rate=1.2e-3, warmup=300, ema=0.999), work)
    smooth = [None]

    def loss_of(step):
        draw = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(latents), (batch_size,), generator=draw)
        batch = [latents[chosen].float(), conditions.draw(chosen, draw), weights[chosen].float()]
        value, error = loss(trainer.model, scheduler, [part.to(device) for part in batch], draw)
        smooth[0] = error.item() if smooth[0] is None else 0.98 * smooth[0] + 0.02 * error.item()
        return value, f"noise error {smooth[0]:.4f}"

    trainer.run(loss_of, budget, on_save)
    return trainer
