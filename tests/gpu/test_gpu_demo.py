"""The bundled models on a GPU give the pictures that they give on the CPU."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import reconstruct
from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.kernels import backend
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams

STEPS = DiffusionParams(n_steps=20, repeats=2, batch_size=4, precision="float32")
PULL = GuidanceParams(guidance_scale=3.0, guidance_strength=0.5, normalise="rms")


@pytest.fixture(scope="module")
def decoded():
    """Two stimuli in the demo models' shapes."""
    rng = np.random.default_rng(0)
    shapes = {"z": (2, 4, 16, 16), "c": (2, 32, 64), "g": (2, 65, 96)}
    z, c = (rng.standard_normal(shapes[k], dtype=np.float32) for k in "zc")
    layers = {k: rng.standard_normal(shapes["g"], dtype=np.float32) for k in LAYERS}
    return Embeddings(z, c, layers, np.array([3, 8]))


@pytest.fixture
def full_precision():
    """TensorFloat-32 convolutions have ten bits, too few to compare pictures."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def pictures(decoded, device):
    result = reconstruct(decoded, models.load("demo", device=device), STEPS, PULL)
    assert result.finite.all()
    return result.images.astype(int), result.losses


@pytest.mark.gpu
def test_demo_on_the_gpu_and_on_the_cpu(decoded, full_precision):
    """As few pixels differ as between two orders of the same float32 sums."""
    images, losses = pictures(decoded, "cuda")
    expected, expected_losses = pictures(decoded, "cpu")
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-3)
    assert np.abs(images - expected).mean() < 0.05  # of 255
    assert (np.abs(images - expected) > 2).mean() < 1e-3


@pytest.mark.gpu
def test_kernels_and_plain_pytorch_give_the_same_pictures_on_the_gpu(decoded, full_precision):
    with_kernels, _ = pictures(decoded, "cuda")
    with backend.reference_only():
        without, _ = pictures(decoded, "cuda")
    assert np.abs(with_kernels - without).mean() < 0.05


@pytest.mark.gpu
def test_half_precision_lies_channels_last_and_draws_nearly_the_same(decoded):
    """bfloat16, which `auto` is on a GPU that has it, against float32: the picture stays, its noise may not."""
    drawn = {}
    for precision in ("float32", "bf16"):
        networks = models.load("demo", device="cuda")
        result = reconstruct(decoded, networks, STEPS.but(precision=precision), PULL)
        assert result.finite.all()
        kernel = networks.unet.mid_block.resnets[0].conv1.weight
        assert kernel.is_contiguous(memory_format=torch.channels_last) is (precision == "bf16")
        drawn[precision] = result.images.astype(float)
    assert np.corrcoef(drawn["bf16"].ravel(), drawn["float32"].ravel())[0, 1] > 0.95
