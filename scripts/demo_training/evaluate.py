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

from demo_training import classifier, data, decoders, encoders, sampling, unet, vae
from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes

COUNT, STEPS = 200, 50
CHOICE = 50  # further held-out captions, on which the guidance scale is chosen
SCALES = (2.0, 3.5, 5.0, 7.5)
GOALS = ("colour and background", "kind")


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
        tiny=decoders.open_tiny(folder) if (folder / "vae_tiny").is_dir() else None,
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
    images, captions = held_out(count + CHOICE)
    tokens = tokenise(parts, [c[0] for c in captions])
    pixels, said = data.to_unit(images[:count]), tokens[:count]
    rows = _decoders(parts, images[:count])
    found = encoders.retrieval(Projected(parts), pixels, said, 100)
    rows.append(("image-to-caption retrieval, top-1 of 100", _percent(found), f"{count} held-out scenes"))
    real = classifier.agreement(judge, pixels, said)
    rows += [(f"judge on real scenes: {name}", _percent(v), "its own held-out accuracy") for name, v in real.items()]
    rows += _samples(parts, judge, said, tokens[count:])
    return rows + _speed(parts) + _sizes(folder, parts) + _effort(work)


def _percent(share):
    return f"{100 * share:.1f} %"


@torch.no_grad()
def _decoders(parts, images):
    """PSNR of both decoders: to the image, and of the tiny one to what the VAE decodes."""
    note = f"{len(images)} held-out scenes"
    rows = [("VAE reconstruction", f"{vae.psnr(parts.vae, images):.2f} dB PSNR", note)]
    if parts.tiny is None:
        return rows
    latents = vae.encode_all(parts.vae, images)
    full = torch.cat([parts.vae.decode(z).sample.clamp(-1, 1) for z in latents.split(50)])
    scaled = (latents * parts.vae.config.scaling_factor).split(50)
    tiny = torch.cat([parts.tiny.decode(z).sample.clamp(-1, 1) for z in scaled])
    seen = data.to_unit(images) * 2 - 1
    return [
        *rows,
        ("tiny decoder, to the image", f"{vae.psnr_between(tiny, seen):.2f} dB PSNR", note),
        ("tiny decoder, to the VAE's decoded image", f"{vae.psnr_between(tiny, full):.2f} dB PSNR", note),
    ]


def _samples(parts, judge, tokens, choice):
    """Agreement of samples from pure noise with their captions, at 7.5 and at the scale best on ``choice``."""
    trial = {}
    for scale in SCALES:
        drawn = sampling.sample_images(parts, choice, {"steps": 25, "cfg_scale": scale, "seed": 500})
        agreed = classifier.agreement(judge, drawn, choice)
        trial[scale] = sum(agreed[name] for name in GOALS)
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
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def _speed(parts, batch=12):
    """Milliseconds of processor time per sample, all threads together: other work on the machine hardly counts."""
    z, states = torch.randn(batch, 4, 16, 16), torch.randn(batch, data.MAX_TOKENS, encoders.WIDTH)

    def noise():
        with torch.no_grad():
            parts.unet(z, 500, states)

    def gradient(decoder):
        leaf = z.clone().requires_grad_()
        torch.autograd.grad(decoder.decode(leaf).sample.sum(), leaf)

    note = f"processor time, batch {batch}, median of 7"
    calls = {
        "UNet forward": noise,
        "VAE decode, forward and backward": lambda: gradient(parts.vae),
    }
    if parts.tiny is not None:
        calls["tiny decode, forward and backward"] = lambda: gradient(parts.tiny)
    return [(name, f"{_median_ms(call) / batch:.1f} ms per sample", note) for name, call in calls.items()]


def _sizes(folder, parts):
    rows = []
    models = {
        "vae": parts.vae,
        "vae_tiny": parts.tiny,
        "unet": parts.unet,
        "text_encoder": parts.text,
        "image_encoder": parts.image,
    }
    for name, part in models.items():
        count = sum(p.numel() for p in part.parameters())
        rows.append((f"parameters, {name}", f"{count:,}", ""))
    total = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and path.name != "README.md")
    return [*rows, ("bytes of the whole folder, README aside", f"{total:,}", "fp16 safetensors")]


def _effort(work):
    """How long each stage was trained, from its checkpoint; none of what a folder brought along."""
    drawn, latents = len(data.load(work)[1]), len(unet.prepare_latents(work)["latents"])
    rows = [("training scenes", f"{drawn:,}", f"the UNet saw {latents:,} of them")]
    for name in ("encoders", "vae", "decoder", "tiny", "unet", "classifier"):
        path = Path(work) / f"{name}.pt"
        state = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}
        if state.get("step"):
            rows.append((f"training, {name}", f"{state['step']:,} steps", f"{state['seconds'] / 60:.0f} minutes"))
    return rows


README = """# Demo models

A small latent diffusion model, text encoder, tokenizer and image encoder, of the same diffusers and transformers
classes as Stable Diffusion 1.4 and CLIP, trained on the procedurally drawn, captioned scenes of
`core/nsd/simulation/scenes`. They know nothing of photographs. 64 px images, 4 x 16 x 16 latents, captions
of at most 32 tokens with a vocabulary of {words} words. The image encoder takes images normalised with ImageNet's
mean and standard deviation (`feature_extractor/preprocessor_config.json`).
`text_encoder/text_projection.safetensors` is the text side of the contrastive pair; only retrieval needs it. The
judge that reads samples is trained by the same script and is not stored here.

The best guidance scale was chosen on {choice} other held-out captions, with other noise and 25 steps, as the one with
the highest share of kinds plus that of colours with backgrounds.

`vae_tiny/` is a small decoder (diffusers' `AutoencoderTiny`) that imitates the VAE's at a fraction of its cost; its
latents are the pipeline's scaled ones. Words that the vocabulary lacks are read as one unknown word, which the UNet has
met: in some of its training captions a quarter of the words were hidden.

Trained by the stages of `scripts/train_demo_models.py` on two CPU cores, each ended by `--minutes`, starting from the
weights of an earlier such folder (`--from`); the rows below count the last sitting alone.
`python scripts/train_demo_models.py --stage all --work-dir WORK` trains such a folder anew. The table is written by
`python scripts/train_demo_models.py --stage evaluate --work-dir WORK`:

| what | figure | how |
|---|---|---|
{rows}
"""


def write_readme(folder, rows):
    """Write the figures into ``README.md`` of the model folder."""
    table = "\n".join(f"| {name} | {value} | {note} |" for name, value, note in rows)
    text = README.format(words=len(scenes.scene_vocabulary()), choice=CHOICE, rows=table)
    (Path(folder) / "README.md").write_text(text, encoding="utf-8")
