"""The compiled image preparation against its definition, PyTorch and Pillow, forward and backward."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.support.numerics import kernel_truth as truth
from tests.support.numerics.kernel_cases import (
    DTYPES,
    IMAGE_SIZES,
    LAYOUTS,
    MEAN,
    OPS,
    STD,
    check_prepare_image,
    image,
    needs_kernels,
)

pytestmark = needs_kernels
IDENTITY = [0.0] * 3, [1.0] * 3  # mean and std that leave the pixel as it is


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("height", "width", "size"), IMAGE_SIZES)
def test_every_size_in_every_dtype(height, width, size, dtype):
    check_prepare_image(image(height, width, 2, dtype), size)


def test_every_batch():
    for batch in range(1, 18):
        check_prepare_image(image(7, 5, batch), 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_layout(layout, dtype):
    for height, width, size in [(5, 7, 4), (33, 20, 17), (6, 6, 19)]:
        check_prepare_image(image(height, width, 3, dtype, layout), size)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_incoming_gradient_in_any_layout(layout):
    x = image(9, 12)
    grad = torch.randn(2, 3, 5, 5)
    expected = OPS.prepare_image_backward(grad, x, 5, MEAN, STD)
    assert torch.equal(OPS.prepare_image_backward(LAYOUTS[layout](grad), x, 5, MEAN, STD), expected)
    same = OPS.prepare_image_backward(grad[:, :1, :1, :1].expand(2, 3, 5, 5), x, 5, MEAN, STD)
    copied = grad[:, :1, :1, :1].expand(2, 3, 5, 5).contiguous()
    assert torch.equal(same, OPS.prepare_image_backward(copied, x, 5, MEAN, STD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_decoder_to_guide_network_size(dtype):
    check_prepare_image(image(512, 512, 1, dtype), 224)


@pytest.mark.parametrize(("height", "width", "size"), [*IMAGE_SIZES, (224, 131, 96), (3, 5, 128)])
def test_torch_agrees_in_float64(height, width, size):
    x = (torch.rand(1, 3, height, width, dtype=torch.float64) * 3 - 1.5).requires_grad_()
    unit = (x * 0.5 + 0.5).clamp(0, 1)
    resized = F.interpolate(unit, (size, size), mode="bilinear", antialias=True, align_corners=False)
    shift, scale = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, STD))
    upstream = torch.randn(resized.shape, dtype=torch.float64)
    expected = (resized - shift) / scale
    expected.backward(upstream)
    torch.testing.assert_close(OPS.prepare_image(x.detach(), size, MEAN, STD), expected.detach(), rtol=0, atol=1e-13)
    grad = OPS.prepare_image_backward(upstream, x.detach(), size, MEAN, STD)
    torch.testing.assert_close(grad, x.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width", "size"), [(64, 48, 20), (17, 40, 40), (9, 9, 9), (5, 8, 31), (1, 6, 4)])
def test_pillow_agrees(height, width, size):
    unit = np.random.default_rng(0).random((3, height, width), dtype=np.float32)
    resized = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BILINEAR)) for c in unit]
    got = OPS.prepare_image(torch.from_numpy(unit * 2 - 1)[None], size, *IDENTITY)
    np.testing.assert_allclose(got[0].numpy(), resized, rtol=0, atol=1e-6)


def test_a_constant_image_stays_constant():
    for height, width, size in IMAGE_SIZES:
        got = OPS.prepare_image(torch.full((1, 3, height, width), 0.5), size, *IDENTITY)
        torch.testing.assert_close(got, torch.full_like(got, 0.75), rtol=0, atol=3e-7)


def test_equal_size_only_clamps_and_normalises():
    x = image(13, 13)
    got = OPS.prepare_image(x, 13, *IDENTITY)
    assert torch.equal(got, (x * 0.5 + 0.5).clamp(0, 1))


def test_backward_is_the_transpose_of_forward():
    """<A x, y> = <x, A' y> for an image inside the clamp, where the operation is affine."""
    for height, width, size in IMAGE_SIZES:
        x = torch.rand(2, 3, height, width, dtype=torch.float64) * 2 - 1
        y = torch.randn(2, 3, size, size, dtype=torch.float64)
        zero = OPS.prepare_image(torch.zeros_like(x), size, MEAN, STD)
        forward = ((OPS.prepare_image(x, size, MEAN, STD) - zero) * y).sum()
        backward = (x * OPS.prepare_image_backward(y, x, size, MEAN, STD)).sum()
        torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-10)


def test_the_clamp_passes_the_gradient_on_its_edges_alone():
    x = torch.tensor([-1.0, 1.0, -1.0 - 2.0**-10, 1.0 + 2.0**-10, -30.0, 30.0]).repeat(3, 2, 1).view(1, 3, 2, 6)
    leaf = x.clone().requires_grad_()
    ((leaf + 1) / 2).clamp(0, 1).sum().backward()
    # every input pixel has a share in some output pixel
    grad = OPS.prepare_image_backward(torch.ones(1, 3, 6, 6), x, 6, *IDENTITY)
    assert torch.equal(grad != 0, leaf.grad != 0)


def test_nan_stays_in_its_image_and_infinity_is_clamped():
    x = image(9, 9, 3)
    expected = OPS.prepare_image(x, 4, MEAN, STD)
    broken = x.clone()
    broken[1, 0, 4, 4] = float("nan")
    got = OPS.prepare_image(broken, 4, MEAN, STD)
    assert got[1, 0].isnan().any()
    assert torch.equal(got[[0, 2]], expected[[0, 2]])
    x[0, 0, 0, 0], x[0, 1, 0, 0] = float("inf"), -float("inf")
    clamped = x.clamp(-1, 1)
    assert torch.equal(OPS.prepare_image(x, 4, MEAN, STD), OPS.prepare_image(clamped, 4, MEAN, STD))


def test_gradcheck_inside_and_outside_of_the_clamp():
    for height, width, size in [(5, 6, 4), (3, 4, 7), (4, 4, 4)]:
        x = torch.rand(1, 3, height, width, dtype=torch.float64) * 1.8 - 0.9
        x[0, :, 0, :2] = torch.tensor([1.5, -1.5], dtype=torch.float64)
        x.requires_grad_()
        assert torch.autograd.gradcheck(lambda v, n=size: OPS.prepare_image(v, n, MEAN, STD), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_image_ignores_its_neighbours(dtype):
    x = image(37, 41, 5, dtype)
    grad = torch.randn(5, 3, 19, 19).to(dtype)
    together = OPS.prepare_image(x, 19, MEAN, STD), OPS.prepare_image_backward(grad, x, 19, MEAN, STD)
    for b in range(5):
        one = slice(b, b + 1)
        assert torch.equal(together[0][one], OPS.prepare_image(x[one], 19, MEAN, STD))
        assert torch.equal(together[1][one], OPS.prepare_image_backward(grad[one], x[one], 19, MEAN, STD))


def test_only_the_image_is_saved_for_backward():
    x = image(16, 12).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        OPS.prepare_image(x, 7, MEAN, STD)
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]


def test_truth_is_the_transpose_of_itself():
    """The helper that everything above relies on, against PyTorch's own resize of unit impulses."""
    for n_in, n_out in [(7, 3), (3, 7), (16, 5), (1, 4), (9, 1), (8, 8)]:
        impulses = torch.eye(n_in, dtype=torch.float64)[None, None]
        expected = F.interpolate(impulses, (n_out, n_in), mode="bilinear", antialias=True, align_corners=False)[0, 0]
        np.testing.assert_allclose(truth.resize_matrix(n_in, n_out), expected.numpy(), atol=1e-15)
