"""What the public code does beyond its loop: noise, rounding, the guide's resize and targets z; each a parameter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.base.contracts import SeenImages
from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.loop import noise_for
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, encode, extract
from napari_neuraldiffuser.core.networks.kernels import ops
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, FeatureParams, GuidanceParams, preset
from tests.support.small_models import small_models

FREE = GuidanceParams(guidance_scale=0.0)
QUICK = DiffusionParams(n_steps=4, repeats=2, batch_size=4)
IMAGES = np.random.default_rng(3).integers(0, 256, (3, 40, 40, 3), np.uint8)
CAPTIONS = [["a red ball"]] * 3


@pytest.fixture(scope="module")
def models():
    return small_models()


def decoded_for(n=2, **attrs):
    rng = np.random.default_rng(0)
    z, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, 4, 16, 16), (n, 8, 16)))
    g = {k: rng.standard_normal((n, 10, 16)).astype(np.float32) for k in LAYERS}
    return Embeddings(z, c, g, np.arange(n) + 7, attrs)


def test_the_preset_has_what_concerns_loop_and_noise():
    diffusion, _ = preset("published")
    said = diffusion.noise, diffusion.seed, diffusion.rounding, diffusion.start_noise, diffusion.sag_scale
    assert said == ("shared", 42, "truncate", "published", 0.75)
    assert FeatureParams() == FeatureParams(antialias=True, z_resize="bilinear", z_target="mean")


def test_shared_noise_is_that_of_the_repeat():
    own = pipeline.noise_of(decoded_for(), QUICK)
    shared = pipeline.noise_of(decoded_for(), QUICK.but(noise="shared"))
    assert len({row.numpy().tobytes() for row in own}) == 4
    assert torch.equal(shared[:2], shared[2:]) and not torch.equal(shared[0], shared[1])
    assert np.array_equal(shared[1].numpy(), noise_for(0, 0, 1, (4, 16, 16)))


def test_truncated_images_are_at_most_a_level_darker(models):
    nearest, below = (
        reconstruct(decoded_for(), models, QUICK.but(rounding=r), FREE).images for r in ("nearest", "truncate")
    )
    darker = nearest.astype(int) - below
    assert set(np.unique(darker)) == {0, 1}
    assert 0.3 < darker.mean() < 0.7


@pytest.mark.parametrize("size", [24, 48])
def test_the_plain_resize_is_torch_s_and_differentiable(size, implementation):
    image = torch.randn(2, 3, 40, 40, dtype=torch.float64, requires_grad=True)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    got = ops.prepare_image(image, size, mean, std, antialias=False)
    inside = ((image + 1) / 2).clamp(0, 1)
    plain = F.interpolate(inside, (size, size), mode="bilinear", antialias=False, align_corners=False)
    expected = (plain - torch.tensor(mean).double().view(1, 3, 1, 1)) / torch.tensor(std).double().view(1, 3, 1, 1)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    up = torch.randn_like(got)
    ours, theirs = (torch.autograd.grad(out, image, up, retain_graph=True)[0] for out in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    if size == 24:
        assert not torch.allclose(got, ops.prepare_image(image, size, mean, std), atol=1e-2)


class Stimuli(SeenImages):
    """Three images with a caption each."""

    def __getitem__(self, ids):
        return IMAGES[np.asarray(ids)]

    def captions(self, stimulus_id):
        return CAPTIONS[stimulus_id]

    def fingerprint(self, ids):
        return ""


def test_features_are_guided_with_the_resize_that_their_targets_had(models, tmp_path):
    files = {
        on: extract(models, Stimuli(), [0, 1], tmp_path / f"{on}.h5", FeatureParams(antialias=on))
        for on in (True, False)
    }
    for on, file in files.items():
        rows = Embeddings.load(file.path)
        file.close()
        critic = build.critic_of(rows, models, GuidanceParams(), 1)
        assert critic.antialias is on
        pixels = torch.from_numpy(IMAGES[:2]).permute(0, 3, 1, 2).float() / 255
        small = F.interpolate(pixels, (24, 24), mode="bilinear", antialias=on, align_corners=False)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in models.normalisation("imagenet"))
        with torch.no_grad():
            expected = models.features((small - mean) / std, ["g04"])[0]
        np.testing.assert_allclose(rows.g["g04"], expected.numpy(), atol=2e-3)


def test_targets_z_of_lanczos_and_of_samples(models):
    def z(ids=(0, 1, 2), **changes):
        rows = list(ids)
        return encode(models, IMAGES[rows], CAPTIONS[: len(rows)], FeatureParams(**changes), rows)["z"]

    small = np.stack([np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.LANCZOS)) for i in IMAGES])
    pixels = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        posterior = models.vae.encode(pixels).latent_dist
    factor = models.vae.config.scaling_factor
    np.testing.assert_allclose(z(z_resize="lanczos"), (posterior.mean * factor).numpy(), atol=1e-5)
    sampled = z(z_resize="lanczos", z_target="sample")
    noise = (torch.from_numpy(sampled) / factor - posterior.mean) / posterior.std
    assert abs(float(noise.mean())) < 0.1 and abs(float(noise.std()) - 1) < 0.1
    np.testing.assert_allclose(z([2], z_target="sample"), z(z_target="sample")[2:], atol=1e-5)
    assert not np.allclose(z(z_target="sample", z_seed=1), z(z_target="sample"), atol=1e-3)
