"""Options that save forwards: reused UNet features, classifier-free guidance in the first steps, a tiny decoder."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.diffusion import feature_cache
from napari_neuraldiffuser.core.diffusion.build import build_denoiser
from napari_neuraldiffuser.core.diffusion.classifier_free import ClassifierFree
from napari_neuraldiffuser.core.diffusion.feature_cache import FeatureCache
from napari_neuraldiffuser.core.diffusion.loop import Step
from napari_neuraldiffuser.core.diffusion.sag import SelfAttentionGuided
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.networks.models import ModelError, load
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams
from tests.support.small_models import save_small_models, small_models

STEPS = DiffusionParams(n_steps=8, repeats=2, batch_size=2)
PULL = GuidanceParams(guidance_scale=3.0, guidance_strength=0.5, normalise="rms")


@pytest.fixture(scope="module")
def models():
    return small_models(torch.float64)


@pytest.fixture(scope="module")
def decoded():
    rng = np.random.default_rng(5)
    z, c = rng.standard_normal((1, 4, 16, 16)), rng.standard_normal((1, 8, 16))
    return Embeddings(z, c, {k: rng.standard_normal((1, 10, 16)) for k in LAYERS}, np.array([13]))


@pytest.fixture
def calls(models, monkeypatch):
    """Batch size of every call of the whole UNet, and -1 for each one that reused features."""
    seen, whole, shallow = [], models.unet.forward, feature_cache.from_features

    def forward(latents, *args, **kwargs):
        seen.append(len(latents))
        return whole(latents, *args, **kwargs)

    monkeypatch.setattr(models.unet, "forward", forward)
    monkeypatch.setattr(feature_cache, "from_features", lambda *args: seen.append(-1) or shallow(*args))
    return seen


def inputs(n=2):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(n, 4, 16, 16), draw(n, 8, 16)


def test_the_outer_layers_on_a_step_s_own_features_are_the_whole_unet(models):
    latents, text = inputs()
    whole, features = feature_cache.with_features(models.unet, latents, 321, text)
    again = feature_cache.from_features(models.unet, latents, 321, text, features)
    torch.testing.assert_close(again, models.unet(latents, 321, encoder_hidden_states=text).sample, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole, again, rtol=1e-12, atol=0)
    assert (feature_cache.from_features(models.unet, latents, 321, text, 0 * features) - whole).abs().max() > 1e-3


def test_the_whole_unet_runs_at_every_third_step_after_the_first_ones(models, calls):
    latents, text = inputs()
    cache = FeatureCache(every=3, first=2)
    for index in range(8):
        cache(models.unet, latents, Step(index, 8, 800 - 90 * index, 0.5, 0.6), text, "both")
    assert calls == [2, 2, 2, -1, -1, 2, -1, -1]
    cache(models.unet, latents, Step(8, 9, 10, 0.5, 0.6), text, "another")  # it has no features of its own yet
    assert calls[-1] == 2


def test_guided_steps_are_exact_and_later_ones_reuse(models, decoded, calls):
    reconstruct(decoded, models, STEPS.but(cache_every=2), PULL)
    # guided steps take each half by itself; 6 executed steps of which 3 are guided
    assert calls == [2, 2] * 3 + [4, -1, 4]


def test_self_attention_guidance_keeps_the_attention_of_its_features(models, calls):
    latents, text = inputs()
    plain = ClassifierFree(models.unet, text, text[:1], 3.0, features=FeatureCache(2, 0))
    denoiser = SelfAttentionGuided(plain, 0.75)
    steps = [Step(index, 2, 500 - 20 * index, 0.5, 0.55) for index in range(2)]
    first, second = (denoiser(latents, step).noise for step in steps)
    assert calls == [4, 2, -1, -1]
    exact = SelfAttentionGuided(ClassifierFree(models.unet, text, text[:1], 3.0), 0.75)
    torch.testing.assert_close(first, exact(latents, steps[0]).noise, rtol=1e-11, atol=1e-12)
    near, far = (second - exact(latents, steps[1]).noise).norm(), exact(latents, steps[1]).noise.norm()
    assert 0 < near < 0.5 * far


def test_text_alone_after_the_first_steps(models, decoded, calls):
    """eps = eps_c, one forward of half the batch; before it and in guided steps nothing changes."""
    diffusion = STEPS.but(cfg_until=0.67)
    denoiser = build_denoiser(decoded, models, diffusion, GuidanceParams(guidance_scale=0.0))
    latents, _ = inputs()
    early, late = (denoiser(latents, Step(index, 6, 400, 0.5, 0.6)) for index in (3, 4))
    assert calls == [4, 2]
    text = torch.from_numpy(decoded.c).expand(2, -1, -1)
    cond = models.unet(latents, 400, encoder_hidden_states=text).sample
    torch.testing.assert_close(late.noise, cond, rtol=1e-11, atol=1e-12)
    assert (early.noise - cond).abs().max() > 1e-3


def test_guided_steps_have_both_predictions_whatever_is_stepped_with(models, decoded):
    """A strength that is measured by their difference must not become zero."""
    denoiser = build_denoiser(decoded, models, STEPS.but(cfg_until=0.0), PULL)
    latents, _ = inputs()
    step = Step(0, 6, 400, 0.5, 0.6)
    found = denoiser(latents, step)
    spread = found.noise_cond - found.noise_uncond
    assert spread.abs().max() > 1e-3
    pulled = found.noise - found.noise_cond
    torch.testing.assert_close(pulled.flatten(1).norm(dim=1), 3.0 * spread.flatten(1).norm(dim=1), rtol=1e-6, atol=0)


def test_guidance_sees_the_picture_of_the_tiny_decoder(models, decoded):
    """Losses follow it; without a pull the pictures are the VAE's to the last bit."""
    plain = reconstruct(decoded, models, STEPS, PULL)
    tiny = reconstruct(decoded, models, STEPS, PULL.but(guide_decoder="tiny"))
    assert not np.allclose(tiny.losses, plain.losses, rtol=1e-3)
    images = [
        reconstruct(decoded, models, STEPS, PULL.but(guidance_scale=0.0, guide_decoder=d)).images
        for d in ("vae", "tiny")
    ]
    assert np.array_equal(*images)


def test_a_tiny_decoder_that_is_not_there_is_refused(decoded):
    without = small_models()
    without.vae_tiny = None
    with pytest.raises(ModelError, match="Save an AutoencoderTiny .* as vae_tiny"):
        reconstruct(decoded, without, STEPS, PULL.but(guide_decoder="tiny"))


def test_a_folder_may_have_a_tiny_decoder(tmp_path, models):
    folder = save_small_models(tmp_path)
    opened = load(folder)
    assert opened.vae_tiny is not None
    latents = torch.randn(1, 4, 16, 16)
    assert opened.decode_latents(latents, "tiny").shape == (1, 3, 32, 32)
    weights = folder / "vae_tiny" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert load(folder).digest != opened.digest
    config = folder / "vae_tiny" / "config.json"
    config.write_text(config.read_text().replace('"latent_channels": 4', '"latent_channels": 8'))
    with pytest.raises(ModelError, match="must decode the 4 channels of the VAE's latents, got 8"):
        check_folder(folder)


def test_features_of_other_blocks_are_not_kept(models, decoded, monkeypatch):
    monkeypatch.setattr(feature_cache, "LAST_BLOCKS", ("UpBlock2D",))
    with pytest.raises(ModelError, match="cache_every must be 1 for a UNet"):
        reconstruct(decoded, models, STEPS.but(cache_every=2), PULL)
