"""What every compiled operation keeps: tracing, autograd and compile rules, threads, memory, instruction sets."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import backend, ops
from tests.support import ROOT
from tests.support.numerics.kernel_cases import DTYPES, MEAN, OPS, STD, Layers, Norm, draw, image, needs_kernels
from tests.support.session.processes import in_a_process

pytestmark = needs_kernels


def norm_backward_arguments(case: Norm):
    x, weight, bias = case.draw()
    _, mean, rstd = OPS.group_norm_silu(x, weight, bias, case.groups)
    return torch.randn(x.shape).to(x.dtype), x, mean, rstd, weight, bias, case.groups, case.silu


def samples(requires_grad: bool, dtype=torch.float32) -> list:
    """(name, operation, arguments): small calls of every overload, in more than one layout."""

    def leaf(tensor):
        return tensor.requires_grad_(requires_grad)

    def loss(**case):
        features, targets, weights = Layers(dtype=dtype, **case).draw()
        return [leaf(f) for f in features], targets, weights, 2.0

    def norm(**case):
        x, weight, bias = Norm(dtype=dtype, **case).draw()
        return leaf(x), weight, bias, 2

    terms = [leaf(draw((2, 4, 5, 7), dtype)), draw((2, 4, 5, 7), torch.promote_types(dtype, torch.float32))]
    last = [leaf(draw((2, 4, 5, 7), dtype, "channels last")), draw((2, 4, 5, 7), dtype)]
    table = torch.randn(2, 2, dtype=torch.float64)
    plain = [
        ("loss", OPS.feature_loss_grad.default, loss()),
        ("loss, strided", OPS.feature_loss_grad.default, loss(layout="transposed", target_batch=2, weight_rows=2)),
        ("step", OPS.guided_step.default, (terms, [0.5, -2.0])),
        ("step, channels last", OPS.guided_step.default, (last, [0.5, -2.0])),
        ("table", OPS.guided_step.table, (terms, table)),
        ("image", OPS.prepare_image.default, (leaf(image(9, 11, dtype=dtype)), 5, MEAN, STD)),
        ("image, channels last", OPS.prepare_image.default,
         (leaf(image(3, 4, dtype=dtype, layout="channels last")), 6, MEAN, STD)),
        ("norm", OPS.group_norm_silu.default, norm()),
        ("norm, 3-D", OPS.group_norm_silu.default, norm(shape=(2, 6, 7), layout="strided")),
        ("norm, channels last", OPS.group_norm_silu.default, norm(layout="channels last")),
    ]  # fmt: skip
    if requires_grad:
        return plain
    pixels = image(9, 11, dtype=dtype, layout="channels last")
    return [
        *plain,
        ("image backward", OPS.prepare_image_backward.default,
         (torch.randn(2, 3, 5, 5).to(dtype), pixels, 5, MEAN, STD)),
        ("norm backward", OPS.group_norm_silu_backward.default, norm_backward_arguments(Norm(dtype=dtype))),
    ]  # fmt: skip


NAMES = [name for name, *_ in samples(False)] if backend.extension() else []


def sample(name, requires_grad=False, dtype=torch.float32):
    return next((op, args) for n, op, args in samples(requires_grad, dtype) if n == name)


def flat(result) -> list:
    return torch.utils._pytree.tree_leaves(result)


def assert_equal_bits(first, second):
    first, second = flat(first), flat(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name):
    torch.library.opcheck(*sample(name, requires_grad=not name.endswith("backward")))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_traced_shapes_of_every_dtype(name, dtype):
    op, args = sample(name, dtype=dtype)
    torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


# ---- torch.compile --------------------------------------------------------------------------------


def through_torch_ops(features, targets, weights, terms, table, pixels, x, weight, bias):
    loss, grads = OPS.feature_loss_grad(features, targets, weights, 2.0)
    step = OPS.guided_step(terms, [0.5, -2.0])
    per_image = OPS.guided_step.table(terms, table)
    prepared = OPS.prepare_image(pixels, 5, MEAN, STD)
    normalised = OPS.group_norm_silu(x, weight, bias, 2)[0]
    return loss, grads, step, per_image, prepared, normalised


def through_core_ops(features, targets, weights, terms, table, pixels, x, weight, bias):
    loss, grads = ops.feature_loss_grad(features, targets, weights, 2.0)
    step = ops.guided_step(terms, [0.5, -2.0])
    per_image = ops.guided_step_table(terms, table)
    prepared = ops.prepare_image(pixels, 5, MEAN, STD)
    normalised = ops.group_norm_silu(x, 2, weight, bias)
    return loss, grads, step, per_image, prepared, normalised


def everything(requires_grad=False):
    features, targets, weights = Layers().draw()
    terms = [draw((2, 4, 5, 7)), draw((2, 4, 5, 7), torch.bfloat16)]
    table = torch.randn(2, 2, dtype=torch.float64)
    x, weight, bias = Norm().draw()
    pixels = image(9, 11)
    leaves = [*features, *terms, pixels, x]
    for tensor in leaves:
        tensor.requires_grad_(requires_grad)
    return (features, targets, weights, terms, table, pixels, x, weight, bias), leaves


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("calls", [through_torch_ops, through_core_ops], ids=["torch.ops", "core.ops"])
def test_compiled_graph_gives_the_same_bits(calls, compiler):
    torch._dynamo.reset()
    compiled = torch.compile(calls, fullgraph=True, backend=compiler)
    args, _ = everything()
    assert_equal_bits(compiled(*args), calls(*args))

    args, leaves = everything(requires_grad=True)

    def gradients(function):
        loss, _, *outputs = function(*args)
        return torch.autograd.grad(loss.sum() + sum(out.square().sum() for out in outputs), leaves)

    for ours, expected in zip(gradients(compiled), gradients(calls), strict=True):
        # a compiler may round sums of bfloat16 gradients once where eager PyTorch does twice
        unit = 2.0**-7 if expected.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(ours, expected, rtol=unit, atol=unit * expected.abs().max().item())


# ---- repeatable ------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def large(dtype) -> list:
    """Calls with work for more than one thread."""
    layers = Layers(((50, 768), (197, 131), (4099,)), 3, dtype, target_batch=1, weight_rows=3)
    x, weight, bias = Norm((2, 32, 67, 65), 8, dtype).draw()
    pixels = image(131, 257, 3, dtype)
    return [
        (OPS.feature_loss_grad.default, (*layers.draw(), 2.0)),
        (OPS.guided_step.default, ([draw((3, 4, 129, 131), dtype) for _ in range(4)], [0.3, -0.7, 1.1, 2.0])),
        (OPS.prepare_image.default, (pixels, 97, MEAN, STD)),
        (OPS.prepare_image_backward.default, (torch.randn(3, 3, 97, 97).to(dtype), pixels, 97, MEAN, STD)),
        (OPS.group_norm_silu.default, (x, weight, bias, 8)),
        (OPS.group_norm_silu_backward.default, norm_backward_arguments(Norm((2, 32, 67, 65), 8, dtype))),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_threads_and_repeats_change_no_bit(dtype, threads):
    for op, args in large(dtype):
        threads(1)
        alone = op(*args)
        assert_equal_bits(op(*args), alone)
        for n in (2, 3):
            threads(n)
            assert_equal_bits(op(*args), alone)


def poison(result):
    """Fill the freed memory that the next call of the same sizes will be given with NaN."""
    sizes = [(t.shape, t.dtype) for t in flat(result)]
    blocks = [torch.full(shape, float("nan"), dtype=dtype) for shape, dtype in sizes for _ in range(4)]
    del blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_output_element_is_written(dtype):
    for _, op, args in samples(False, dtype):
        expected = op(*args)
        for _ in range(3):
            poison(expected)
            got = op(*args)
            assert all(t.isfinite().all() for t in flat(got))
            assert_equal_bits(got, expected)


def test_inputs_are_left_alone():
    for _, op, args in samples(False):
        tensors = [t for t in flat(args) if isinstance(t, torch.Tensor)]
        before = [t.clone() for t in tensors]
        op(*args)
        assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


def test_inference_mode_and_no_grad():
    for _, op, args in samples(True):
        expected = op(*args)
        with torch.no_grad():
            assert not any(t.requires_grad for t in flat(op(*args)))
        with torch.inference_mode():
            for got, wanted in zip(flat(op(*args)), flat(expected), strict=True):
                assert torch.equal(got, wanted)


def test_no_call_keeps_memory():
    """Outputs of about 400 MB in all, one at a time, raise the peak by a fraction of that."""
    if backend.extension().build_info()["sanitize"]:
        pytest.skip("AddressSanitizer keeps freed memory on purpose, and looks for leaks itself")
    # a process of its own: a peak that an earlier test reached would hide every growth
    assert float(in_a_process(f"from {__name__} import grown; print(grown())", cwd=ROOT)) < 30


def grown() -> float:
    """MB that many calls add to the peak of this process."""
    calls = [*large(torch.float32), (OPS.guided_step.default, ([draw((1000, 1000))], [2.0]))]
    for op, args in calls:
        op(*args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for op, args in calls:
        size = sum(t.numel() * t.element_size() for t in flat(op(*args)))
        for _ in range(int(60e6 // size)):
            op(*args)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # MB, where it counts kB


# ---- instruction sets ------------------------------------------------------------------------------


def processor_has(isa: str) -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return {"baseline": True, "v3": capability in ("AVX2", "AVX512"), "v4": capability == "AVX512"}[isa]


def test_the_wanted_instruction_set_runs():
    info = backend.extension().build_info()
    wanted = os.environ.get("NEURALDIFFUSER_ISA")
    best = [isa for isa in info["isas"] if processor_has(isa)][-1]
    assert info["isa"] == (wanted if wanted in info["isas"] and processor_has(wanted) else best)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "v3", "v4"])
def test_every_instruction_set_in_poisoned_memory(isa):
    """The sizes, layouts and number formats again, in a process whose allocator hands out no zeros (glibc)."""
    if isa not in backend.extension().build_info()["isas"] or not processor_has(isa):
        pytest.skip(f"this build or processor has no {isa}")
    environment = {**os.environ, "NEURALDIFFUSER_ISA": isa, "GLIBC_TUNABLES": "glibc.malloc.perturb=128"}
    which = "instruction_set_runs or every or layout or rounding or gradient_scale or threads or large"
    if isa == backend.extension().build_info()["isa"]:
        which = "instruction_set_runs or every"  # the others have run with it; memory was not poisoned there
    files = sorted(map(str, Path(__file__).parent.glob("test_kernels_*.py")))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
    done = subprocess.run(
        [*command, "-k", which, *files], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
