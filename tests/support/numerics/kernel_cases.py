"""Tolerances, memory layouts and random cases of the tests of the compiled operations."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import backend
from tests.support.numerics import kernel_truth as truth

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Half the distance from 1 to the next number: the relative error of one rounding.
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# Smallest number above 0: what a rounding may cost among the subnormals.
TINY = {torch.float64: 0.0, torch.float32: 2.0**-149, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}

# Roundings in the accumulator's type that separate a result from the truth, relative to the magnitude that
# kernel_truth states; one rounding to the output's type is added where that is narrower.
ROUNDINGS = {
    "loss": 14,  # subtraction (twice, squared), square, weight; partial sums of a few thousand elements
    "feature gradient": 4,  # subtraction, factor (rounded from double), product
    "guided step": 8,  # six coefficients and products, five additions: those of one term pass through at most 7
    "prepared image": 12,  # the clamped pixel, two weighted sums, mean, 1 / std
    "image gradient": 16,  # two weighted sums of normalised weights, 1 / std
    "norm": 12,  # mean, rstd, gain, product, bias; exp (4 units), sigmoid
    "norm statistics": 100,  # a channel of a block is one running sum, up to 8192 numbers long: its square root
    "norm gradient": 16,  # the same again for the slope, and two means
}
# float64 images: the positions of the taps are double too, and run up to the side of the image (512 at most here)
ROUNDINGS_64 = {"prepared image": 500, "image gradient": 500}

FORMATS = {True: torch.channels_last, False: torch.contiguous_format}  # by "is it channels-last"


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def tolerance(result: str, dtype: torch.dtype) -> float:
    """Allowed error of a result of `ROUNDINGS` in `dtype`, relative to its magnitude."""
    narrow = UNIT[dtype] if dtype in (torch.float16, torch.bfloat16) else 0.0
    roundings = ROUNDINGS_64.get(result, ROUNDINGS[result]) if dtype == torch.float64 else ROUNDINGS[result]
    return roundings * UNIT[accumulator(dtype)] + narrow


def assert_near(got: torch.Tensor, exact: np.ndarray, result: str, magnitude: np.ndarray | None = None) -> None:
    """Every element of `got` is within the tolerance of its dtype; a NaN never is."""
    assert tuple(got.shape) == exact.shape
    scale = np.abs(exact) if magnitude is None else magnitude
    allowed = tolerance(result, got.dtype) * scale + TINY[got.dtype]
    error = np.abs(truth.numpy64(got) - exact)
    wrong = ~(error <= allowed)
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error - allowed)), error.shape)
        pytest.fail(
            f"{result} in {got.dtype}: {wrong.sum()} of {wrong.size} elements off, worst at {worst}: "
            f"got {got[worst].item()}, exact {exact[worst]}, allowed error {allowed[worst]:.3g}"
        )


# ---- the extension under test -------------------------------------------------------------------

needs_kernels = pytest.mark.skipif(
    backend.extension() is None and os.environ.get("NEURALDIFFUSER_STRICT") != "1",
    reason=f"no compiled kernels: {backend.why_not()}",
)
OPS = torch.ops.neuraldiffuser


def feature_loss_grad(features, targets, weights, grad_scale=1.0):
    return OPS.feature_loss_grad(features, targets, weights, grad_scale)


# ---- memory layouts: equal values, other strides; what lies between them is NaN -------------------


def _in_gaps(tensor, buffer_shape, index):
    buffer = torch.full(buffer_shape, float("nan"), dtype=tensor.dtype, device=tensor.device)
    view = buffer[index]
    view.copy_(tensor)
    return view


def _misaligned(tensor):
    flat = _in_gaps(tensor.reshape(-1), (tensor.numel() + 2,), slice(1, -1))
    return flat.view(tensor.shape)


def _strided(tensor):
    *outer, last = tensor.shape
    return _in_gaps(tensor, (*outer, 2 * last), (..., slice(None, None, 2)))


def _padded(tensor):
    *outer, last = tensor.shape
    return _in_gaps(tensor, (*outer, last + 3), (..., slice(1, last + 1)))


def _reordered(tensor, source, to):
    return tensor.movedim(source, to).contiguous().movedim(to, source)


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "misaligned": _misaligned,
    "strided": _strided,
    "padded rows": _padded,
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "channels last": lambda t: _reordered(t, 1, -1),
    "images innermost": lambda t: _reordered(t, 0, -1),
}


def arranged(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    view = LAYOUTS[layout](tensor)
    assert torch.equal(view, tensor)
    return view


def draw(shape, dtype=torch.float32, layout="contiguous", device="cpu") -> torch.Tensor:
    """Standard normal numbers, rounded to `dtype`."""
    # arranged on the device: Tensor.to does not keep the strides of a view with gaps
    return arranged(torch.randn(shape).to(dtype).to(device), layout)


# ---- cases ----------------------------------------------------------------------------------------

# per-image shapes of layers: 1, primes, powers of two and their neighbours, more than one block of the kernels
LAYER_SHAPES = [(1,), (2,), (3,), (7,), (8,), (9,), (15,), (16,), (17,), (31,), (33,), (5, 7), (2, 3, 5), (1, 1, 127)]
LONG_SHAPES = [(4095,), (4096,), (4097,), (8191,), (8192,), (8193,), (13, 1021)]
FEW_SHAPES = [(5, 7), (1,), (4, 3, 6), (2, 131)]


@dataclass(frozen=True)
class Layers:
    """Arguments of one call of feature_loss_grad."""

    shapes: tuple = tuple(FEW_SHAPES)
    batch: int = 2
    dtype: torch.dtype = torch.float32
    target_dtype: torch.dtype | None = None  # None: the features'
    target_batch: int = 1
    weight_rows: int = 1
    layout: str = "contiguous"
    target_layout: str = "contiguous"
    device: str = "cpu"

    def draw(self):
        where = self.device
        features = [draw((self.batch, *s), self.dtype, self.layout, where) for s in self.shapes]
        dtype = self.target_dtype or self.dtype
        # rounded to bfloat16 first: the values survive every conversion of the dtypes
        targets = [torch.randn(self.target_batch, *s).bfloat16().to(where, dtype) for s in self.shapes]
        targets = [arranged(t, self.target_layout) for t in targets]
        weights = torch.rand(self.weight_rows, len(self.shapes), device=where) + 0.1
        return features, targets, weights.to(accumulator(self.dtype))


def check_feature_loss(case: Layers, grad_scale: float = 1.0) -> None:
    """Loss and gradients of the compiled operation are the exact ones, in the promised dtype and layout."""
    features, targets, weights = case.draw()
    loss, grads = feature_loss_grad(features, targets, weights, grad_scale)
    exact_loss, exact_grads = truth.feature_loss(features, targets, weights, grad_scale)
    assert loss.dtype == accumulator(case.dtype)
    assert_near(loss, exact_loss, "loss")
    assert len(grads) == len(features)
    for feature, grad, exact in zip(features, grads, exact_grads, strict=True):
        assert grad.dtype == feature.dtype
        assert grad.device == feature.device
        assert grad.is_contiguous()
        assert_near(grad, exact, "feature gradient")


STEP_SHAPES = [(n,) for n in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 129, 4095, 4096, 4097, 8191, 8193)]
COEFFICIENTS = [1.2247, -0.71, 0.5 / 3, 300.25, -1e-3, 0.0]


def check_guided_step(terms, coefficients=None, table=None) -> None:
    """Either overload: exact sum, in the first term's dtype and in its memory format."""
    if table is None:
        coefficients = coefficients or COEFFICIENTS[: len(terms)]
        out = OPS.guided_step(terms, coefficients)
    else:
        out = OPS.guided_step.table(terms, table)
        coefficients = truth.numpy64(table)
    exact, magnitude = truth.guided_step(terms, coefficients)
    first = terms[0]
    assert out.dtype == first.dtype
    assert out.device == first.device
    if first.is_contiguous() or (first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last)):
        assert out.stride() == first.stride()
    else:
        assert out.is_contiguous()
    assert_near(out, exact, "guided step", magnitude)


