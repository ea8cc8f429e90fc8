"""Layers that round an image the same way in a batch of any size."""

import pytest
import torch
from torch import nn
from transformers.activations import QuickGELUActivation

from napari_neuraldiffuser.core.networks.lean import restore
from napari_neuraldiffuser.core.networks.steady import SteadyConv2d, steady

IMAGES = 19
"""More than the 16 from which PyTorch computes a 1 x 1 convolution in another way."""


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


CASES = {
    "small": (lambda: nn.Conv2d(8, 8, 3, padding=1), (8, 8, 8)),
    "pointwise": (lambda: nn.Conv2d(112, 48, 1), (112, 16, 16)),
    "down": (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1), (8, 9, 9)),
    "far": (lambda: nn.Conv2d(4, 4, 3, padding=3), (4, 8, 8)),
    "groups": (lambda: nn.Conv2d(8, 8, 3, groups=2), (8, 8, 8)),
    "row": (lambda: nn.Linear(192, 64), (192,)),
    "few rows": (lambda: nn.Linear(1280, 64), (2, 1280)),
    "uneven": (nn.SiLU, (7, 50, 37)),
    "gelu": (nn.GELU, (7, 50, 37)),
    "quick": (QuickGELUActivation, (7, 50, 37)),
}


def output_and_gradient(layer, x, upstream):
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, upstream)[0]


@pytest.mark.parametrize("name", CASES)
def test_an_image_is_the_same_alone_and_among_others(name, threads):
    make, shape = CASES[name]
    plain = make().requires_grad_(False)
    x = torch.randn(IMAGES, *shape)
    upstream = torch.randn_like(plain(x))
    expected = output_and_gradient(plain, x, upstream)
    layer = steady(nn.Sequential(plain))
    whole = output_and_gradient(layer, x, upstream)
    for got, reference in zip(whole, expected, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-5, atol=1e-5)
    for rows in ([4], [18, 3], list(range(5, 16)), list(range(18, -1, -1))):
        some = output_and_gradient(layer, x[rows], upstream[rows])
        assert all(torch.equal(a, b[rows]) for a, b in zip(some, whole, strict=True))
        assert torch.equal(layer(x[rows]), some[0])


def test_plain_layers_are_not_the_same():
    """What all this is for; where it fails, PyTorch has changed and the layers may no longer be needed."""
    layer = nn.Conv2d(112, 48, 1).requires_grad_(False)
    x = torch.randn(IMAGES, 112, 16, 16)
    assert not torch.equal(layer(x)[:1], layer(x[:1]))


def test_rows_that_are_all_one_are_computed_once(monkeypatch):
    layer = steady(nn.Sequential(nn.Linear(5, 3).requires_grad_(False)))
    seen = []
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: (seen.append(len(x)), x[:, :3])[1])
    assert layer(torch.ones(7, 5)).shape == (7, 3)
    assert seen == [1]


def test_a_network_can_be_restored():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.GELU(), nn.Linear(6, 2))
    kinds = [type(module) for module in network]
    steady(steady(network.requires_grad_(False)))
    assert type(network[0]) is SteadyConv2d
    restore(network)
    assert [type(module) for module in network] == kinds
    assert "forward" not in vars(network[2])
