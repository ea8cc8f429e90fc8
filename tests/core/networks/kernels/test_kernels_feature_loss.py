"""The compiled feature loss and its gradients against float64, over sizes, layouts and dtypes."""

import pytest
import torch

from tests.support.numerics.kernel_cases import (
    DTYPES,
    LAYER_SHAPES,
    LAYOUTS,
    LONG_SHAPES,
    Layers,
    check_feature_loss,
    draw,
    feature_loss_grad,
    needs_kernels,
)

pytestmark = needs_kernels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shapes", [LAYER_SHAPES, LONG_SHAPES, [(3, 4096), (12289,)]], ids=["short", "long", "longer"])
def test_every_size_in_every_dtype(shapes, dtype):
    check_feature_loss(Layers(tuple(shapes), 2, dtype, target_batch=1, weight_rows=2))
    check_feature_loss(Layers(tuple(shapes), 3, dtype, target_batch=3, weight_rows=1))


def test_every_batch_with_every_broadcast():
    for batch in range(1, 18):
        for target_batch, weight_rows in [(1, 1), (1, batch), (batch, 1), (batch, batch)]:
            check_feature_loss(Layers(batch=batch, target_batch=target_batch, weight_rows=weight_rows))


def test_gradients_too_large_for_the_cache():
    """From 4 MB of float32 gradients on they are stored past it; an odd layer puts later images off alignment."""
    shapes = ((1023, 513), (7, 4111), (64, 768))
    assert sum(rows * columns for rows, columns in shapes) * 4 * 2 > 4 << 20
    check_feature_loss(Layers(shapes, 2, target_batch=1))
    check_feature_loss(Layers(shapes, 2, layout="misaligned", target_batch=2))


