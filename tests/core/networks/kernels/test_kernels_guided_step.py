"""The compiled linear combination against float64, and its number formats bit by bit."""

import itertools

import pytest
import torch

from tests.support.numerics.kernel_cases import (
    COEFFICIENTS,
    DTYPES,
    LAYOUTS,
    OPS,
    STEP_SHAPES,
    check_guided_step,
    draw,
    needs_kernels,
)

pytestmark = needs_kernels
HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_size_in_every_dtype(dtype):
    for shape in [*STEP_SHAPES, (16383,), (16384,), (16385,), (2, 3, 5), (1, 1, 1, 1), (2, 4, 64, 65)]:
        check_guided_step([draw(shape, dtype) for _ in range(3)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_terms", range(1, 7))
def test_one_to_six_terms(n_terms, dtype):
    for shape in [(1,), (257,), (3, 4, 5, 7)]:
        check_guided_step([draw(shape, dtype) for _ in range(n_terms)])


@pytest.mark.parametrize("dtypes", list(itertools.product(DTYPES[:3], repeat=2)), ids=str)
def test_mixed_precision(dtypes):
    first, other = dtypes
    for shape in [(3,), (129,), (2, 4, 9, 11)]:
        check_guided_step([draw(shape, first), draw(shape, other), draw(shape, other), draw(shape, first)])


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_terms_in_any_layout(layout):
    for shape in [(33, 3), (3, 4, 5, 7), (2, 3, 2, 5, 3), (2, 4, 65, 67)]:
        for other in LAYOUTS:
            check_guided_step([draw(shape, torch.float32, layout), draw(shape, torch.bfloat16, other)])


def test_expanded_and_overlapping_terms():
    z = draw((3, 4, 5))
    check_guided_step([z, draw((1, 4, 1)).expand(3, 4, 5), z, z])
    check_guided_step([draw((3, 1, 5)).expand(3, 4, 5), z])


def test_batches_through_the_table():
    for batch in range(1, 18):
        terms = [draw((batch, 4, 3, 7)) for _ in range(3)]
        for images in {1, batch}:
            check_guided_step(terms, table=torch.randn(images, 3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tables_in_any_layout(dtype):
    terms = [draw((2, 131), dtype, "misaligned"), draw((2, 131), dtype, "strided")]
    table = torch.randn(2, 2, dtype=torch.float64)
    check_guided_step(terms, table=table)
    check_guided_step(terms, table=table.T.contiguous().T)
    check_guided_step(terms, table=torch.randn(3, 2, 2, dtype=torch.float64)[1])


def test_channels_last_through_the_table():
    terms = [draw((3, 4, 5, 7), layout="channels last"), draw((3, 4, 5, 7))]
    check_guided_step(terms, table=torch.randn(3, 2, dtype=torch.float64))


def test_large_images_through_the_table():
    for n in (16384, 16385, 40000):
        check_guided_step([draw((2, n)), draw((2, n))], table=torch.randn(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(0,), (0, 4), (2, 0, 3)])
def test_no_elements_give_no_elements(shape):
    terms = [torch.zeros(shape), torch.zeros(shape).bfloat16()]
    assert OPS.guided_step(terms, [1.0, 2.0]).shape == shape
    table = torch.zeros(1, 2, dtype=torch.float64)
    assert OPS.guided_step.table(terms, table).shape == shape


def test_a_number_is_a_tensor_too():
    assert OPS.guided_step([torch.tensor(3.0), torch.tensor(5.0)], [2.0, 0.5]).item() == 8.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_coefficients_of_a_step_cancel_exactly_where_they_should(dtype):
    x = draw((5, 131), dtype)
    assert not OPS.guided_step([x, x], [0.5, -0.5]).any()
    assert torch.equal(OPS.guided_step([x], [1.0]), x)


def test_nan_and_infinity_pass_through():
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0]).repeat(5)
    out = OPS.guided_step([x, torch.ones(20)], [2.0, 1.0])
    torch.testing.assert_close(out, 2 * x + 1, rtol=0, atol=0, equal_nan=True)


# ---- number formats -----------------------------------------------------------------------------


def every_pattern(dtype):
    return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)


def assert_same_bits(got, expected):
    """Bit for bit; any NaN will do for a NaN."""
    assert torch.equal(got.isnan(), expected.isnan())
    number = ~expected.isnan()
    integer = torch.int16 if got.dtype in HALVES else torch.int32
    assert torch.equal(got[number].view(integer), expected[number].view(integer))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_number_survives(dtype):
    x = every_pattern(dtype)
    assert_same_bits(OPS.guided_step([x], [1.0]), x)
    # a few at a time take the path of the elements left over by the vectors
    assert_same_bits(torch.cat([OPS.guided_step([part], [1.0]) for part in x.split(7)]), x)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_number_widens_exactly(dtype):
    x = every_pattern(dtype)
    assert_same_bits(OPS.guided_step([torch.zeros(2**16), x], [1.0, 1.0]), 0.0 + x.float())


def floats_around(dtype):
    """float32 numbers on, beside and half-way between the numbers of `dtype`, and random ones of every size."""
    finite = every_pattern(dtype).float()
    finite = finite[finite.isfinite()].unique()
    halfway = (finite[1:].double() + finite[:-1].double()).div(2).float()
    infinity = torch.tensor(float("inf"))
    beside = [halfway.nextafter(infinity), halfway.nextafter(-infinity), finite.nextafter(infinity)]
    sizes = torch.randn(20000) * torch.exp2(torch.randint(-149, 120, (20000,)).float())
    edges = [65504.0, 65519.996, 65520.0, 65536.0, 3.3895e38, 3.3961e38, 3.4028e38, 2.0**-149, 2.0**-25, 2.0**-24 * 1.5]
    special = torch.tensor([*edges, 0.0, float("inf"), float("nan")])
    return torch.cat([finite, halfway, *beside, sizes, special, -special])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_is_that_of_torch(dtype):
    x = floats_around(dtype)
    zeros = torch.zeros(len(x), dtype=dtype)
    expected = (0.0 + x).to(dtype)
    assert_same_bits(OPS.guided_step([zeros, x], [0.0, 1.0]), expected)
    # a few at a time take the path of the elements left over by the vectors
    some = x[:: len(x) // 20000]
    parts = [OPS.guided_step([zeros[: len(part)], part], [0.0, 1.0]) for part in some.split(5)]
    assert_same_bits(torch.cat(parts), (0.0 + some).to(dtype))


# ---- autograd -----------------------------------------------------------------------------------


def test_gradcheck():
    terms = [draw((2, 3, 2), torch.float64).requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *t: OPS.guided_step(t, COEFFICIENTS[:3]), terms)
    table = torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: OPS.guided_step.table(t, table), terms)


def test_gradients_come_in_the_dtypes_of_the_terms():
    z, noise, constant = draw((2, 5)).requires_grad_(), draw((2, 5), torch.bfloat16).requires_grad_(), draw((2, 5))
    OPS.guided_step([z, noise, constant], [2.0, -0.5, 3.0]).sum().backward()
    assert torch.equal(z.grad, torch.full((2, 5), 2.0))
    assert torch.equal(noise.grad, torch.full((2, 5), -0.5, dtype=torch.bfloat16))
    assert constant.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_image_ignores_its_neighbours(dtype):
    terms = [draw((5, 4, 9, 11), dtype) for _ in range(3)]
    table = torch.randn(5, 3, dtype=torch.float64)
    together = OPS.guided_step.table(terms, table)
    for b in range(5):
        one = slice(b, b + 1)
        alone = OPS.guided_step.table([t[one] for t in terms], table[one])
        assert torch.equal(together[one], alone)
