"""Stage ``unet``: the noise predictor, conditioned on a caption's embedding or the mean over an image's captions."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from demo_training import data, encoders, vae
from demo_training.trainer import Recipe, Trainer

BATCH = 16
CHANNELS = (48, 64)
SCENES = 16000  # how many of the drawn scenes it sees: encoding them costs minutes
GAMMA = 5.0  # min-SNR weight
P_EMPTY, P_SINGLE = 0.10, 0.50  # the rest is conditioned on the mean over an image's captions


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
        latents = vae.encode_all(trained(vae.build(), work, "vae").to(device), images[:SCENES], device)
        scale = 1.0 / latents.std()
        save_file({"latents": (latents * scale).half().contiguous(), "scale": scale.reshape(1)}, f"{path}.tmp")
        Path(f"{path}.tmp").replace(path)
    return load_file(path)


def trained(model, work, name):
    """``model`` with the averaged weights of a stage's checkpoint, frozen."""
    state = torch.load(Path(work) / f"{name}.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["average"])
    return model.requires_grad_(False).eval()


class Conditions:
    """Draws text conditions for a batch: empty, single caption or mean over captions."""

    def __init__(self, text, tokens, device="cpu"):
        self.text, self.tokens, self.device = text, tokens, device
        self.empty = self._embed(torch.from_numpy(data.encode(""))[None])

    @torch.no_grad()
    def _embed(self, tokens):
        return self.text(input_ids=tokens.to(self.device)).last_hidden_state

    def draw(self, chosen, draw):
        """Embeddings (n, 32, 64) for image indices (n,), randomness from the generator ``draw``."""
        n = len(chosen)
        states = self._embed(self.tokens[chosen].flatten(0, 1)).unflatten(0, (n, -1))
        which = torch.randint(states.shape[1], (n,), generator=draw).to(self.device)
        single = states[torch.arange(n, device=self.device), which]
        coin = torch.rand(n, generator=draw).to(self.device)[:, None, None]
        picked = torch.where(coin < P_EMPTY + P_SINGLE, single, states.mean(1))
        return torch.where(coin < P_EMPTY, self.empty, picked)


def loss(model, scheduler, batch, draw):
    """Min-SNR weighted noise-prediction error of ``batch = (latents, conditions)``."""
    latents, conditions = batch
    noise = torch.randn(latents.shape, generator=draw).to(latents.device)
    # one timestep per stratum: the batch covers the schedule evenly, which lowers the gradient's noise
    strata = (torch.arange(len(latents)) + torch.rand(len(latents), generator=draw)) / len(latents)
    steps = (strata * scheduler.config.num_train_timesteps).long().to(latents.device)
    predicted = model(scheduler.add_noise(latents, noise, steps), steps, conditions).sample
    alpha = scheduler.alphas_cumprod.to(latents.device)[steps]
    snr = alpha / (1 - alpha)
    error = (predicted - noise).square().mean((1, 2, 3))
    return (error * snr.clamp(max=GAMMA) / snr).mean(), error.mean().detach()


def train(work, budget, device="cpu", on_save=None):
    """Train or resume; returns the trainer."""
    torch.manual_seed(30)
    latents = prepare_latents(work, device)["latents"]
    tokens = torch.from_numpy(data.load(work)[1]).long()
    text = trained(encoders.Pair(), work, "encoders").text.to(device)
    conditions, scheduler = Conditions(text, tokens, device), schedule()
    trainer = Trainer(build().to(device), Recipe("unet", rate=1e-3, warmup=200, ema=0.9985), work)
    smooth = [None]

    def loss_of(step):
        draw = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(latents), (BATCH,), generator=draw)
        batch = latents[chosen].float().to(device), conditions.draw(chosen, draw)
        value, error = loss(trainer.model, scheduler, batch, draw)
        smooth[0] = error.item() if smooth[0] is None else 0.98 * smooth[0] + 0.02 * error.item()
        return value, f"noise error {smooth[0]:.4f}"

    trainer.run(loss_of, budget, on_save)
    return trainer
