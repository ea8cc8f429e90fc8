"""What a model folder must hold, and which models fit the method: told before torch is imported."""

import json
import shutil
import subprocess
import sys

import pytest

from napari_neuraldiffuser.core.networks import models as m
from napari_neuraldiffuser.core.networks.digest import DEMO_FOLDER, OPTIONAL_PARTS, PARTS
from napari_neuraldiffuser.core.networks.folder import CONFIGS, check_folder, folder_problem
from napari_neuraldiffuser.core.networks.opening import check_weights


def edit(folder, part, drop=(), **values):
    """Change a part's configuration."""
    path = folder / part / CONFIGS[part]
    known = {name: value for name, value in json.loads(path.read_text()).items() if name not in drop}
    path.write_text(json.dumps({**known, **values}))


def refusal(folder, guide=None):
    """One sentence, the same from files alone and where the models are opened."""
    with pytest.raises(m.ModelError) as error:
        check_folder(folder, guide)
    with pytest.raises(m.ModelError) as opened:
        m.load(folder, guide)
    assert str(error.value) == str(opened.value) == folder_problem(folder, guide)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_bundled_models_are_whole():
    assert set(check_folder("demo")) == {*PARTS, *OPTIONAL_PARTS}
    check_weights("demo")


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    assert f"missing: {part}" in refusal(folder)


def test_all_missing_parts_are_named_at_once(folder):
    for part in ("vae", "unet"):
        shutil.rmtree(folder / part)
    assert "missing: vae, unet." in refusal(folder)


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"\xff\xfe", b"version https://git-lfs.github.com/spec/v1\n"]
)
@pytest.mark.parametrize("part", PARTS)
def test_a_configuration_that_is_none(folder, part, content):
    path = folder / part / CONFIGS[part]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    said = refusal(folder)
    assert said.startswith(f"Model part {part} must have its configuration in {path}, got ")
    assert "again" in said


@pytest.mark.parametrize(
    ("encoding", "what"), [("utf-16", "text of another encoding than UTF-8. Save it as UTF-8"), ("utf-32", "encoding")]
)
@pytest.mark.parametrize("part", PARTS)
def test_a_configuration_of_another_encoding(folder, part, encoding, what):
    path = folder / part / CONFIGS[part]
    path.write_bytes(path.read_text().encode(encoding))
    assert what in refusal(folder)


@pytest.mark.parametrize("factor", [0, 0.0, -0.18, None, "0.18", float("nan"), float("inf")])
def test_a_scaling_factor_that_is_none(folder, factor):
    edit(folder, "vae", scaling_factor=factor)
    assert "Model part vae in" in refusal(folder) and "a number above 0 as scaling_factor, got" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>404</html>"])
def test_words_of_the_tokenizer_that_are_none(folder, content):
    (folder / "tokenizer" / "tokenizer.json").write_bytes(content)
    assert "must have its words in" in refusal(folder)


