"""Upsampling layers that convolve the small image, against those of diffusers."""

import copy

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from napari_neuraldiffuser.core.networks.lean import lean, restore
from napari_neuraldiffuser.core.networks.savings.upsampling import Doubling, apart, beside, double_and_convolve
from napari_neuraldiffuser.core.networks.steady import steady
from tests.support.small_models import small_models


def layers(bias=True, dtype=torch.float64):
    """A plain layer, and one with the same weights that convolves the small image."""
    plain = Upsample2D(5, use_conv=True, out_channels=7, bias=bias).to(dtype).requires_grad_(False)
    return plain, saving(copy.deepcopy(plain))


def saving(layer):
    double_and_convolve(steady(layer))
    return layer


def output_and_gradient(layer, x, upstream):
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, upstream)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(6, 7), (1, 5), (2, 1)])
def test_it_is_diffusers_layer(size, layout, bias):
    plain, own = layers(bias)
    x = torch.randn(3, 5, *size, dtype=torch.float64).contiguous(memory_format=layout)
    upstream = torch.randn(3, 7, 2 * size[0], 2 * size[1], dtype=torch.float64)
    for got, expected in zip(
        output_and_gradient(own, x, upstream), output_and_gradient(plain, x, upstream), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
        assert got.is_contiguous(memory_format=layout)


def test_another_size_than_twice_the_images_is_left_to_diffusers():
    plain, own = layers()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    assert torch.equal(own(x, (7, 5)), plain(x, (7, 5)))
    torch.testing.assert_close(own(x, torch.Size((8, 6))), plain(x), rtol=1e-12, atol=1e-13)


def test_other_layers_are_left_alone():
    transposed = Upsample2D(4, use_conv_transpose=True, out_channels=4)
    normed = Upsample2D(4, use_conv=True, norm_type="ln_norm", elementwise_affine=True)
    wide = Upsample2D(4, use_conv=True, kernel_size=5, padding=2)
    bare = Upsample2D(4)
    for layer in (transposed, normed, wide, bare):
        assert "forward" not in vars(saving(layer.requires_grad_(False)))


def test_kernels_follow_the_weights():
    plain, own = layers()
    x = torch.randn(1, 5, 4, 4, dtype=torch.float64)
    own(x)
    with torch.no_grad():
        own.conv.weight.mul_(2)
        plain.conv.weight.mul_(2)
    torch.testing.assert_close(own(x), plain(x), rtol=1e-12, atol=1e-13)
    own.float(), plain.float()
    torch.testing.assert_close(own(x.float()), plain(x.float()), rtol=1e-5, atol=1e-5)


def test_rows_are_put_apart_and_back():
    """Each is the transpose of the other, by their scalar products."""
    small, large = torch.randn(2, 12, 4, 6, dtype=torch.float64), torch.randn(2, 3, 6, 10, dtype=torch.float64)
    assert (apart(small) * large).sum() == pytest.approx(float((small * beside(large)).sum()))


def test_an_image_has_the_same_bits_in_any_batch():
    _, own = layers(dtype=torch.float32)
    x, upstream = torch.randn(19, 5, 9, 9), torch.randn(19, 7, 18, 18)
    whole = output_and_gradient(own, x, upstream)
    for rows in ([4], [18, 3], list(range(5, 16))):
        some = output_and_gradient(own, x[rows], upstream[rows])
        assert all(torch.equal(a, b[rows]) for a, b in zip(some, whole, strict=True))


def test_half_precision_is_as_near_as_the_plain_layer():
    plain, own = layers(dtype=torch.float32)
    x = torch.randn(2, 5, 8, 8)
    exact = plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [float((layer(x).float() - exact).norm()) for layer in (own, plain)]
        assert own(x).dtype == torch.bfloat16
    assert errors[0] < 1.5 * errors[1]


def test_networks_have_it_until_they_are_restored():
    models = small_models(torch.float64)
    layers = [m for part in (models.unet, models.vae.decoder) for m in part.modules() if type(m) is Upsample2D]
    assert layers
    assert all(type(layer.forward) is Doubling for layer in layers)
    z = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    before = models.vae.decode(z).sample
    copied = copy.deepcopy(models.vae.decoder)
    lean(models.vae.decoder)
    restore(models.vae.decoder)
    assert not any("forward" in vars(layer) for layer in models.vae.decoder.modules() if isinstance(layer, nn.Module))
    torch.testing.assert_close(models.vae.decode(z).sample, before, rtol=1e-10, atol=1e-12)
    up = next(m for m in copied.modules() if type(m) is Upsample2D)
    assert up.forward.layer is up
