"""Half precision by autocast: what it resolves to, and that gradients of means over many features do not underflow."""

import pytest
import torch

from napari_neuraldiffuser.core.diffusion.critic import FeatureCritic
from napari_neuraldiffuser.core.networks.precision import computing_in, resolved
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