def test_one_layer_and_the_most_layers():
    for n in (1, 23, 24):
        check_feature_loss(Layers(((3, 5),) * n, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_features_and_targets_in_any_layout(layout, dtype):
    shapes = ((5, 7), (4, 3, 6), (2, 3, 2, 5), (2, 2, 3, 2, 3), (1,), (67, 129))
    for target_layout in LAYOUTS:
        check_feature_loss(Layers(shapes, 3, dtype, layout=layout, target_layout=target_layout, target_batch=3))
    check_feature_loss(Layers(shapes, 3, dtype, layout=layout, target_batch=1))


def test_expanded_targets_weights_and_features():
    features = [draw((3, 5, 7)), draw((3, 5, 1)).expand(3, 5, 7), draw((1, 5, 7)).expand(3, 5, 7)]
    targets = [draw((1, 5, 7)).expand(3, 5, 7), draw((1, 1, 7)).expand(1, 5, 7), draw((3, 1, 1)).expand(3, 5, 7)]
    weights = torch.rand(1, 3)
    together = feature_loss_grad(features, targets, weights.expand(3, 3))
    copied = [[t.contiguous() for t in tensors] for tensors in (features, targets)]
    alone = feature_loss_grad(*copied, weights)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-8)
    assert all(grad.is_contiguous() for grad in together[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_targets_and_weights_of_any_dtype(dtype):
    for target_dtype in DTYPES:
        check_feature_loss(Layers(dtype=dtype, target_dtype=target_dtype, target_batch=2))
    features, targets, weights = Layers(dtype=dtype).draw()
    exact = weights.bfloat16()
    expected, _ = feature_loss_grad(features, targets, exact.to(weights.dtype))
    for weight_dtype in DTYPES:
        loss, _ = feature_loss_grad(features, targets, exact.to(weight_dtype).half().to(weight_dtype))
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_loss_of_bfloat16_is_exact_to_a_millionth():
    features = [draw((2, 50, 768), torch.bfloat16) for _ in range(3)]
    targets = [draw((1, 50, 768), torch.bfloat16) for _ in range(3)]
    weights = torch.rand(1, 3, dtype=torch.float64)
    loss, _ = feature_loss_grad(features, targets, weights)
    exact = sum(
        w * (f.double() - t.double()).square().mean((1, 2))
        for f, t, w in zip(features, targets, weights.float().double()[0], strict=True)
    )
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)


def test_equal_features_have_no_loss_and_close_ones_a_relative_error():
    features = [draw((2, n)) + 1000 for n in (3, 4099)]
    loss, grads = feature_loss_grad(features, [f.clone() for f in features], torch.ones(1, 2))
    assert not loss.any()
    assert not any(grad.any() for grad in grads)
    # f^2 - 2fg + g^2 would have lost every digit here
    targets = [f + 2.0**-10 for f in features]
    loss, _ = feature_loss_grad(features, targets, torch.ones(1, 2))
    torch.testing.assert_close(loss, torch.full((2,), 2 * 2.0**-20), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grad_scale", [2.0**-3, 1.0, 2.0**14])
def test_gradient_scale(grad_scale, dtype):
    check_feature_loss(Layers(((5, 7), (257,)), dtype=dtype), grad_scale)


def test_scale_keeps_float16_gradients_from_underflow():
    feature = draw((1, 50, 768), torch.float16)
    target = feature + (torch.rand(feature.shape) + 1).half() * 2.0**-6
    weights = torch.full((1, 1), 2.0**-10)
    _, [lost] = feature_loss_grad([feature], [target], weights, 1.0)
    _, [kept] = feature_loss_grad([feature], [target], weights, 2.0**14)
    exact = 2 * weights.double().item() * (feature.double() - target.double()) / feature[0].numel()
    assert not lost.any()
    assert kept[exact != 0].all()
    torch.testing.assert_close(kept.double() * 2.0**-14, exact, rtol=2.0**-10, atol=2.0**-24 * 2.0**-14)


def test_a_scale_leaves_the_loss_and_float32_digits_alone():
    features, targets, weights = Layers().draw()
    loss, grads = feature_loss_grad(features, targets, weights)
    scaled_loss, scaled = feature_loss_grad(features, targets, weights, 2.0**10)
    assert torch.equal(loss, scaled_loss)
    for grad, more in zip(grads, scaled, strict=True):
        assert torch.equal(grad * 2.0**10, more)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_image_stays_alone(value):
    features, targets, weights = Layers(batch=3).draw()
    expected, _ = feature_loss_grad(features, targets, weights)
    features[2][1, 0] = value
    loss, grads = feature_loss_grad(features, targets, weights)
    assert torch.equal(loss[[0, 2]], expected[[0, 2]])
    assert not loss[1].isfinite()
    assert grads[2][1].isfinite().logical_not().any()
    assert all(grad[[0, 2]].isfinite().all() for grad in grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_of_an_image_ignores_its_neighbours(dtype):
    features, targets, weights = Layers(((7, 19), (4099,)), 5, dtype, target_batch=5, weight_rows=5).draw()
    loss, grads = feature_loss_grad(features, targets, weights)
    for b in range(5):
        one = slice(b, b + 1)
        alone, own = feature_loss_grad([f[one] for f in features], [t[one] for t in targets], weights[one])
        assert torch.equal(loss[one], alone)
        assert all(torch.equal(grad[one], single) for grad, single in zip(grads, own, strict=True))


@pytest.mark.parametrize("grad_scale", [1.0, 2.0**7])
def test_gradcheck(grad_scale):
    features, targets, weights = Layers(((5,), (2, 3)), dtype=torch.float64, weight_rows=2).draw()
    leaves = [f.requires_grad_() for f in features]
    loss = lambda *f: feature_loss_grad(f, targets, weights, grad_scale)[0]  # noqa: E731
    assert torch.autograd.gradcheck(loss, leaves)


def test_autograd_reaches_only_what_asks_for_it():
    features, targets, weights = Layers(((5,), (2, 3)), dtype=torch.float16).draw()
    features[1].requires_grad_()
    loss, grads = feature_loss_grad(features, targets, weights, 2.0**6)
    assert loss.requires_grad
    (loss * torch.tensor([2.0, -1.0])).sum().backward()
    assert features[0].grad is None
    expected = grads[1].detach().float() * torch.tensor([2.0, -1.0]).view(2, 1, 1) * 2.0**-6
    torch.testing.assert_close(features[1].grad.float(), expected, rtol=2.0**-10, atol=2.0**-24)
