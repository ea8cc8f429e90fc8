import shutil

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.networks import models as m
from napari_neuraldiffuser.core.params import LAYERS
from tests.support.small_models import small_models


@pytest.fixture(scope="module")
def models():
    return small_models()


def images(n, h=20, w=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def test_a_saved_folder_opens_to_the_same_networks(models, folder):
    opened = m.load(folder)
    picture = images(2)
    assert torch.equal(opened.encode_images(picture), models.encode_images(picture))
    assert torch.equal(opened.encode_text(["a red ball"]), models.encode_text(["a red ball"]))
    assert opened.latent_shape == (4, 16, 16)
    assert opened.image_size == 32
    assert len(opened.digest) == 64


def test_the_guide_network_may_lie_elsewhere(folder, tmp_path, models):
    shutil.copytree(folder, tmp_path / "sd")
    shutil.move(tmp_path / "sd" / "image_encoder", tmp_path / "clip")
    with pytest.raises(m.ModelError, match="as guide"):
        m.load(tmp_path / "sd")
    opened = m.load(tmp_path / "sd", guide=tmp_path / "clip")
    assert np.array_equal(opened.image_features(images(1)), models.image_features(images(1)))


def test_digest_follows_the_weights(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    weights = next((tmp_path / "other" / "vae").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert m.folder_digest(str(folder)) != m.folder_digest(str(tmp_path / "other"))
    guides = [m.folder_digest(str(folder), place / "vae") for place in (folder, tmp_path / "other")]
    assert len({*guides, m.folder_digest(str(folder))}) == 3, "the guide's weights count like the models'"


def test_features_are_the_second_linear_before_the_residual(models):
    """Against a whole forward through hidden_states: fc2's output is what the MLP adds."""
    pixels = torch.randn(2, 3, 24, 24)
    got = models.features(pixels)
    with torch.no_grad():
        states = models.image_encoder(pixels, output_hidden_states=True).hidden_states
    vision = m.vision_model(models.image_encoder)
    for block, feature in enumerate(got):
        layer = vision.encoder.layers[block]
        before = states[block]
        attended = before + layer.self_attn(layer.layer_norm1(before), attention_mask=None)[0]
        assert torch.allclose(feature, states[block + 1] - attended, atol=1e-5)


def test_features_in_any_order_and_subset(models):
    pixels = torch.randn(1, 3, 24, 24)
    everything = dict(zip(LAYERS, models.features(pixels), strict=True))
    for got, layer in zip(models.features(pixels, ("g08", "g02")), ("g08", "g02"), strict=True):
        assert torch.equal(got, everything[layer])


def test_a_layer_that_does_not_exist():
    with pytest.raises(m.ModelError, match="must be one of.*'g03'"):
        small_models().features(torch.zeros(1, 3, 24, 24), ("g03",))
    with pytest.raises(m.ModelError, match="first 2 blocks.*'g08'"):
        small_models(blocks=2).features(torch.zeros(1, 3, 24, 24), ("g08",))


def test_normalisation_is_mean_and_standard_deviation():
    pixels = torch.rand(1, 3, 4, 4)
    mean, std = m.NORMALISATION["imagenet"]
    expected = (pixels.numpy() - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    assert np.allclose(m.normalise(pixels, mean, std), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.zeros((2, 8, 8)), np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 4), np.uint8)])
def test_images_of_another_kind_are_refused(models, bad):
    with pytest.raises(m.PixelError, match="images must be uint8"):
        models.encode_images(bad)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(folder):
    with pytest.raises(UserError, match="Choose cpu as the device"):
        m.load(folder, device="cuda")


def test_networks_are_frozen(models):
    parts = (models.vae, models.unet, models.text_encoder, models.image_encoder)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert not any(part.training for part in parts)
