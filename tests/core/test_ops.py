"""The operations of one guided step against float64 autograd, the published formulas and scikit-image."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_neuraldiffuser.core import ops
from tests.small_models import sd14_scheduler

SHAPES = [(5, 7), (1, 3), (2, 3, 5)]  # per-image shapes of three layers, odd on purpose
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def layers(batch, target_batch, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(n, shape):
        return torch.randn((n, *shape), generator=generator, dtype=torch.float64).to(dtype)

    features = [draw(batch, shape) for shape in SHAPES]
    targets = [draw(target_batch, shape) for shape in SHAPES]
    weights = torch.rand((batch, len(SHAPES)), generator=generator, dtype=torch.float64)
    return features, targets, weights


@pytest.mark.parametrize(("batch", "target_batch"), [(1, 1), (3, 1), (4, 4), (17, 1)])
def test_feature_loss_matches_autograd_of_mse(batch, target_batch):
    features, targets, weights = layers(batch, target_batch)
    leaves = [f.clone().requires_grad_() for f in features]
    expected = torch.zeros(batch, dtype=torch.float64)
    for b in range(batch):
        for i, leaf in enumerate(leaves):
            expected[b] = expected[b] + weights[b, i] * F.mse_loss(leaf[b], targets[i][b % target_batch])
    expected.sum().backward()

    loss, grads = ops.feature_loss_grad(features, targets, weights)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    for grad, leaf in zip(grads, leaves, strict=True):
        torch.testing.assert_close(grad, leaf.grad, rtol=1e-12, atol=0)


def test_feature_loss_gradcheck():
    features, targets, weights = layers(2, 1)
    for f in features:
        f.requires_grad_()
    assert torch.autograd.gradcheck(lambda *f: ops.feature_loss(f, targets, weights), features)


def test_gradient_of_an_image_ignores_its_neighbours():
    features, targets, weights = layers(3, 1, torch.float32)
    weights = weights.float()
    _, together = ops.feature_loss_grad(features, targets, weights)
    _, alone = ops.feature_loss_grad([f[1:2] for f in features], targets, weights[1:2])
    for whole, single in zip(together, alone, strict=True):
        assert torch.equal(whole[1:2], single)


def test_one_row_of_weights_serves_every_image():
    features, targets, weights = layers(3, 1)
    row = weights[:1]
    loss, _ = ops.feature_loss_grad(features, targets, row)
    expected, _ = ops.feature_loss_grad(features, targets, row.expand(3, -1))
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    features, targets, weights = layers(2, 1, dtype)
    exact, _ = ops.feature_loss_grad([f.double() for f in features], [t.double() for t in targets], weights)
    leaves = [f.requires_grad_() for f in features]
    loss = ops.feature_loss(leaves, targets, weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    loss.sum().backward()
    assert all(leaf.grad.dtype == dtype for leaf in leaves)


def test_non_contiguous_views_give_the_same_loss():
    features, targets, weights = layers(3, 3)
    strided = [f.transpose(0, -1).contiguous().transpose(0, -1) for f in features]
    assert not strided[0].is_contiguous()
    loss, _ = ops.feature_loss_grad(strided, targets, weights)
    expected, _ = ops.feature_loss_grad(features, targets, weights)
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, t, w: ([], [], w), "at least one layer"),
        (lambda f, t, w: (f, t[:2], w), "targets must be one per layer"),
        (lambda f, t, w: (f, t, w[:, :2]), "weights must be shaped"),
        (lambda f, t, w: (f, t, w[:2]), "weights must be shaped"),
        (lambda f, t, w: (f, [t[0][:2], *t[1:]], w), r"targets\[0\] must be shaped"),
        (lambda f, t, w: ([*f[:2], f[2][:1]], t, w), r"features\[2\] must be \(3"),
        (lambda f, t, w: ([f[0].long(), *f[1:]], t, w), "floating-point"),
        (lambda f, t, w: (f, [t[0].requires_grad_(), *t[1:]], w), r"targets\[0\] must be a constant"),
        (lambda f, t, w: (f, [t[0].to("meta"), *t[1:]], w), "must be on cpu"),
    ],
)
def test_feature_loss_names_what_does_not_fit(change, message):
    with pytest.raises(ops.OpsError, match=message):
        ops.feature_loss(*change(*layers(3, 3)))


def published_step(z, noise, abar, abar_prev):
    x0 = (z - math.sqrt(1 - abar) * noise) / math.sqrt(abar)
    return math.sqrt(abar_prev) * x0 + math.sqrt(1 - abar_prev) * noise


@pytest.mark.parametrize(("abar", "abar_prev"), [(0.05, 0.09), (0.6, 0.7), (0.99, 1.0)])
def test_steps_match_the_published_form(abar, abar_prev):
    z, uncond, cond, gradient = torch.randn((4, 3, 4, 5, 7), dtype=torch.float64)
    noise = uncond + 7.5 * (cond - uncond)
    torch.testing.assert_close(ops.cfg(uncond, cond, 7.5), noise, rtol=1e-12, atol=1e-14)
    expected = published_step(z, noise, abar, abar_prev)
    torch.testing.assert_close(ops.ddim_step(z, noise, abar, abar_prev), expected, rtol=1e-11, atol=1e-12)

    unguided = ops.guided_step(z, uncond, cond, None, ops.step_coefficients(abar, abar_prev, 7.5))
    torch.testing.assert_close(unguided, expected, rtol=1e-11, atol=1e-12)
    guided = ops.guided_step(z, uncond, cond, gradient, ops.step_coefficients(abar, abar_prev, 7.5, 300.0))
    noise = noise + math.sqrt(1 - abar) * 300.0 * gradient
    torch.testing.assert_close(guided, published_step(z, noise, abar, abar_prev), rtol=1e-10, atol=1e-10)


def test_ddim_step_equals_diffusers():
    scheduler = sd14_scheduler()
    scheduler.set_timesteps(50)
    z, noise = torch.randn((2, 2, 4, 3, 3), dtype=torch.float64)
    abar = scheduler.alphas_cumprod.double()
    for t in (721, 1):
        before = abar[t - 20] if t >= 20 else scheduler.final_alpha_cumprod.double()
        expected = scheduler.step(noise, t, z).prev_sample
        torch.testing.assert_close(ops.ddim_step(z, noise, abar[t], before), expected, rtol=1e-6, atol=1e-6)


def test_bfloat16_predictions_keep_float32_latents():
    z, uncond, cond = torch.randn((3, 2, 4, 3, 3))
    coefficients = ops.step_coefficients(0.3, 0.4, 7.5)
    mixed = ops.guided_step(z, uncond.bfloat16(), cond.bfloat16(), None, coefficients)
    rounded = [noise.bfloat16().double() for noise in (uncond, cond)]
    exact = ops.guided_step(z.double(), *rounded, None, coefficients)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, float("nan")])
def test_schedule_outside_its_range_is_an_error(bad):
    z = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ops.OpsError, match=r"abar must be in \(0, 1\]"):
        ops.ddim_step(z, z, bad, 0.5)
    with pytest.raises(ops.OpsError, match=r"abar_prev must be in \(0, 1\]"):
        ops.ddim_step(z, z, 0.5, bad)


def test_bad_scale_and_shape_of_a_step():
    with pytest.raises(ops.OpsError, match="guidance_scale must be a finite number, got nan"):
        ops.step_coefficients(0.5, 0.6, 7.5, float("nan"))
    z = torch.zeros(2, 4, 2, 2)
    with pytest.raises(ops.OpsError, match="must be shaped"):
        ops.ddim_step(z, z[:1], 0.5, 0.6)


@pytest.mark.parametrize(("side", "size"), [(64, 17), (33, 48), (20, 20)])
def test_prepare_image_matches_a_triangle_filter(side, size):
    image = torch.rand((2, 3, side, side), dtype=torch.float64) * 3 - 1.5  # outside [-1, 1] on purpose
    got = ops.prepare_image(image, size, MEAN, STD)
    weights = triangle_filter(side, size)
    image01 = np.clip((image.numpy() + 1) / 2, 0, 1)
    resized = np.einsum("ih,bchw,jw->bcij", weights, image01, weights)
    expected = (resized - np.reshape(MEAN, (1, 3, 1, 1))) / np.reshape(STD, (1, 3, 1, 1))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def triangle_filter(side, size):
    """Rows of the antialiased bilinear resize: a triangle as wide as the reduction, borders normalised."""
    scale = side / size
    width = max(scale, 1.0)
    centre = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    weights = np.clip(1 - np.abs(np.arange(side)[None] - centre) / width, 0, None)
    return weights / weights.sum(1, keepdims=True)


def test_prepare_image_gradcheck_and_clamp_stops_the_gradient():
    image = (torch.rand((1, 3, 5, 6), dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.prepare_image(x, 4, MEAN, STD), image)
    outside = torch.full((1, 3, 4, 4), 1.5, requires_grad=True)
    ops.prepare_image(outside, 4, MEAN, STD).sum().backward()
    assert torch.count_nonzero(outside.grad) == 0


def test_prepare_image_takes_bfloat16():
    image = torch.rand((1, 3, 16, 16)).bfloat16()
    got = ops.prepare_image(image, 8, MEAN, STD)
    exact = ops.prepare_image(image.double(), 8, MEAN, STD)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 4, 8, 8), 4, MEAN, STD), "image must be shaped"),
        ((torch.zeros(1, 3, 8, 8), 0, MEAN, STD), "size must be at least 1"),
        ((torch.zeros(1, 3, 8, 8), 4, MEAN[:2], STD), "mean must be 3 finite"),
        ((torch.zeros(1, 3, 8, 8), 4, MEAN, (0.2, 0.0, 0.2)), "std must be 3 numbers above 0"),
        ((torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 4, MEAN, STD), "floating-point"),
    ],
)
def test_prepare_image_names_bad_input(arguments, message):
    with pytest.raises(ops.OpsError, match=message):
        ops.prepare_image(*arguments)


def test_backend_info_is_honest():
    info = ops.backend_info()
    assert info["backend"] == "reference"
    assert "csrc" in info["reason"]
    assert len(info["cuda_devices"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


@pytest.mark.gpu
def test_operations_agree_between_cpu_and_gpu():
    features, targets, weights = layers(3, 1, torch.float32)
    weights = weights.float()
    loss, grads = ops.feature_loss_grad(features, targets, weights)
    there = [[t.cuda() for t in tensors] for tensors in (features, targets)]
    loss_gpu, grads_gpu = ops.feature_loss_grad(*there, weights.cuda())
    torch.testing.assert_close(loss_gpu.cpu(), loss, rtol=1e-6, atol=0)
    for ours, theirs in zip(grads_gpu, grads, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-6, atol=1e-8)
    image = torch.rand((2, 3, 33, 33)) * 2 - 1
    prepared = ops.prepare_image(image.cuda(), 20, MEAN, STD).cpu()
    torch.testing.assert_close(prepared, ops.prepare_image(image, 20, MEAN, STD), rtol=1e-5, atol=1e-5)
