"""csrc/kernels.cu against float64 PyTorch, without a GPU: the same source on fibers of this processor."""

import ctypes

import pytest
import torch
import torch.nn.functional as F

from tests.csrc import emulated as e
from tests.csrc.emulated import DTYPES

pytestmark = pytest.mark.slow  # the build takes several seconds
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def test_struct_mirrors(device):
    sizes = (e.Long * 4)()
    device.library.struct_sizes(sizes)
    assert list(sizes) == [ctypes.sizeof(s) for s in (e.FeatureLoss, e.GuidedStep, e.PrepareImage, e.GroupNorm)]


# ---- feature_loss_grad ---------------------------------------------------------------------------------------------


def strided(tensor):
    """Index map of one image of a tensor (batch, ...)."""
    size, stride = list(tensor.shape[1:]), list(tensor.stride()[1:])
    pad = 4 - len(size)
    return e.Strided((e.Long * 4)(*[1] * pad, *size), (e.Long * 4)(*[0] * pad, *stride))


def feature_loss(device, features, targets, weights, scale=1.0, offset=0):
    batch, dtype = features[0].shape[0], features[0].dtype
    params = e.FeatureLoss()
    grads = [e.Guarded(f.shape, dtype, offset) for f in features]
    loss = e.Guarded((batch,), e.accumulator(dtype))
    for layer, f, g, grad in zip(params.layer, features, targets, grads, strict=False):
        layer.feature, layer.target, layer.grad = f.data_ptr(), g.data_ptr(), grad.tensor.data_ptr()
        layer.feature_map, layer.target_map = strided(f), strided(g)
        layer.feature_image, layer.target_image = f.stride(0), g.stride(0) if g.shape[0] > 1 else 0
        layer.numel = f[0].numel()
        layer.linear = f[0].is_contiguous() and g[0].is_contiguous()
    weights = weights.to(e.accumulator(dtype)).contiguous()
    params.n_layers, params.batch, params.grad_scale = len(features), batch, scale
    params.feature_type, params.target_type = e.TYPES[dtype], e.TYPES[targets[0].dtype]
    params.weights, params.weights_image = weights.data_ptr(), weights.shape[1] if weights.shape[0] > 1 else 0
    params.loss = loss.tensor.data_ptr()
    device.run("feature_loss_grad", params, [loss, *grads])
    return loss.tensor, [grad.tensor for grad in grads]


def check_feature_loss(device, features, targets, weights, scale=1.0, offset=0):
    loss, grads = feature_loss(device, features, targets, weights, scale, offset)
    dtype = features[0].dtype
    weights = weights.to(e.accumulator(dtype)).double()
    expected = torch.zeros(features[0].shape[0], dtype=torch.float64)
    for i, (f, g, grad) in enumerate(zip(features, targets, grads, strict=True)):
        difference = (f.double() - g.double()).flatten(1)
        expected += weights[:, i] * difference.square().mean(1)
        want = 2 * scale * weights[:, i, None] * difference / difference.shape[1]
        e.assert_near(grad.flatten(1), want, dtype)
    e.assert_near(loss, expected, e.accumulator(dtype))


