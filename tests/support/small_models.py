"""Random-weight models of the Stable Diffusion classes, small enough for tests."""

from pathlib import Path

import torch

from napari_neuraldiffuser.core.networks.digest import OPTIONAL_PARTS
from napari_neuraldiffuser.core.networks.models import PARTS, Models

WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "red", "blue", "ball", "house", "in", "field"]


def small_tokenizer(length: int = 8):
    """A word-level tokenizer that pads to `length`, built in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", model_max_length=length
    )


def sd14_scheduler():
    """DDIM with Stable Diffusion 1.4's schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
UNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
SD2 = {"attention_head_dim": [2, 4], "use_linear_projection": True, "upcast_attention": True, "cross_attention_dim": 24}
FAMILIES: dict[str, tuple[dict, str, dict]] = {
    # name -> what its UNet has, class of its scheduler, what that has
    "sd1": ({}, "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "sd2": (SD2, "DDIMScheduler", {"prediction_type": "v_prediction", "set_alpha_to_one": False, "clip_sample": False}),
    "sd2-base": (SD2, "PNDMScheduler", {"prediction_type": "epsilon", "steps_offset": 1, "set_alpha_to_one": False}),
    "turbo": (SD2, "EulerDiscreteScheduler", {"prediction_type": "epsilon", "timestep_spacing": "trailing"}),
    "lcm": ({"time_cond_proj_dim": 16}, "LCMScheduler", {"prediction_type": "epsilon", "set_alpha_to_one": True}),
}
"""Families of models, by what their published configurations say, at small widths."""


def save_family(folder: Path, name: str) -> Path:
    """A small random model of a family as a folder on disk, with its own scheduler's class; returns it."""
    import diffusers

    unet, scheduler, levels = FAMILIES[name]
    small = small_models(**unet)
    for part in PARTS:
        getattr(small, part).save_pretrained(folder / part)
    getattr(diffusers, scheduler)(**LEVELS, **levels).save_pretrained(folder / "scheduler")
    return folder


def small_models(dtype: torch.dtype = torch.float32, seed: int = 0, blocks: int = 6, **unet_config) -> Models:
    """VAE, UNet, text and image encoder of the real classes with a few thousand random weights each."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=32,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        norm_num_groups=4,
        layers_per_block=1,
        **(UNET | unet_config),
    )
    width = unet.config.cross_attention_dim
    scheduler = sd14_scheduler()
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            eos_token_id=2,
            bos_token_id=1,
            pad_token_id=0,
        )
    )
    image = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=blocks,
            num_attention_heads=2,
            image_size=24,
            patch_size=8,
            projection_dim=12,
        )
    )
    small = Models(vae, unet, scheduler, text, small_tokenizer(), image, "small", "digest", vae_tiny=small_tiny())
    return small.to("cpu", dtype)


def small_tiny():
    """A tiny decoder of the same latents, twice as fine as they are."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def save_small_models(folder: Path) -> Path:
    """The same as a model folder on disk; returns it."""
    small = small_models()
    for name in (*PARTS, *OPTIONAL_PARTS):
        getattr(small, name).save_pretrained(folder / name)
    return folder
