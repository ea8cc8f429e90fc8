"""The compiled GroupNorm + SiLU against float64, forward and backward."""

import pytest
import torch
from torch.nn import functional as F

from tests.support.numerics.kernel_cases import DTYPES, LAYOUTS, OPS, Norm, assert_near, check_group_norm, needs_kernels
from tests.support.numerics.kernel_truth import GroupNorm

pytestmark = needs_kernels

SHAPES = [  # shape, groups: two to five dimensions, one element a group, primes, neighbours of vector widths
    ((1, 1), 1), ((3, 6), 2), ((2, 4, 1), 4), ((2, 6, 7), 3), ((2, 3, 1, 1), 3), ((1, 7, 3, 5), 7), ((2, 8, 5, 7), 1),
    ((2, 9, 4, 4), 3), ((1, 15, 3, 3), 5), ((1, 17, 5, 2), 17), ((2, 32, 5, 7), 32), ((1, 33, 3, 4), 11),
    ((1, 64, 3, 3), 32), ((1, 65, 2, 3), 5), ((2, 6, 2, 3, 5), 2), ((1, 128, 9, 15), 32),
]  # fmt: skip
LONG_SHAPES = [  # one block of the kernels holds 8192 elements of all channels
    ((1, 1, 8191), 1), ((2, 1, 8193), 1), ((1, 3, 2729), 3), ((2, 3, 2730), 1), ((1, 3, 2731), 3), ((1, 2, 3, 4099), 2),
    ((1, 64, 127, 1), 32), ((1, 64, 8, 16), 32), ((2, 64, 3, 43), 32), ((1, 4095, 3), 5), ((1, 4096, 5), 32),
    ((1, 8192, 3), 64), ((1, 8193, 2), 3),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("silu", [True, False])
def test_every_size_in_every_dtype(silu, dtype):
    for shape, groups in SHAPES:
        check_group_norm(Norm(shape, groups, dtype, silu=silu))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_than_one_block(dtype):
    for shape, groups in LONG_SHAPES:
        check_group_norm(Norm(shape, groups, dtype))


@pytest.mark.parametrize("silu", [True, False])
def test_an_output_too_large_for_the_cache(silu):
    """From 16 MB of float32 output on it is stored past it, unless the channels do not fill whole vectors."""
    for channels, groups in [(64, 32), (68, 17)]:
        shape = (1, channels, 257, 256)
        assert channels * 257 * 256 * 4 > 16 << 20
        check_group_norm(Norm(shape, groups, silu=silu, layout="channels last"))


def test_every_batch():
    for batch in range(1, 18):
        check_group_norm(Norm((batch, 6, 3, 5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_layout(layout, dtype):
    for shape in [(2, 6), (3, 6, 7), (2, 12, 5, 7), (2, 6, 2, 3, 5)]:
        check_group_norm(Norm(shape, 3, dtype, layout=layout))


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_incoming_gradient_and_weights_in_any_layout(layout):
    x, weight, bias = Norm((2, 12, 5, 7), 3, layout="channels last").draw()
    _, mean, rstd = OPS.group_norm_silu(x, weight, bias, 3)
    grad = torch.randn(x.shape)
    expected = OPS.group_norm_silu_backward(grad, x, mean, rstd, weight, bias, 3)
    strided = torch.stack([weight, bias], 1)
    got = OPS.group_norm_silu_backward(LAYOUTS[layout](grad), x, mean, rstd, strided[:, 0], strided[:, 1], 3)
    assert torch.equal(got, expected)
    flat = grad[:1, :1, :1, :1].expand(x.shape)
    got = OPS.group_norm_silu_backward(flat, x, mean, rstd, weight, bias, 3)
    assert torch.equal(got, OPS.group_norm_silu_backward(flat.contiguous(), x, mean, rstd, weight, bias, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_of_any_dtype(dtype):
    for weight_dtype in DTYPES:
        check_group_norm(Norm(dtype=dtype, weight_dtype=weight_dtype))


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 0.5])
def test_eps(eps):
    check_group_norm(Norm(eps=eps))


@pytest.mark.parametrize("offset", [30.0, -1000.0])
def test_a_large_mean_costs_no_more_than_its_rounding(offset):
    """The mean of the squares less the square of the mean would be all rounding here."""
    check_group_norm(Norm((2, 6, 33, 65), offset=offset))
    check_group_norm(Norm((1, 4, 3001), dtype=torch.float64, offset=offset * 1e4))


def test_a_constant_group_is_its_bias():
    x = torch.full((2, 4, 3, 5), 7.25)
    weight, bias = torch.randn(2, 4)
    out, mean, rstd = OPS.group_norm_silu(x, weight, bias, 2)
    torch.testing.assert_close(out, F.silu(bias).view(1, 4, 1, 1).expand_as(x), rtol=1e-6, atol=1e-7)
    assert torch.equal(mean, torch.full((2, 2), 7.25))
    torch.testing.assert_close(rstd, torch.full((2, 2), 1e-5**-0.5), rtol=1e-6, atol=0)


def test_silu_far_from_zero():
    x = torch.linspace(-1, 1, 1001).view(1, 1, 1001)
    for weight in (20.0, 80.0, 1e4):
        w, b = torch.tensor([weight]), torch.zeros(1)
        out, mean, rstd = OPS.group_norm_silu(x, w, b, 1)
        exact = GroupNorm(x, w, b, 1)
        assert_near(out, exact.forward()[0], "norm", exact.forward()[1])
        grad = OPS.group_norm_silu_backward(torch.ones_like(x), x, mean, rstd, w, b, 1)
        value, magnitude = exact.backward(torch.ones_like(x))
        assert_near(grad, value, "norm gradient", magnitude)


@pytest.mark.parametrize("silu", [True, False])
def test_torch_agrees_in_float64(silu):
    x, weight, bias = Norm((3, 12, 7, 5), 4, torch.float64, weight_dtype=torch.float64).draw()
    leaf = x.clone().requires_grad_()
    expected = F.group_norm(leaf, 4, weight, bias, 1e-5)
    expected = F.silu(expected) if silu else expected
    upstream = torch.randn(x.shape, dtype=torch.float64)
    expected.backward(upstream)
    ours = x.clone().requires_grad_()
    out = OPS.group_norm_silu(ours, weight, bias, 4, 1e-5, silu)[0]
    out.backward(upstream)
    torch.testing.assert_close(out.detach(), expected.detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(ours.grad, leaf.grad, rtol=0, atol=1e-12)


def test_nan_stays_in_its_group():
    x, weight, bias = Norm((3, 6, 5, 7)).draw()
    expected = OPS.group_norm_silu(x, weight, bias, 2)[0]
    broken = x.clone()
    broken[1, 4, 2, 2] = float("nan")
    got = OPS.group_norm_silu(broken, weight, bias, 2)[0]
    assert got[1, 3:].isnan().all()
    got[1, 3:] = expected[1, 3:]
    assert torch.equal(got, expected)


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(("shape", "groups"), [((2, 4, 3, 2), 2), ((2, 6), 3), ((1, 2, 5), 1), ((1, 4, 2, 1, 3), 4)])
def test_gradcheck(shape, groups, silu):
    x, weight, bias = Norm(shape, groups, torch.float64, weight_dtype=torch.float64).draw()
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: OPS.group_norm_silu(v, weight, bias, groups, 1e-5, silu)[0], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_image_ignores_its_neighbours(dtype):
    x, weight, bias = Norm((5, 6, 37, 41), 3, dtype).draw()
    grad = torch.randn(x.shape).to(dtype)
    out, mean, rstd = OPS.group_norm_silu(x, weight, bias, 3)
    back = OPS.group_norm_silu_backward(grad, x, mean, rstd, weight, bias, 3)
    for b in range(5):
        one = slice(b, b + 1)
        alone = OPS.group_norm_silu(x[one], weight, bias, 3)
        assert all(torch.equal(a[one], s) for a, s in zip((out, mean, rstd), alone, strict=True))
        own = OPS.group_norm_silu_backward(grad[one], x[one], mean[one], rstd[one], weight, bias, 3)
        assert torch.equal(back[one], own)


def test_no_activation_is_saved_twice():
    x, weight, bias = Norm((2, 8, 9, 9), 2, layout="channels last").draw()
    x.requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        OPS.group_norm_silu(x, weight, bias, 2)
    large = [t for t in saved if t.numel() >= x.numel()]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]
