"""What only a GPU can do wrong: captured graphs, streams, the number of launches, repeats."""

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import ops
from tests.support.numerics.kernel_cases import (
    MEAN,
    OPS,
    STD,
    Layers,
    Norm,
    draw,
    feature_loss_grad,
    image,
    needs_kernels,
)

CUDA = "cuda"
BOTH = [torch.float32, torch.bfloat16]
pytestmark = [needs_kernels, pytest.mark.gpu]


def calls(dtype=torch.float32) -> dict:
    """name -> (function of no arguments, the floating-point tensor it reads first)."""
    features, targets, weights = Layers(((50, 768), (257, 96), (4099,)), 3, dtype, device=CUDA).draw()
    terms = [draw((3, 4, 64, 65), dtype, device=CUDA) for _ in range(4)]
    table = torch.randn(3, 4, dtype=torch.float64, device=CUDA)
    pixels = image(131, 257, 3, dtype, device=CUDA)
    grad = draw((3, 3, 97, 97), dtype, device=CUDA)
    x, weight, bias = Norm((2, 32, 67, 65), 8, dtype, layout="channels last", device=CUDA).draw()
    _, mean, rstd = OPS.group_norm_silu(x, weight, bias, 8)
    back = draw(x.shape, dtype, "channels last", CUDA)
    return {
        "feature_loss_grad": (lambda: feature_loss_grad(features, targets, weights, 2.0), features[0]),
        "guided_step": (lambda: OPS.guided_step(terms, [0.3, -0.7, 1.1, 2.0]), terms[0]),
        "table": (lambda: OPS.guided_step.table(terms, table), terms[0]),
        "prepare_image": (lambda: OPS.prepare_image(pixels, 97, MEAN, STD), pixels),
        "prepare_image_backward": (lambda: OPS.prepare_image_backward(grad, pixels, 97, MEAN, STD), grad),
        "group_norm_silu": (lambda: OPS.group_norm_silu(x, weight, bias, 8), x),
        "group_norm_silu_backward": (
            lambda: OPS.group_norm_silu_backward(back, x, mean, rstd, weight, bias, 8),
            back,
        ),
    }


NAMES = ["feature_loss_grad", "guided_step", "table", "prepare_image", "prepare_image_backward", "group_norm_silu",
         "group_norm_silu_backward"]  # fmt: skip


def flat(result):
    return torch.utils._pytree.tree_leaves(result)


def assert_same(first, second):
    for a, b in zip(flat(first), flat(second), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_repeats_change_no_bit(name, dtype):
    call, _ = calls(dtype)[name]
    expected = call()
    for _ in range(20):
        assert_same(call(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_graph_replay_equals_eager(name):
    call, source = calls()[name]
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    for seed in range(3):
        torch.manual_seed(seed)
        source.copy_(torch.randn_like(source) * 0.3)
        for out in flat(captured):
            out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert_same(captured, call())


@pytest.mark.parametrize("name", NAMES)
def test_the_current_stream_is_used(name):
    """The input is produced late on a stream of its own, and nothing waits for it but that stream."""
    call, source = calls()[name]
    wanted = torch.randn_like(source) * 0.3
    source.copy_(wanted)
    expected = [out.clone() for out in flat(call())]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()  # memory of this stream, so that the next call need not ask the driver
    stream.synchronize()
    source.fill_(float("nan"))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second
        source.copy_(wanted)
        got = call()
        assert not stream.query(), "the call waited for the device"
    stream.synchronize()
    assert_same(got, expected)


# Kernels of a call with contiguous tensors and weights in float32; group_norm_silu needs statistics first.
LAUNCHES = {name: 1 for name in NAMES if not name.startswith("group_norm")}


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("name", list(LAUNCHES))
def test_number_of_kernel_launches(name, dtype):
    call, _ = calls(dtype)[name]
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    ran = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [kernel for kernel in ran if not kernel.startswith(("Memcpy", "Memset"))]
    assert len(kernels) == LAUNCHES[name], ran
    assert len(ran) == len(kernels), ran


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_with_cuda_graphs(mode):
    torch._dynamo.reset()
    terms = [draw((3, 4, 16, 17), device=CUDA) for _ in range(3)]
    pixels = image(64, 48, device=CUDA)

    def function(terms, pixels):
        return ops.guided_step(terms, [0.5, -1.0, 2.0]), ops.prepare_image(pixels, 20, MEAN, STD)

    expected = function(terms, pixels)
    compiled = torch.compile(function, fullgraph=True, mode=mode)
    for _ in range(4):
        assert_same([out.clone() for out in compiled(terms, pixels)], expected)
