"""Stage ``evaluate``: measures the exported folder and writes the figures into its README."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPTextModel, CLIPVisionModelWithProjection

from demo_training import classifier, data, encoders, sampling, unet, vae
from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes

COUNT, STEPS = 200, 50
SCALES = (2.0, 3.5, 5.0, 7.5)


class Projected(torch.nn.Module):
    """The exported encoders behind the two methods that `encoders.retrieval` calls."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (encoders.MEAN, encoders.STD))

    def embed_image(self, images):
        return self.parts.image(pixel_values=(images - self.mean) / self.std).image_embeds

    def embed_text(self, tokens):
        return self.parts.text(input_ids=tokens).pooler_output @ self.parts.projection.T


def open_folder(folder):
    """The exported models in float32, frozen, with the token ids of the empty caption."""
    folder, options = Path(folder), {"dtype": torch.float32}
    parts = SimpleNamespace(
        vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
        text=CLIPTextModel.from_pretrained(folder / "text_encoder", **options),
        image=CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", **options),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        projection=load_file(folder / "text_encoder" / "text_projection.safetensors")["weight"].float(),
    )
    for part in (parts.vae, parts.unet, parts.text, parts.image):
        part.requires_grad_(False).eval()
    parts.empty_tokens = tokenise(parts, [""])
    return parts


def tokenise(parts, captions):
    """Token ids (n, 32) by the exported tokenizer."""
    options = {"padding": "max_length", "truncation": True, "max_length": data.MAX_TOKENS}
    return parts.tokenizer(list(captions), return_tensors="pt", **options).input_ids


def held_out(count):
    """Held-out scenes with distinct captions: images (n, 64, 64, 3), captions by scene."""
    drawn = [data.scene(data.HELD_OUT_SEED, index) for index in range(count)]
    return np.stack([scenes.render(item, data.SIZE) for item in drawn]), [scenes.captions(item) for item in drawn]


def measure(folder, work, count=COUNT):
    """All figures as (name, value, unit or note) rows."""
    parts = open_folder(folder)
    judge = unet.trained(classifier.Judge(), work, "classifier")
    images, captions = held_out(count)
    pixels, first = data.to_unit(images), [c[0] for c in captions]
    tokens = tokenise(parts, first)
    rows = [("VAE reconstruction", f"{vae.psnr(parts.vae, images):.2f} dB PSNR", f"{count} held-out scenes")]
    found = encoders.retrieval(Projected(parts), pixels, tokens, 100)
    rows.append(("image-to-caption retrieval, top-1 of 100", _percent(found), f"{count} held-out scenes"))
    real = classifier.agreement(judge, pixels, tokens)
    rows += [(f"judge on real scenes: {name}", _percent(v), "its own held-out accuracy") for name, v in real.items()]
    rows += _samples(parts, judge, tokens)
    return rows + _speed(parts) + _sizes(folder, parts) + _effort(work)


def _percent(share):
    return f"{100 * share:.1f} %"


def _samples(parts, judge, tokens):
    """Agreement of samples from pure noise with their captions: best scale found on a quarter, and 7.5."""
    quarter = tokens[: max(20, len(tokens) // 4)]
    trial = {}
    for scale in SCALES:
        options = {"steps": 25, "cfg_scale": scale, "seed": 500}
        drawn = sampling.sample_images(parts, quarter, options)
        trial[scale] = classifier.agreement(judge, drawn, quarter)["colour and background"]
    best, rows = max(trial, key=trial.get), []
    for scale in dict.fromkeys((7.5, best)):
        drawn = sampling.sample_images(parts, tokens, {"steps": STEPS, "cfg_scale": scale, "seed": 900})
        note = f"{len(tokens)} samples, {STEPS} DDIM steps, cfg {scale}" + (" (best found)" if scale == best else "")
        agreed = classifier.agreement(judge, drawn, tokens)
        rows += [(f"samples agree with caption: {name}", _percent(v), note) for name, v in agreed.items()]
    return rows


def _median_ms(call, count=7):
    call()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _speed(parts, batch=12):
    """Milliseconds per sample on the CPU, median of 7."""
    z, states = torch.randn(batch, 4, 16, 16), torch.randn(batch, data.MAX_TOKENS, encoders.WIDTH)

    def noise():
        with torch.no_grad():
            parts.unet(z, 500, states)

    def gradient():
        leaf = z.clone().requires_grad_()
        torch.autograd.grad(parts.vae.decode(leaf).sample.sum(), leaf)

    note = f"CPU, batch {batch}, {torch.get_num_threads()} threads, median of 7"
    calls = {"UNet forward": noise, "VAE decode, forward and backward": gradient}
    return [(name, f"{_median_ms(call) / batch:.1f} ms per sample", note) for name, call in calls.items()]


def _sizes(folder, parts):
    rows = []
    models = {"vae": parts.vae, "unet": parts.unet, "text_encoder": parts.text, "image_encoder": parts.image}
    for name, part in models.items():
        count = sum(p.numel() for p in part.parameters())
        rows.append((f"parameters, {name}", f"{count:,}", ""))
    total = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and path.name != "README.md")
    return [*rows, ("bytes of the whole folder, README aside", f"{total:,}", "fp16 safetensors")]


def _effort(work):
    """How long each stage was trained, from its checkpoint."""
    rows = []
    for name in ("encoders", "vae", "unet", "classifier"):
        state = torch.load(Path(work) / f"{name}.pt", map_location="cpu", weights_only=True)
        rows.append((f"training, {name}", f"{state['step']} steps", f"{state['seconds'] / 60:.0f} minutes"))
    return rows


README = """# Demo models

A small latent diffusion model, text encoder, tokenizer and image encoder, of the same diffusers and transformers
classes as Stable Diffusion 1.4 and CLIP, trained on the procedurally drawn, captioned scenes of
`core/nsd/simulation/scenes`. They know nothing of photographs. 64 px images, 4 x 16 x 16 latents, captions
of at most 32 tokens with a vocabulary of {words} words. The image encoder takes images normalised with ImageNet's
mean and standard deviation (`feature_extractor/preprocessor_config.json`).
`text_encoder/text_projection.safetensors` is the text side of the contrastive pair; only retrieval needs it. The
judge that reads samples is trained by the same script and is not stored here.

The best guidance scale was chosen on the first quarter of the sampled captions, with other noise and 25 steps. Samples
get background, main colour and rough place right; the shape of the main object is mostly not readable from pure noise.

Trained by the stages of `scripts/train_demo_models.py` on two CPU cores, each ended by `--minutes`;
`python scripts/train_demo_models.py --stage all --work-dir WORK` trains such a folder anew. The table is written by
`python scripts/train_demo_models.py --stage evaluate --work-dir WORK`:

| what | figure | how |
|---|---|---|
{rows}
"""


def write_readme(folder, rows):
    """Write the figures into ``README.md`` of the model folder."""
    table = "\n".join(f"| {name} | {value} | {note} |" for name, value, note in rows)
    text = README.format(words=len(scenes.scene_vocabulary()), rows=table)
    (Path(folder) / "README.md").write_text(text, encoding="utf-8")
