"""Layers before the text, computed once for the halves of classifier-free guidance."""

import pytest
import torch

from napari_neuraldiffuser.core.diffusion.classifier_free import ClassifierFree
from napari_neuraldiffuser.core.diffusion.loop import Step
from napari_neuraldiffuser.core.networks.lean import restore
from napari_neuraldiffuser.core.networks.savings.prefix import before_text, once_for_both_halves
from tests.support.small_models import small_models

FIRST = {
    "text in the first block": {},
    "text in the second block": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "linear projections": {"use_linear_projection": True},
}


@pytest.fixture(params=FIRST)
def unet(request):
    return small_models(torch.float64, **FIRST[request.param]).unet


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(3, 4, 16, 16, dtype=torch.float64), torch.randn(6, 8, 16, dtype=torch.float64)


def test_both_halves_are_what_the_whole_network_says(unet, inputs):
    latents, text = inputs
    both = torch.cat([latents] * 2)
    with once_for_both_halves(unet), torch.no_grad():
        shared = unet(both, 500, encoder_hidden_states=text).sample
    plain = restore(unet)(both, 500, encoder_hidden_states=text).sample
    torch.testing.assert_close(shared, plain, rtol=1e-10, atol=1e-12)
    assert (shared[:3] - shared[3:]).abs().max() > 1e-3


def test_only_layers_before_the_text_are_shared(unet, inputs, monkeypatch):
    """Their convolutions see half the batch, those of all others the whole; and nothing is left behind."""
    latents, text = inputs
    kind, seen = type(unet.conv_in), {}
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: (seen.__setitem__(self, len(x)), plain(self, x))[1])
    with once_for_both_halves(unet), torch.no_grad():
        unet(torch.cat([latents] * 2), 500, encoder_hidden_states=text)
    shared = {part for layer in before_text(unet) for part in layer.modules()}
    assert {len_ for conv, len_ in seen.items() if conv in shared} == {3}
    assert {len_ for conv, len_ in seen.items() if conv not in shared} == {6}
    with pytest.raises(RuntimeError), once_for_both_halves(unet):
        raise RuntimeError
    assert not any("forward" in vars(layer) for layer in before_text(unet))


def test_classifier_free_guidance_uses_it(unet, inputs, monkeypatch):
    latents, text = inputs
    kind, sizes = type(unet.conv_in), []
    plain = kind.forward

    def seen(self, x):
        if self is unet.conv_in:
            sizes.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(kind, "forward", seen)
    ClassifierFree(unet, text[:3], text[3:4], 3.0)(latents, Step(0, 10, 500, 0.3, 0.4))
    assert sizes == [3]
