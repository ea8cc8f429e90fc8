"""Whether the parts of a model fit each other and this method, told by their configurations without torch."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]

KINDS = {
    # part -> field that names the kind, the kinds that can be read, what they are called
    "vae": ("_class_name", ("AutoencoderKL",), "the VAE of Stable Diffusion 1.x or 2.x"),
    "vae_tiny": ("_class_name", ("AutoencoderTiny",), "a tiny autoencoder of the VAE's latents, such as TAESD"),
    "unet": ("_class_name", ("UNet2DConditionModel",), "the UNet of Stable Diffusion 1.x or 2.x"),
    "text_encoder": ("model_type", ("clip", "clip_text_model"), "a CLIP text model"),
    "image_encoder": ("model_type", ("clip", "clip_vision_model"), "a CLIP vision model"),
}
REMEDY = {"image_encoder": "Give a CLIP model with its projection, such as openai/clip-vit-base-patch32, as guide."}
AGAIN = "Download it again."
USE_SD = "Use a folder of Stable Diffusion 1.x or 2.x."
CONDITIONS = {
    # field of the UNet that is set where it wants more than latents, timestep and text -> what it wants
    "addition_embed_type": "more than one text embedding or picture sizes, as Stable Diffusion XL does",
    "class_embed_type": "a class or an image embedding",
    "num_class_embeds": "a class",
    "encoder_hid_dim": "an embedding of another kind than text",
    "encoder_hid_dim_type": "an embedding of another kind than text",
}
CHANNELS = {5: "a depth map", 8: "a picture to edit", 9: "a mask and a masked picture, as inpainting models do"}
PREDICTIONS = ("epsilon", "v_prediction")
SD2_WIDTH = 1024
NOISE = ("beta_start", "beta_end", "beta_schedule")


def of_clip(config: Config, half: str) -> Config:
    """The part of a whole CLIP model's configuration that is about text or vision; one of its own as it is."""
    nested = config.get(f"{half}_config")
    return nested if isinstance(nested, Mapping) else config


def wrong_kind(part: str, config: Config) -> str:
    """What a configuration is instead of the part's kind; nothing where it fits or does not say."""
    if part not in KINDS:
        return ""
    field, kinds, name = KINDS[part]
    found = config.get(field)
    if found is None or found in kinds:
        return ""
    return f"must be {name}, got {found!r} in its configuration. {REMEDY.get(part, USE_SD)}"


def misfits(configs: Mapping[str, Config]) -> Iterator[tuple[str, str]]:
    """Part and what is wrong with it, for everything that does not fit; a field that is not given is not judged.

    Parameters
    ----------
    configs : dict of part to configuration
        Parts that could not be read are left out.
    """
    for part, rules in RULES.items():
        for rule in rules:
            if part in configs and (wrong := rule(configs[part], configs)):
                yield part, wrong


def _conditions(unet: Config, configs: Mapping[str, Config]) -> str:
    wanted = [what for field, what in CONDITIONS.items() if unet.get(field) is not None]
    return (
        f"must need nothing but latents and one text embedding, got one that wants {wanted[0]}. {USE_SD}"
        if wanted
        else ""
    )


def _channels(unet: Config, configs: Mapping[str, Config]) -> str:
    takes, gives = unet.get("in_channels"), unet.get("out_channels")
    latents = configs.get("vae", {}).get("latent_channels")
    if takes is not None and latents is not None and takes != latents:
        more = f", which are latents and {CHANNELS[takes]}" if takes in CHANNELS and latents == 4 else ""
        return f"must take the {latents} channels of the VAE's latents, got one that takes {takes}{more}. {USE_SD}"
    if None not in (takes, gives) and takes != gives:
        return f"must predict as many channels as it takes ({takes}), got {gives}. {USE_SD}"
    return ""


def _text_width(unet: Config, configs: Mapping[str, Config]) -> str:
    width, text = unet.get("cross_attention_dim"), of_clip(configs.get("text_encoder", {}), "text").get("hidden_size")
    if width is None or text is None or width == text:
        return ""
    return (
        f"must take text of the text encoder's width {text}, got one that takes {width} "
        "(768 is Stable Diffusion 1.x, 1024 is 2.x, 2048 is XL). Use parts of one model."
    )


def _square(unet: Config, configs: Mapping[str, Config]) -> str:
    size = unet.get("sample_size", 0)
    return (
        ""
        if isinstance(size, int)
        else f"must have one number as sample_size, got {size}. Write it to its config.json."
    )


def _pictures(vae: Config, configs: Mapping[str, Config]) -> str:
    channels = {vae.get(name, 3) for name in ("in_channels", "out_channels")}
    return "" if channels == {3} else f"must be made for pictures of 3 channels, got {sorted(channels)}. {USE_SD}"


def _unshifted(vae: Config, configs: Mapping[str, Config]) -> str:
    shifts = [name for name in ("shift_factor", "latents_mean") if vae.get(name) is not None]
    return f"must have latents that are scaled and not shifted, got {shifts[0]}. {USE_SD}" if shifts else ""


def _same_latents(tiny: Config, configs: Mapping[str, Config]) -> str:
    channels, latents = tiny.get("latent_channels"), configs.get("vae", {}).get("latent_channels")
    if None in (channels, latents) or channels == latents:
        return ""
    return f"must decode the {latents} channels of the VAE's latents, got {channels}. Use one made for these models."


def _scaled(vae: Config, configs: Mapping[str, Config]) -> str:
    factor = vae.get("scaling_factor", 1.0)
    good = isinstance(factor, (int, float)) and math.isfinite(factor) and factor > 0
    return "" if good else f"must have a number above 0 as scaling_factor, got {factor!r}. {AGAIN}"


def _prediction(scheduler: Config, configs: Mapping[str, Config]) -> str:
    kind = scheduler.get("prediction_type", "epsilon")
    known = " or ".join(PREDICTIONS)
    return "" if kind in PREDICTIONS else f"must be of a model with prediction_type {known}, got {kind!r}. {USE_SD}"


def _says_prediction(scheduler: Config, configs: Mapping[str, Config]) -> str:
    """Nothing else tells a Stable Diffusion 2.1 that predicts v from a 2.1-base that predicts noise."""
    width = configs.get("unet", {}).get("cross_attention_dim")
    if width != SD2_WIDTH or scheduler.get("prediction_type") is not None:
        return ""
    return (
        f"must say prediction_type, {' or '.join(PREDICTIONS)}, beside a UNet that takes text of width {width}, got "
        "none. Write what the model card says to its scheduler_config.json."
    )


def _noise_levels(scheduler: Config, configs: Mapping[str, Config]) -> str:
    absent = [name for name in NOISE if scheduler.get(name) is None]
    if not absent or scheduler.get("trained_betas") is not None:
        return ""
    name = scheduler.get("_class_name", "one")
    return f"must say the noise levels ({', '.join(NOISE)}), got {name} without {', '.join(absent)}. {USE_SD}"


def _colours(clip: Config, configs: Mapping[str, Config]) -> str:
    channels = of_clip(clip, "vision").get("num_channels", 3)
    return (
        "" if channels == 3 else f"must be made for pictures of 3 channels, got {channels}. {REMEDY['image_encoder']}"
    )


RULES: dict[str, tuple[Callable[[Config, Mapping[str, Config]], str], ...]] = {
    "vae": (_pictures, _unshifted, _scaled),
    "unet": (_conditions, _channels, _text_width, _square),
    "scheduler": (_prediction, _says_prediction, _noise_levels),
    "image_encoder": (_colours,),
    "vae_tiny": (_pictures, _same_latents),
}
