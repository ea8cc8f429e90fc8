"""Frozen convolutions and joined norms: the same results and gradients, with fewer bytes kept for backward."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.networks.kernels import backend, ops
from napari_neuraldiffuser.core.networks.lean import FrozenConv2d, GroupNormSiLU, frozen_conv2d, lean, restore
from tests.support.small_models import small_models


def kept_bytes(network, compute):
    """Result of `compute` and the bytes that autograd keeps for it: distinct storages, parameters not counted."""
    own, kept = {p.untyped_storage().data_ptr() for p in network.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    return result, sum(storage.nbytes() for storage in kept.values())


def picture_gradient_bytes(vae, z):
    """Picture, the gradient of a loss of it, and the bytes kept between."""
    leaf = z.clone().requires_grad_()
    picture, kept = kept_bytes(vae, lambda: vae.decode(leaf).sample)
    (gradient,) = torch.autograd.grad(picture.square().mean(), leaf)
    return picture.detach(), gradient, kept


def relative(a, b):
    return float((a - b).norm() / b.norm())


# ---- frozen convolution --------------------------------------------------------------------------

SETTINGS = [
    {"padding": 1},
    {"stride": 2, "padding": (1, 0)},
    {"stride": (1, 2), "padding": 2, "dilation": 2},
    {"groups": 2},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_frozen_convolution_is_the_convolution(settings, layout):
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(6, 4 // settings.get("groups", 1), 3, 3).double(), torch.randn(6).double()
    got, expected = frozen_conv2d(x, weight, bias, **settings), F.conv2d(x, weight, bias, **settings)
    assert torch.equal(got, expected)
    assert got.stride() == expected.stride()
    upstream = torch.randn_like(expected)
    mine, theirs = (torch.autograd.grad(out, x, upstream)[0] for out in (got, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: frozen_conv2d(x, weight, None, **settings), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 3])
def test_frozen_convolution_passes_channels_last_through(dtype, size):
    x = torch.randn(2, 8, 6, 5).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = frozen_conv2d(x, torch.randn(16, 8, size, size).to(dtype), padding=size // 2)
    assert out.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert gradient.dtype == dtype


def test_frozen_convolution_keeps_nothing():
    layer = nn.Conv2d(4, 4, 3).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    _, plain = kept_bytes(layer, lambda: layer(x))
    out, frozen = kept_bytes(layer, lambda: frozen_conv2d(x, layer.weight, layer.bias))
    assert plain >= x.untyped_storage().nbytes()
    assert frozen == 0
    assert out.requires_grad


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_parameter_that_wants_a_gradient_is_an_error(name):
    layer = nn.Conv2d(4, 4, 3).requires_grad_(False)
    getattr(layer, name).requires_grad_()
    with pytest.raises(ops.OpsError, match=f"{name} must be frozen"):
        frozen_conv2d(torch.randn(1, 4, 8, 8), layer.weight, layer.bias)
    with pytest.raises(ops.OpsError, match="network must be frozen"):
        lean(layer)


# ---- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_the_demo_decoder_computes_the_same_with_fewer_bytes(implementation, dtype, tolerance):
    vae = models.load("demo", dtype=dtype).vae
    z = torch.randn(2, 4, 16, 16, dtype=dtype)
    leaned = picture_gradient_bytes(vae, z)
    plain = picture_gradient_bytes(restore(vae), z)
    for got, expected in zip(leaned[:2], plain[:2], strict=True):
        assert relative(got, expected) < tolerance
    assert plain[2] / leaned[2] >= (2.5 if implementation == "active" else 1.5)


def test_lean_again_or_restored(implementation):
    vae = small_models().vae
    z = torch.randn(2, 4, 16, 16)
    before = picture_gradient_bytes(vae, z)
    assert sum(type(module) is FrozenConv2d for module in vae.decoder.modules()) > 5
    assert sum(type(module) is GroupNormSiLU for module in vae.decoder.modules()) > 5
    again, names = lean(vae.decoder), list(vae.state_dict())
    assert again is vae.decoder
    after, copied = picture_gradient_bytes(vae, z), picture_gradient_bytes(copy.deepcopy(vae), z)
    for other in (after, copied):
        assert all(torch.equal(a, b) for a, b in zip(before[:2], other[:2], strict=True))
    restore(vae.decoder)
    assert list(vae.state_dict()) == names
    assert {type(m) for m in vae.modules()}.isdisjoint({FrozenConv2d, GroupNormSiLU})
    assert not any(type(module) is nn.Identity for module in vae.decoder.modules())


def test_the_encoder_is_left_alone():
    vae = small_models().vae
    assert {type(m) for m in vae.encoder.modules()}.isdisjoint({FrozenConv2d, GroupNormSiLU})


def test_a_saved_decoder_is_the_plain_one(tmp_path):
    from diffusers import AutoencoderKL

    vae = small_models().vae
    vae.save_pretrained(tmp_path)
    opened = AutoencoderKL.from_pretrained(tmp_path).requires_grad_(False)
    for name, value in vae.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value)
    z = torch.randn(1, 4, 16, 16)
    assert relative(vae.decode(z).sample, opened.decode(z).sample) < 1e-5


def unet_results(unet, z):
    text, leaf = torch.ones(2, 8, 16, dtype=z.dtype), z.clone().requires_grad_()
    noise = unet(leaf, 500, encoder_hidden_states=text).sample
    (gradient,) = torch.autograd.grad(noise.square().mean(), leaf)
    return noise.detach(), gradient


def test_a_unet_with_its_time_embedding_computes_the_same(implementation):
    unet = restore(small_models(torch.float64).unet)
    z = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    plain = unet_results(unet, z)
    leaned = unet_results(lean(unet), z)
    for got, expected in zip(leaned, plain, strict=True):
        assert relative(got, expected) < 1e-12
    assert any(type(module) is GroupNormSiLU for module in unet.modules())
    restored = unet_results(restore(unet), z)
    assert all(torch.equal(got, expected) for got, expected in zip(restored, plain, strict=True))


def test_time_between_norm_and_activation_is_not_joined(implementation):
    from diffusers.models.resnet import ResnetBlock2D

    options = {"in_channels": 8, "temb_channels": 6, "groups": 4, "time_embedding_norm": "scale_shift"}
    block = ResnetBlock2D(**options).double().eval().requires_grad_(False)
    x, time = torch.randn(2, 8, 5, 5).double(), torch.randn(2, 6).double()
    expected = block(x, time)
    assert relative(lean(block)(x, time), expected) < 1e-13
    assert type(block.norm2) is nn.GroupNorm


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bytes_kept_by_the_decoder_of_stable_diffusion():
    """SD 1.4's decoder at 512 pixels; random weights have the same shapes."""
    from diffusers import AutoencoderKL

    if backend.extension() is None:
        pytest.skip(f"no compiled kernels: {backend.why_not()}")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    channels = {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4, "layers_per_block": 2}
    vae = AutoencoderKL(**blocks, **channels, sample_size=512).eval().requires_grad_(False)
    z, kept, pictures = torch.randn(1, 4, 64, 64, requires_grad=True), [], []
    for change in (restore, lean):
        change(vae.decoder)
        out, count = kept_bytes(vae, lambda: vae.decode(z).sample)
        pictures.append(out.detach())
        kept.append(count)
        del out
    print(f"kept for backward: {kept[0] / 1e9:.3f} GB, lean {kept[1] / 1e9:.3f} GB, {kept[0] / kept[1]:.2f} times less")
    assert relative(pictures[1], pictures[0]) < 1e-4
    assert kept[0] / kept[1] >= 2.5
