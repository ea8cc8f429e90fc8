"""Half precision by autocast: what it resolves to, and that gradients of means over many features do not underflow."""

import pytest
import torch

from napari_neuraldiffuser.core.diffusion.critic import FeatureCritic
from napari_neuraldiffuser.core.networks import models as networks
from napari_neuraldiffuser.core.networks.precision import computing_in, memory_format, resolved
from napari_neuraldiffuser.core.params import LAYERS
from tests.support.small_models import small_models

CPU = torch.device("cpu")


def test_automatic_on_a_cpu_is_float32():
    assert resolved("auto", CPU) == "float32"
    assert resolved("bf16", CPU) == "bf16"
    with computing_in("auto", CPU):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("precision", "scaled"), [("fp16", True), ("bf16", False)])
def test_the_gradient_in_half_precision_is_the_gradient(precision, scaled):
    models = small_models()
    layers = LAYERS[:2]
    latents = torch.randn(2, *models.latent_shape)
    # targets so near that the gradient of their mean is below what float16 has without a scale
    near = FeatureCritic(models, [], layers, [1.0, 1.0]).features(latents)
    targets = [f.detach() + 1e-2 * torch.randn_like(f) for f in near]
    critic = FeatureCritic(models, targets, layers, [1.0, 1.0])
    whole = critic(latents)
    with computing_in(precision, CPU):
        half = critic(latents)
    assert (half.scale > 1) is scaled
    assert half.gradient.dtype == torch.float32
    gradient = half.gradient / half.scale
    assert torch.isfinite(gradient).all()
    if scaled:  # bf16 has too few digits for so small a difference of features
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), whole.gradient.flatten(), dim=0) > 0.9


def test_channels_are_last_on_a_gpu_in_half_precision():
    cuda = torch.device("cuda", 0)
    last = [memory_format(half, device) == torch.channels_last for half in (True, False) for device in (cuda, CPU)]
    assert last == [True, False, False, False]


def test_weights_in_another_order_give_the_same_picture(monkeypatch):
    """As on a GPU, here on a CPU; and back again in full precision."""
    models = small_models(torch.float64)
    latents, text = torch.randn(2, *models.latent_shape).double(), torch.randn(2, 8, 16).double()

    def computed():
        with torch.no_grad():
            return models.decode_latents(models.unet(latents, 500, encoder_hidden_states=text).sample)

    before, weights = computed(), models.unet.state_dict()
    monkeypatch.setattr(
        networks, "memory_format", lambda half, device: torch.channels_last if half else torch.contiguous_format
    )
    models.lay_out("bf16")
    kernel = models.unet.mid_block.resnets[0].conv1.weight
    assert not kernel.is_contiguous()
    assert all(torch.equal(value, weights[name]) for name, value in models.unet.state_dict().items())
    torch.testing.assert_close(computed(), before, rtol=1e-9, atol=1e-11)
    models.lay_out("float32")
    assert models.unet.mid_block.resnets[0].conv1.weight.is_contiguous()
    assert torch.equal(computed(), before)