IMAGE_SIZES = [  # height, width, size: down and up, equal, single pixels, neighbours of vector widths
    (1, 1, 1), (1, 1, 5), (5, 7, 1), (1, 9, 4), (8, 1, 3), (5, 7, 4), (20, 20, 20), (7, 5, 16), (16, 17, 15),
    (33, 48, 40), (64, 64, 17), (31, 65, 32), (48, 33, 100),
]  # fmt: skip


def image(height, width, batch=2, dtype=torch.float32, layout="contiguous", device="cpu"):
    """Pixels from -1.5 to 1.5, in steps that every dtype holds exactly; -1 and 1 are among them."""
    steps = torch.randint(-24, 25, (batch, 3, height, width))
    return arranged((steps / 16).to(device, dtype), layout)


def check_prepare_image(x: torch.Tensor, size: int) -> None:
    """Forward and backward, and that they keep dtype and memory format."""
    out = OPS.prepare_image(x, size, MEAN, STD)
    assert out.dtype == x.dtype
    assert out.is_contiguous()
    assert_near(out, *_named("prepared image", truth.prepare_image(x, size, MEAN, STD)))
    upstream = torch.randn(out.shape).to(x.device, x.dtype)
    grad = OPS.prepare_image_backward(upstream, x, size, MEAN, STD)
    assert grad.dtype == x.dtype
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    assert grad.stride() == torch.empty(x.shape, memory_format=FORMATS[channels_last]).stride()
    assert_near(grad, *_named("image gradient", truth.prepare_image_backward(upstream, x, size, STD)))


