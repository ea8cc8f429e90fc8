"""Stage ``export``: checkpoints to a diffusers folder in fp16 safetensors."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from demo_training import data, decoders, encoders, unet

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def build_tokenizer():
    """Word-level tokenizer over the caption vocabulary in any case, padded to 32 ids; other words are ``<unk>``."""
    vocab = data.vocabulary()
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocab[name]) for name in ("<bos>", "<eos>")]
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=data.MAX_TOKENS,
        padding_side="right",
    )


def text_backbone(pair):
    """The text encoder without its projection, as the class that the loader opens."""
    model = CLIPTextModel(pair.text.config)
    wanted = model.state_dict()
    source = {name: value for name, value in pair.text.state_dict().items() if not name.startswith("text_projection")}
    if set(source) != set(wanted):  # the class dropped its `text_model.` prefix in transformers 5
        source = {name.removeprefix("text_model."): value for name, value in source.items()}
    model.load_state_dict(source)
    return model


def write_json(path, value):
    """JSON with a final newline."""
    Path(path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _parts(work):
    """(folder, frozen model) for every stage that has a checkpoint."""
    work = Path(work)
    if (work / "latents.safetensors").exists():
        model = decoders.final_vae(work)
        model.register_to_config(scaling_factor=round(unet.prepare_latents(work)["scale"].item(), 6))
        yield "vae", model
    if (work / "tiny.pt").exists():
        yield "vae_tiny", unet.trained(decoders.build_tiny(), work, "tiny")
    if (work / "unet.pt").exists():
        yield "unet", unet.trained(unet.build(), work, "unet")
    if (work / "encoders.pt").exists():
        pair = unet.trained(encoders.Pair(), work, "encoders")
        yield "text_encoder", text_backbone(pair)
        yield "image_encoder", pair.image
        yield "projection", pair.text.text_projection


def export(work, out):
    """Write every finished part to ``out``, each folder completed beside its place and then swapped in.

    Parameters
    ----------
    work : path
        Work directory with the checkpoints.
    out : path
        The model folder. Files that no stage writes (the README) are left alone.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, model in _parts(work):
        half = copy.deepcopy(model).half()
        if name == "projection":
            path = out / "text_encoder" / "text_projection.safetensors"
            save_file({"weight": half.weight.contiguous()}, path)
            path.chmod(0o644)
        else:
            _swap(out / name, half.save_pretrained)
    if (tiny := out / "vae_tiny" / "config.json").exists():  # written by the class, which warns of it when it reads it
        known = json.loads(tiny.read_text(encoding="utf-8"))
        write_json(tiny, {key: value for key, value in known.items() if key != "block_out_channels"})
    _swap(out / "scheduler", unet.schedule().save_pretrained)
    _swap(out / "tokenizer", build_tokenizer().save_pretrained)
    _swap(out / "feature_extractor", lambda folder: write_json(folder / "preprocessor_config.json", preprocessor()))
    write_json(out / "model_index.json", INDEX)


def _swap(folder, write):
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write(temporary)
    for path in temporary.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner only
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def preprocessor():
    """How the image encoder wants its input; ImageNet's mean and deviation, as the published guidance uses."""
    size = {"height": data.SIZE, "width": data.SIZE}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": 2,
        "do_center_crop": False,
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_convert_rgb": True,
        "do_normalize": True,
        "image_mean": list(encoders.MEAN),
        "image_std": list(encoders.STD),
    }
