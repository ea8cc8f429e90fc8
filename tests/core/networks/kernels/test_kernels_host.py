"""The numbers that are computed on the host for both devices: step coefficients and filter taps."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_neuraldiffuser.core.networks.kernels import backend, ops
from tests.support.numerics.kernel_cases import needs_kernels
from tests.support.numerics.kernel_truth import resize_matrix

pytestmark = needs_kernels
SCHEDULE = [(0.0047, 0.0058), (0.05, 0.09), (0.6, 0.7), (0.9982, 0.9991), (0.99, 1.0), (1.0, 1.0), (0.5, 0.5)]


@pytest.mark.parametrize(("abar", "abar_prev"), SCHEDULE)
def test_step_coefficients(abar, abar_prev):
    """Against the DDIM update written out, x0 first, with fifty digits."""
    getcontext().prec = 50
    before, after = Decimal(abar_prev), Decimal(abar)
    # z_prev = sqrt(abar_prev) x0 + sqrt(1 - abar_prev) eps,  x0 = (z - sqrt(1 - abar) eps) / sqrt(abar)
    of_z = before.sqrt() / after.sqrt()
    of_x0, of_noise = before.sqrt() * (1 - after).sqrt() / after.sqrt(), (1 - before).sqrt()
    sizes = of_z, of_noise + of_x0
    for value, truth, size in zip(ops.step_coefficients(abar, abar_prev), (of_z, of_noise - of_x0), sizes, strict=True):
        # 1 - abar loses digits where abar is near 1: relative to the size of its root
        assert abs(Decimal(value) - truth) <= 8 * 2.0**-53 * float(size)


AXES = [(1, 1), (1, 5), (5, 1), (2, 3), (7, 3), (3, 7), (8, 8), (16, 5), (64, 17), (512, 224), (224, 512), (131, 130)]


def dense(taps, n_in):
    rows = np.zeros((len(taps), n_in))
    for row, (begin, weights) in zip(rows, taps, strict=True):
        assert 0 <= begin
        assert begin + len(weights) <= n_in
        row[begin : begin + len(weights)] = weights
    return rows


@pytest.mark.parametrize(("n_in", "n_out"), AXES)
def test_filter_taps(n_in, n_out):
    rows = dense(backend.extension().filter_taps(n_in, n_out), n_in)
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(rows, resize_matrix(n_in, n_out), rtol=0, atol=1e-13)
    impulses = torch.eye(n_in, dtype=torch.float64)[None, None]
    torchs = F.interpolate(impulses, (n_out, n_in), mode="bilinear", antialias=True, align_corners=False)[0, 0]
    np.testing.assert_allclose(rows, torchs.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("bad", [(0, 4), (4, 0), (-1, 4), (4, -3)])
def test_filter_taps_of_nothing(bad):
    with pytest.raises(ValueError, match="must be at least 1"):
        backend.extension().filter_taps(*bad)


def test_build_info_says_what_was_built():
    info = backend.extension().build_info()
    assert info["isa"] in info["isas"]
    assert (info["cuda"] is None) == (not info["architectures"])
    assert all(arch.startswith(("sm_", "compute_")) for arch in info["architectures"])
