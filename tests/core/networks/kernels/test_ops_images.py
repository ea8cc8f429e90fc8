"""Image preparation and GroupNorm with SiLU against their definitions, with and without kernels."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_neuraldiffuser.core.networks.kernels import ops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
pytestmark = pytest.mark.usefixtures("implementation")


@pytest.mark.parametrize(("side", "size"), [(64, 17), (33, 48), (20, 20)])
def test_prepare_image_matches_a_triangle_filter(side, size):
    image = torch.rand((2, 3, side, side), dtype=torch.float64) * 3 - 1.5  # outside [-1, 1] on purpose
    got = ops.prepare_image(image, size, MEAN, STD)
    weights = triangle_filter(side, size)
    image01 = np.clip((image.numpy() + 1) / 2, 0, 1)
    resized = np.einsum("ih,bchw,jw->bcij", weights, image01, weights)
    expected = (resized - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def triangle_filter(side, size):
    """Rows of the antialiased bilinear resize: a triangle as wide as the reduction, borders normalised."""
    scale = side / size
    width = max(scale, 1.0)
    centre = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    weights = np.clip(1 - np.abs(np.arange(side)[None] - centre) / width, 0, None)
    return weights / weights.sum(1, keepdims=True)


def test_prepare_image_gradcheck_and_clamp_stops_the_gradient():
    image = (torch.rand((1, 3, 5, 6), dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.prepare_image(x, 4, MEAN, STD), image)
    outside = torch.full((1, 3, 4, 4), 1.5, requires_grad=True)
    ops.prepare_image(outside, 4, MEAN, STD).sum().backward()
    assert torch.count_nonzero(outside.grad) == 0


def test_prepare_image_takes_bfloat16():
    image = torch.rand((1, 3, 16, 16)).bfloat16()
    got = ops.prepare_image(image, 8, MEAN, STD)
    exact = ops.prepare_image(image.double(), 8, MEAN, STD)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 4, 8, 8), 4, MEAN, STD), "image must be shaped"),
        ((torch.zeros(1, 3, 8, 8), 0, MEAN, STD), "size must be at least 1"),
        ((torch.zeros(1, 3, 8, 8), 4, MEAN[:2], STD), "mean must be 3 numbers, got 2"),
        ((torch.zeros(1, 3, 8, 8), 4, MEAN, (0.2, 0.0, 0.2)), "std must be 3 numbers above 0, got 0"),
        ((torch.zeros(1, 3, 8, 8), 4, (0.2, math.nan, 0.2), STD), "mean must be 3 finite numbers, got nan"),
        ((torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 4, MEAN, STD), "image must be float32, bfloat16"),
        ((torch.zeros(1, 3, 0, 8), 4, MEAN, STD), "image must be shaped"),
    ],
)
def test_prepare_image_names_bad_input(arguments, message):
    with pytest.raises(ops.OpsError, match=message):
        ops.prepare_image(*arguments)


@pytest.mark.parametrize("shape", [(2, 6), (3, 6, 5), (2, 6, 3, 5), (1, 6, 2, 3, 2)])
@pytest.mark.parametrize("silu", [True, False])
def test_group_norm_silu_is_both_in_turn(shape, silu):
    x, weight, bias = torch.randn(shape, dtype=torch.float64, requires_grad=True), *torch.randn(2, 6).double()
    expected = F.group_norm(x, 3, weight, bias, 1e-4)
    expected = F.silu(expected) if silu else expected
    got = ops.group_norm_silu(x, 3, weight, bias, 1e-4, silu)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: ops.group_norm_silu(x, 3, weight, bias, 1e-4, silu), x, atol=1e-4)


PICTURE, ONES = torch.zeros(2, 6, 3, 3), torch.ones(6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PICTURE, 4, ONES, ONES), "groups must divide the 6 channels, got 4"),
        ((PICTURE, 0, ONES, ONES), "groups must divide"),
        ((PICTURE[0, 0, 0], 1, ONES, ONES), "x must be .* 2 to 5 dimensions"),
        ((PICTURE.int(), 2, ONES, ONES), "x must be float32"),
        ((PICTURE[..., :0], 2, ONES, ONES), "x must have at least one element"),
        ((PICTURE, 2, ONES[:5], ONES), r"weight must be shaped \(6\), got \(5"),
        ((PICTURE, 2, ONES, ONES.int()), "bias must be float32"),
        ((PICTURE, 2, ONES, ONES, -1.0), "eps must be a finite number of at least 0, got -1"),
        ((PICTURE, 2, ONES, ONES, math.nan), "eps must be a finite number"),
        ((PICTURE, 2, ONES.clone().requires_grad_(), ONES), "weight must be constant in group_norm_silu"),
        ((PICTURE, 2, ONES, ONES.clone().requires_grad_()), "bias must be constant"),
        ((PICTURE, 2, ONES.to("meta"), ONES), "must be on cpu"),
    ],
)
def test_group_norm_silu_names_what_does_not_fit(arguments, message):
    with pytest.raises(ops.OpsError, match=message):
        ops.group_norm_silu(*arguments)