def layers(batch, dtype, seed=0):
    """One layer of every kind: short, long, odd, strided, channels-last, a slice whose rows are misaligned."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1,), (5000,), (7, 9), (12, 8), (8, 4, 6), (3, 5, 2, 7)]
    made = [torch.randn(batch, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    made[3] = made[3].transpose(1, 2)
    made[4] = made[4].to(memory_format=torch.channels_last)
    return [*made, made[1][:, 3:1003], made[1][:, 1::2]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_feature_loss(either, dtype, batch):
    features = layers(batch, dtype)
    targets = [t if i % 2 else t[:1] for i, t in enumerate(layers(batch, dtype, seed=1))]
    check_feature_loss(either, features, targets, torch.rand(batch, len(features)), scale=8.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_feature_loss_with_float32_targets(either, dtype):
    features, targets = layers(2, dtype), layers(2, torch.float32, seed=1)
    check_feature_loss(either, features, targets, torch.rand(1, len(features)))


@pytest.mark.parametrize("batch", [2, 5, 17])
def test_feature_loss_batches(either, batch):
    features = [torch.randn(batch, 40), torch.randn(batch, 3, 4)]
    check_feature_loss(either, features, [torch.randn(1, 40), torch.randn(batch, 3, 4)], torch.rand(batch, 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_feature_loss_misaligned(device, dtype):
    """Each pointer in turn is off by one element; and all layers that there may be."""
    f, g = (torch.randn(2, 64).to(dtype) for _ in range(2))
    for features, targets, offset in [([e.misaligned(f)], [g], 0), ([f], [e.misaligned(g)], 0), ([f], [g], 1)]:
        check_feature_loss(device, features, targets, torch.rand(1, 1), offset=offset)
    features, targets = ([t[:, : n + 1] for n in range(24)] for t in (f, g))
    check_feature_loss(device, features, targets, torch.rand(2, 24))


def test_feature_loss_of_an_image_does_not_depend_on_the_others(either):
    features, targets = layers(5, torch.float32), layers(5, torch.float32, seed=1)
    weights = torch.rand(1, len(features))
    together, _ = feature_loss(either, features, targets, weights)
    alone, _ = feature_loss(either, [f[2:3] for f in features], [t[2:3] for t in targets], weights)
    assert alone[0] == together[2]


def test_clusters_are_used_where_there_are_any(either):
    feature_loss(either, [torch.randn(2, 9)], [torch.randn(2, 9)], torch.ones(1, 1))
    assert either.library.largest_cluster() == (8 if either.clusters else 1)


# ---- guided_step ---------------------------------------------------------------------------------------------------


def guided_step(device, terms, coefficients, table=None, offset=0):
    params = e.GuidedStep()
    out = e.Guarded(terms[0].shape, terms[0].dtype, offset)
    params.n_terms, params.out, params.out_type = len(terms), out.tensor.data_ptr(), e.TYPES[terms[0].dtype]
    for i, term in enumerate(terms):
        params.term[i], params.term_type[i] = term.data_ptr(), e.TYPES[term.dtype]
    params.batch, params.per_image = terms[0].shape[0], terms[0][0].numel()
    params.coefficient[: len(coefficients)] = coefficients
    if table is not None:
        params.table, params.table_images = table.data_ptr(), len(table)
    device.run("guided_step", params, [out])
    return out.tensor


def mixed_terms(first, count, shape):
    others = [first] if first == torch.float64 else [torch.bfloat16, torch.float32, torch.float16]
    return [torch.randn(shape).to(first if i == 0 else others[i % len(others)]) for i in range(count)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_guided_step(device, dtype, count):
    terms = mixed_terms(dtype, count, (3, 1000 + count))
    coefficients = [0.75, -1.5, 2.25, 0.5, -0.125, 3.0][:count]
    expected = sum(c * t.double() for c, t in zip(coefficients, terms, strict=True))
    e.assert_near(guided_step(device, terms, coefficients), expected, dtype, slack=4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_guided_step_misaligned(device, dtype):
    terms = mixed_terms(dtype, 3, (2, 333))
    expected = terms[0].double() - 2 * terms[1].double() + 0.5 * terms[2].double()
    for off in range(4):
        moved = [e.misaligned(t) if i == off else t for i, t in enumerate(terms)]
        e.assert_near(guided_step(device, moved, [1, -2, 0.5], offset=off == 3), expected, dtype, slack=4)


@pytest.mark.parametrize("batch", [1, 2, 17])
@pytest.mark.parametrize("per_image", [False, True])
def test_guided_step_table(device, batch, per_image):
    terms = mixed_terms(torch.float32, 4, (batch, 5, 7))
    table = torch.randn(batch if per_image else 1, 4, dtype=torch.float64)
    expected = sum(table[:, i, None, None] * t.double() for i, t in enumerate(terms))
    e.assert_near(guided_step(device, terms, [], table), expected, torch.float32, slack=4)


# ---- prepare_image -------------------------------------------------------------------------------------------------

IMAGES = [(1, 1, 1, 1), (2, 5, 7, 3), (17, 6, 4, 5), (1, 70, 131, 33), (1, 9, 11, 70), (1, 400, 150, 6), (1, 2, 3, 90)]


def image(batch, height, width, dtype, layout):
    pixels = (torch.randn(batch, 3, height, width + 2) * 0.9).to(dtype)
    pixels[..., 0], pixels[..., -1] = 1.0, -1.0  # the edges of the clamp
    if layout == "slice":
        return pixels[..., 1:-1] if width > 2 else pixels[..., :-2]
    pixels = pixels[..., :width].contiguous()
    return pixels.contiguous(memory_format=torch.channels_last) if layout == "channels last" else pixels


def prepare_params(pixels, size):
    params = e.PrepareImage()
    params.image, params.image_stride[:] = pixels.data_ptr(), pixels.stride()
    params.batch, params.height, params.width, params.size = pixels.shape[0], *pixels.shape[2:], size
    params.mean[:], params.std[:], params.type = MEAN, STD, e.TYPES[pixels.dtype]
    return params


def prepared(pixels, size):
    """The reference, in the type of its argument."""
    unit = ((pixels + 1) / 2).clamp(0, 1)
    small = F.interpolate(unit, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(v, dtype=pixels.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return (small - mean) / std


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_prepare_image(device, dtype, shape):
    *batch_height_width, size = shape
    for layout in ("contiguous", "channels last", "slice"):
        pixels = image(*batch_height_width, dtype, layout)
        out = e.Guarded((pixels.shape[0], 3, size, size), dtype, offset=1)
        params = prepare_params(pixels, size)
        params.out, params.out_stride[:] = out.tensor.data_ptr(), out.tensor.stride()
        device.run("prepare_image", params, [out])
        e.assert_near(out.tensor, prepared(pixels.double(), size), dtype, slack=5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_prepare_image_backward(device, dtype, shape):
    *batch_height_width, size = shape
    for layout in ("contiguous", "channels last"):
        pixels = image(*batch_height_width, dtype, layout)
        grad = torch.randn(pixels.shape[0], size, size, 3).to(dtype).permute(0, 3, 1, 2)
        out = e.Guarded(pixels.shape, dtype, offset=1)
        params = prepare_params(pixels, size)
        params.grad, params.grad_stride[:] = grad.data_ptr(), grad.stride()
        params.out, params.out_stride[:] = out.tensor.data_ptr(), pixels.stride()
        device.run("prepare_image_backward", params, [out])
        wide = pixels.double().requires_grad_()
        (expected,) = torch.autograd.grad(prepared(wide, size), wide, grad.double())
        got = out.tensor.as_strided(pixels.shape, pixels.stride())
        e.assert_near(got, expected, dtype, slack=5, scale=float(expected.abs().max()))


def test_prepare_image_passes_nan_on(device):
    pixels = torch.zeros(1, 3, 6, 6)
    pixels[0, 1, 2, 2] = float("nan")
    out = e.Guarded((1, 3, 3, 3), torch.float32)
    params = prepare_params(pixels, 3)
    params.out, params.out_stride[:] = out.tensor.data_ptr(), out.tensor.stride()
    device.run("prepare_image", params, [out])
    assert torch.isnan(out.tensor[0, 1, 1, 1]) and torch.isfinite(out.tensor[0, 0]).all()


# ---- all of them ---------------------------------------------------------------------------------------------------

EMPTY = [("feature_loss_grad", e.FeatureLoss), ("guided_step", e.GuidedStep), ("prepare_image", e.PrepareImage),
         ("prepare_image_backward", e.PrepareImage), ("group_norm", e.GroupNorm),
         ("group_norm_backward", e.GroupNorm)]  # fmt: skip


@pytest.mark.parametrize("name, params", EMPTY, ids=lambda v: v if isinstance(v, str) else "")
def test_nothing_to_do_launches_nothing(device, name, params):
    device.set()
    assert device.call(name, params()) is None and device.library.launches() == 0


def test_a_refused_launch_is_a_sentence(device):
    params = e.GuidedStep(n_terms=1, batch=1, per_image=1)
    device.set(refusal=1)
    sentence = device.call("guided_step", params).decode()
    assert "must be accepted by the CUDA device, got" in sentence and sentence.endswith(".")
