"""The CUDA kernels: the cases of the CPU kernels again.  Nothing here depends on time, so sanitizers can run it."""

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import backend, ops
from tests.support.numerics import kernel_truth as truth
from tests.support.numerics.kernel_cases import (
    DTYPES,
    IMAGE_SIZES,
    LAYER_SHAPES,
    LAYOUTS,
    LONG_SHAPES,
    MEAN,
    OPS,
    STD,
    STEP_SHAPES,
    Layers,
    Norm,
    assert_near,
    check_feature_loss,
    check_group_norm,
    check_guided_step,
    check_prepare_image,
    draw,
    feature_loss_grad,
    image,
    needs_kernels,
)

CUDA = "cuda"
BOTH = [torch.float32, torch.bfloat16]
pytestmark = [needs_kernels, pytest.mark.gpu]


def test_cuda_kernels_are_built_for_this_gpu():
    assert backend.backend_info()["backend"] == "cuda", backend.backend_info()["reason"]


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shapes", [LAYER_SHAPES, LONG_SHAPES, [(3, 4096), (50, 768), (257, 1024)]], ids=str)
def test_feature_loss_of_every_size(shapes, dtype):
    check_feature_loss(Layers(tuple(shapes), 2, dtype, target_batch=1, weight_rows=2, device=CUDA), 2.0**10)
    check_feature_loss(Layers(tuple(shapes), 3, dtype, target_batch=3, weight_rows=1, device=CUDA))


def test_feature_loss_of_every_batch():
    for batch in [*range(1, 18), 64, 300]:
        for rows in {1, batch}:
            check_feature_loss(Layers(batch=batch, target_batch=rows, weight_rows=rows, device=CUDA))
    for n in (1, 24):
        check_feature_loss(Layers(((3, 5),) * n, 2, device=CUDA))


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_feature_loss_in_any_layout(layout, dtype):
    shapes = ((5, 7), (4, 3, 6), (2, 3, 2, 5), (2, 2, 3, 2, 3), (1,), (67, 129))
    for other in LAYOUTS:
        check_feature_loss(Layers(shapes, 3, dtype, layout=layout, target_layout=other, target_batch=3, device=CUDA))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_feature_loss_with_targets_of_any_dtype(dtype):
    for target_dtype in DTYPES:
        check_feature_loss(Layers(dtype=dtype, target_dtype=target_dtype, device=CUDA))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_guided_step_of_every_size(dtype):
    for shape in [*STEP_SHAPES, (2, 3, 5), (3, 4, 64, 65), (2**20 + 1,)]:
        for n in range(1, 7) if shape == (2, 3, 5) else (3,):
            check_guided_step([draw(shape, dtype, device=CUDA) for _ in range(n)])
    table = torch.randn(5, 2, dtype=torch.float64, device=CUDA)
    terms = [draw((5, 4, 9, 11), dtype, device=CUDA), draw((5, 4, 9, 11), dtype, "channels last", CUDA)]
    check_guided_step(terms, table=table)
    check_guided_step(terms[::-1], table=table[:1])


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_guided_step_in_any_layout(layout):
    for shape in [(33, 3), (3, 4, 5, 7), (2, 3, 2, 5, 3)]:
        for other in LAYOUTS:
            terms = [draw(shape, torch.float32, layout, CUDA), draw(shape, torch.bfloat16, other, CUDA)]
            check_guided_step(terms)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_formats_bit_for_bit(dtype):
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = torch.cat([x.float(), torch.nextafter(x.float(), torch.tensor(9.0)), torch.randn(5000) * 2.0**-15])
    zeros = torch.zeros(len(wide), dtype=dtype)
    for terms, coefficients in [([x], [1.0]), ([zeros, wide], [0.0, 1.0])]:
        on_gpu = OPS.guided_step([t.cuda() for t in terms], coefficients).cpu()
        on_cpu = OPS.guided_step(terms, coefficients)
        assert torch.equal(on_gpu.isnan(), on_cpu.isnan())
        number = ~on_cpu.isnan()
        assert torch.equal(on_gpu[number].view(torch.int16), on_cpu[number].view(torch.int16))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_prepare_image_of_every_size(dtype):
    for height, width, size in [*IMAGE_SIZES, (512, 512, 224)]:
        check_prepare_image(image(height, width, 2, dtype, device=CUDA), size)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_prepare_image_in_any_layout(layout, dtype):
    for height, width, size in [(5, 7, 4), (33, 20, 17), (6, 6, 19)]:
        check_prepare_image(image(height, width, 3, dtype, layout, CUDA), size)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("silu", [True, False])