def test_a_tokenizer_without_words(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert "must have tokenizer.json, or vocab.json and merges.txt" in refusal(folder)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    assert "must have tokenizer.json, or vocab.json and merges.txt" in refusal(folder)


def drop_width(config):
    return {name: value for name, value in config.items() if name != "cross_attention_dim"}


@pytest.mark.parametrize(
    ("part", "values", "what"),
    [
        ("unet", {"in_channels": 9}, "latents and a mask and a masked picture, as inpainting models do"),
        ("unet", {"in_channels": 8}, "a picture to edit"),
        ("unet", {"in_channels": 5}, "a depth map"),
        ("unet", {"in_channels": 16, "out_channels": 16}, "takes 16"),
        ("unet", {"out_channels": 8}, "must predict as many channels as it takes"),
        ("unet", {"cross_attention_dim": 1024}, "width 16, got one that takes 1024"),
        ("unet", {"cross_attention_dim": 2048}, "2048 is XL"),
        ("unet", {"addition_embed_type": "text_time"}, "Stable Diffusion XL"),
        ("unet", {"class_embed_type": "projection"}, "a class or an image embedding"),
        ("unet", {"num_class_embeds": 1000}, "a class"),
        ("unet", {"encoder_hid_dim": 768, "encoder_hid_dim_type": "image_proj"}, "another kind than text"),
        ("unet", {"sample_size": [64, 96]}, "one number as sample_size"),
        ("unet", {"sample_size": None}, "one number as sample_size"),
        ("unet", {"_class_name": "SD3Transformer2DModel"}, "must be the UNet of Stable Diffusion 1.x"),
        ("vae", {"latent_channels": 16}, "must take the 16 channels"),
        ("vae", {"in_channels": 4, "out_channels": 4}, "pictures of 3 channels"),
        ("vae", {"shift_factor": 0.1}, "scaled and not shifted"),
        ("vae", {"latents_mean": [0.1, 0.1, 0.1, 0.1]}, "scaled and not shifted"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "must be the VAE of Stable Diffusion 1.x"),
        ("text_encoder", {"model_type": "t5"}, "must be a CLIP text model, got 't5'"),
        ("text_encoder", {"hidden_size": 32}, "width 32, got one that takes 16"),
        ("scheduler", {"prediction_type": "sample"}, "prediction_type epsilon or v_prediction, got 'sample'"),
        ("scheduler", {"prediction_type": "flow_prediction"}, "prediction_type epsilon or v_prediction"),
        ("image_encoder", {"model_type": "vit"}, "must be a CLIP vision model, got 'vit'"),
        ("image_encoder", {"model_type": "siglip_vision_model"}, "must be a CLIP vision model"),
        ("image_encoder", {"num_channels": 1}, "pictures of 3 channels"),
    ],
)
def test_models_of_another_kind_are_refused(folder, part, values, what):
    edit(folder, part, **values)
    assert what in refusal(folder)


def test_a_schedule_without_noise_levels(folder):
    """Defaults would be taken for them, silently."""
    edit(
        folder, "scheduler", ("beta_start", "beta_end", "beta_schedule"), _class_name="FlowMatchEulerDiscreteScheduler"
    )
    assert "got FlowMatchEulerDiscreteScheduler without beta_start" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "what"), [("text_encoder_2", "Stable Diffusion XL"), ("transformer", "a diffusion transformer")]
)
def test_whole_folders_of_another_kind(folder, name, what):
    (folder / name).mkdir()
    shutil.rmtree(folder / "image_encoder")
    assert what in refusal(folder), "before anything is said of parts"


def test_a_real_folder_has_more_in_it(folder):
    """As Stable Diffusion 1.4 is shared: another scheduler, few fields, a safety checker and a feature extractor."""
    edit(folder, "scheduler", ("clip_sample_range", "thresholding"), _class_name="PNDMScheduler", skip_prk_steps=True)
    for name in ("safety_checker", "feature_extractor"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (folder / "v1-5-pruned.ckpt").write_bytes(b"not read")
    edit(folder, "unet", ("addition_embed_type", "class_embed_type", "time_cond_proj_dim", "sample_max_value"))
    edit(folder, "vae", ("scaling_factor", "shift_factor", "latents_mean", "force_upcast"))
    opened = m.load(folder)
    assert opened.vae.config.scaling_factor == 0.18215
    check_weights(folder)


def test_what_a_configuration_leaves_out_is_judged_where_it_is_opened(folder):
    """The class's own default, 1280, is no width of this text encoder."""
    edit(folder, "unet", ("cross_attention_dim",))
    check_folder(folder)
    with pytest.raises(m.ModelError, match="Model part unet"):
        check_weights(folder)


@pytest.mark.parametrize("kind", ["vit", "bert", "nothing", "file"])
def test_a_guide_of_another_kind(folder, tmp_path, kind):
    shutil.rmtree(folder / "image_encoder")
    guide = tmp_path / "guide"
    guide.mkdir()
    if kind == "file":
        guide = guide / "model.safetensors"
        guide.write_bytes(b"weights")
    elif kind != "nothing":
        (guide / "config.json").write_text(json.dumps({"model_type": kind}))
    said = refusal(folder, guide)
    assert "uide" in said and str(guide) in said


def test_a_guide_that_would_not_be_used(folder, tmp_path):
    shutil.copytree(folder / "image_encoder", tmp_path / "clip")
    assert "Guide must be given only where the models have no image_encoder" in refusal(folder, tmp_path / "clip")


def test_nothing_heavy_is_imported():
    """Front ends ask, some in processes that must never import torch."""
    code = (
        "import sys; from napari_neuraldiffuser.core.networks.folder import check_folder, folder_problem\n"
        "check_folder('demo'); assert 'got owner/none' in folder_problem('owner/none')\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert DEMO_FOLDER.is_dir()
