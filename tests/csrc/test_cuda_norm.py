"""GroupNorm with SiLU of csrc/kernels.cu against float64 PyTorch, without a GPU."""

import ctypes

import pytest
import torch
import torch.nn.functional as F

from tests.csrc import emulated as e
from tests.csrc.emulated import DTYPES

pytestmark = pytest.mark.slow  # the build takes several seconds

# batch, pixels, channels, groups: single elements, one group wider than a block, more groups than a block has threads
NORMS = [(1, 1, 2, 1), (2, 7, 3, 1), (3, 5, 6, 3), (17, 3, 8, 2), (2, 100, 128, 32), (1, 33, 320, 32), (2, 9, 520, 4),
         (1, 3, 1040, 1), (1, 5, 300, 300), (1, 3, 1542, 257), (1, 9000, 1, 1)]  # fmt: skip


def group_norm(device, name, tensors, shape, groups, silu, outputs):
    """Runs the operation on tensors (batch, pixels, channels)."""
    params = e.GroupNorm(silu=silu, eps=1e-5, type=e.TYPES[tensors["x"].dtype], groups=groups)
    params.batch, params.pixels, params.channels = shape
    for key, tensor in tensors.items():
        setattr(params, key, tensor.data_ptr())
    workspace = e.Guarded((device.library.group_norm_workspace(ctypes.byref(params)),), torch.float64)
    params.workspace = workspace.tensor.data_ptr()
    device.run(name, params, outputs, launches=2)
    workspace.check()


def norm_reference(x, weight, bias, groups, silu):
    """In float64, on (batch, pixels, channels)."""
    out = F.group_norm(x.transpose(1, 2), groups, weight, bias, 1e-5).transpose(1, 2)
    return F.silu(out) if silu else out


def check_group_norm(device, x, groups, silu=True, offset=0, slack=20.0):
    """Forward, then backward with the statistics that forward wrote."""
    batch, _, channels = x.shape
    dtype, acc = x.dtype, e.accumulator(x.dtype)
    weight, bias = torch.randn(channels, dtype=acc), torch.randn(channels, dtype=acc)
    mean, rstd = e.Guarded((batch, groups), acc), e.Guarded((batch, groups), acc)
    out, dx = e.Guarded(x.shape, dtype, offset), e.Guarded(x.shape, dtype, offset)
    tensors = {"x": x, "weight": weight, "bias": bias, "mean": mean.tensor, "rstd": rstd.tensor}
    group_norm(device, "group_norm", {**tensors, "out": out.tensor}, x.shape, groups, silu, [out, mean, rstd])

    wide = x.double().requires_grad_()
    expected = norm_reference(wide, weight.double(), bias.double(), groups, silu)
    grouped = wide.detach().view(batch, -1, groups, channels // groups).transpose(1, 2).flatten(2)
    variance, level = torch.var_mean(grouped, 2, correction=0)
    e.assert_near(mean.tensor, level, acc)
    e.assert_near(rstd.tensor, (variance + 1e-5).rsqrt(), acc)
    e.assert_near(out.tensor, expected.detach(), dtype, slack)

    grad = torch.randn(x.shape).to(dtype)
    tensors |= {"grad": grad, "out": dx.tensor}
    group_norm(device, "group_norm_backward", tensors, x.shape, groups, silu, [dx])
    (want,) = torch.autograd.grad(expected, wide, grad.double())
    scale = float(rstd.tensor.max() * weight.abs().max() * grad.abs().max())  # of the terms that may cancel
    e.assert_near(dx.tensor, want, dtype, slack, scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_group_norm(device, dtype, shape):
    *size, groups = shape
    check_group_norm(device, torch.randn(size).to(dtype), groups)


def test_group_norm_with_several_chunks_in_a_part(device):
    check_group_norm(device, torch.randn(1, 260, 4104), 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_group_norm_without_silu_and_misaligned(device, dtype):
    x = torch.randn(2, 40, 32).to(dtype)
    check_group_norm(device, x, 4, silu=False)
    check_group_norm(device, e.misaligned(x), 4)
    check_group_norm(device, x, 4, offset=1)


@pytest.mark.parametrize("level", [1e3, 1e6])
def test_group_norm_far_from_zero(device, level):
    """The deviation keeps its digits where the mean is a million times larger."""
    x = torch.randn(2, 5000, 8) + level
    one, zero = torch.ones(8), torch.zeros(8)
    mean, rstd, out = e.Guarded((2, 2), x.dtype), e.Guarded((2, 2), x.dtype), e.Guarded(x.shape, x.dtype)
    tensors = {"x": x, "weight": one, "bias": zero, "mean": mean.tensor, "rstd": rstd.tensor, "out": out.tensor}
    group_norm(device, "group_norm", tensors, x.shape, 2, False, [out, mean, rstd])
    variance, average = torch.var_mean(x.double().view(2, 5000, 2, 4), (1, 3), correction=0)
    e.assert_near(mean.tensor, average, x.dtype)
    e.assert_near(rstd.tensor, (variance + 1e-5).rsqrt(), x.dtype)