def _named(result, exact_and_magnitude):
    exact, magnitude = exact_and_magnitude
    return exact, result, magnitude


@dataclass(frozen=True)
class Norm:
    """Arguments of one call of group_norm_silu."""

    shape: tuple = (2, 6, 5, 7)
    groups: int = 2
    dtype: torch.dtype = torch.float32
    eps: float = 1e-5
    silu: bool = True
    layout: str = "contiguous"
    offset: float = 0.5
    weight_dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def draw(self):
        x = arranged((torch.randn(self.shape) + self.offset).to(self.device, self.dtype), self.layout)
        weight, bias = torch.randn(2, self.shape[1]).bfloat16().to(self.device, self.weight_dtype)
        return x, weight, bias


def check_group_norm(case: Norm) -> None:
    """Output, statistics and gradient; a picture's result is channels-last, others are contiguous."""
    x, weight, bias = case.draw()
    out, mean, rstd = OPS.group_norm_silu(x, weight, bias, case.groups, case.eps, case.silu)
    exact = truth.GroupNorm(x, weight, bias, case.groups, case.eps, case.silu)
    _assert_norm_layout(out, x)
    assert_near(out, *_named("norm", exact.forward()))
    assert mean.dtype == rstd.dtype == accumulator(case.dtype)
    exact_mean, exact_rstd = exact.statistics()
    assert_near(mean, exact_mean, "norm statistics", np.abs(exact_mean) + 1 / exact_rstd)
    assert_near(rstd, exact_rstd, "norm statistics", exact_rstd * (1 + np.abs(exact_mean) * exact_rstd))
    upstream = torch.randn(x.shape).to(x.device, x.dtype)
    grad = OPS.group_norm_silu_backward(upstream, x, mean, rstd, weight, bias, case.groups, case.silu)
    _assert_norm_layout(grad, x)
    assert_near(grad, *_named("norm gradient", exact.backward(upstream)))


def _assert_norm_layout(out, x):
    assert out.dtype == x.dtype
    assert out.device == x.device
    assert out.is_contiguous(memory_format=FORMATS[x.ndim == 4])
