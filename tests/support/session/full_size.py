"""The full-size Stable Diffusion 1.4 configuration and CLIP ViT-B/32, with random weights."""

import torch

from napari_neuraldiffuser.core.networks.models import Models
from tests.support.small_models import sd14_scheduler, small_tokenizer


def full_size_models(dtype: torch.dtype = torch.float32) -> Models:
    """UNet (860 M), VAE (84 M), TAESD (2 M), text encoder of ViT-L/14 (123 M) and guide network ViT-B/32 (88 M)."""
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                max_position_embeddings=77,
                projection_dim=768,
            )
        )
        image = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                image_size=224,
                patch_size=32,
                projection_dim=512,
            )
        )
        tiny = AutoencoderTiny()
    finally:
        torch.set_default_dtype(torch.float32)
    scheduler = sd14_scheduler()
    return Models(vae, unet, scheduler, text, small_tokenizer(77), image, "full size", "random weights", vae_tiny=tiny)