def test_group_norm_of_every_size(silu, dtype):
    sizes = [((1, 1), 1), ((3, 6), 2), ((2, 6, 7), 3), ((2, 9, 4, 4), 3), ((1, 17, 5, 2), 17), ((2, 32, 5, 7), 32),
             ((1, 65, 2, 3), 5), ((2, 6, 2, 3, 5), 2), ((2, 3, 2731), 3), ((1, 64, 127, 3), 32), ((2, 512, 33, 31), 32),
             ((1, 1, 8193), 1), ((1, 8193, 2), 3), ((17, 4, 3, 3), 2)]  # fmt: skip
    for shape, groups in sizes:
        check_group_norm(Norm(shape, groups, dtype, silu=silu, device=CUDA))


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_group_norm_in_any_layout(layout):
    for shape in [(2, 6), (3, 6, 7), (2, 12, 5, 7), (2, 6, 2, 3, 5)]:
        check_group_norm(Norm(shape, 3, layout=layout, device=CUDA))
    for offset in (30.0, -1000.0):
        check_group_norm(Norm((2, 6, 33, 65), offset=offset, layout=layout, device=CUDA))


def test_more_images_than_a_grid_has_rows():
    batch = 65537
    check_feature_loss(Layers(((3,), (1, 2)), batch, weight_rows=batch, device=CUDA))
    table = torch.randn(batch, 2, dtype=torch.float64, device=CUDA)
    check_guided_step([draw((batch, 3), device=CUDA) for _ in range(2)], table=table)
    check_prepare_image(image(2, 3, batch, device=CUDA), 2)
    check_group_norm(Norm((batch, 2, 2), device=CUDA))


def test_large_batch_of_guide_features():
    """B = 64 of six CLIP layers: offsets beyond what a small case reaches."""
    case = Layers(((50, 768),) * 6, 64, torch.bfloat16, target_batch=64, weight_rows=64, device=CUDA)
    features, targets, weights = case.draw()
    loss, grads = feature_loss_grad(features, targets, weights)
    exact, exact_grads = truth.feature_loss(features, targets, weights)
    assert_near(loss, exact, "loss")
    assert_near(grads[5], exact_grads[5], "feature gradient")


# ---- errors ---------------------------------------------------------------------------------------


def test_mixed_devices_are_named():
    features, targets, weights = Layers().draw()
    there = [f.cuda() for f in features]
    x, weight, bias = Norm().draw()
    z = draw((2, 3))
    pixels = image(5, 7)
    table = torch.ones(1, 2, dtype=torch.float64)
    calls = [
        (lambda: feature_loss_grad(there, targets, weights), r"targets\[0\] must"),
        (lambda: feature_loss_grad(there, [t.cuda() for t in targets], weights), "weights must"),
        (lambda: feature_loss_grad(features, targets, weights.cuda()), "weights must"),
        (lambda: OPS.guided_step([z.cuda(), z], [1.0, 1.0]), r"terms\[1\] must"),
        (lambda: OPS.guided_step([z, z.cuda()], [1.0, 1.0]), r"terms\[1\] must"),
        (lambda: OPS.guided_step.table([z.cuda(), z.cuda()], table), "table must"),
        (lambda: OPS.prepare_image_backward(torch.zeros(2, 3, 4, 4), pixels.cuda(), 4, MEAN, STD), "grad must"),
        (lambda: OPS.group_norm_silu(x.cuda(), weight, bias, 2), "weight must"),
        (lambda: OPS.group_norm_silu(x, weight, bias.cuda(), 2), "bias must"),
    ]
    for call, sentence in calls:
        with pytest.raises(RuntimeError, match=sentence):
            call()
    with pytest.raises(ops.OpsError, match=r"targets\[0\] must"):
        ops.feature_loss_grad(there, targets, weights)
    torch.cuda.synchronize()  # nothing was launched that could fail later


# ---- gradients -----------------------------------------------------------------------------------


def test_gradcheck_on_the_gpu():
    features, targets, weights = Layers(((5,), (2, 3)), dtype=torch.float64, device=CUDA).draw()
    leaves = [f.requires_grad_() for f in features]
    assert torch.autograd.gradcheck(lambda *f: feature_loss_grad(f, targets, weights)[0], leaves)
    pixels = (torch.rand(1, 3, 5, 6, dtype=torch.float64, device=CUDA) * 1.8 - 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: OPS.prepare_image(v, 4, MEAN, STD), pixels)
    x, weight, bias = Norm((2, 4, 3, 2), dtype=torch.float64, weight_dtype=torch.float64, device=CUDA).draw()
    assert torch.autograd.gradcheck(lambda v: OPS.group_norm_silu(v, weight, bias, 2)[0], x.requires_grad_())
