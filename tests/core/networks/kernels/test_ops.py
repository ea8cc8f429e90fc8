"""The operations of one guided step against float64 autograd and the published formulas, with and without kernels."""

import math

import pytest
import torch
from torch.nn import functional as F

from napari_neuraldiffuser.core.networks.kernels import ops
from tests.support.small_models import sd14_scheduler

SHAPES = [(5, 7), (1, 3), (2, 3, 5)]  # per-image shapes of three layers, odd on purpose
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
pytestmark = pytest.mark.usefixtures("implementation")


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
    assert torch.autograd.gradcheck(lambda *f: ops.feature_loss_grad(f, targets, weights)[0], features)


def test_gradients_are_constants():
    features, targets, weights = layers(2, 1)
    features[0].requires_grad_()
    loss, grads = ops.feature_loss_grad(features, targets, weights)
    assert loss.requires_grad
    assert not any(grad.requires_grad for grad in grads)
    loss.sum().backward()
    torch.testing.assert_close(features[0].grad, grads[0], rtol=1e-14, atol=0)


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
    loss, grads = ops.feature_loss_grad(leaves, targets, weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    loss.sum().backward()
    assert all(leaf.grad.dtype == grad.dtype == dtype for leaf, grad in zip(leaves, grads, strict=True))


@pytest.mark.parametrize("n", [38_400, 32_768, 1])
def test_gradient_scale_is_a_power_of_two_that_float16_needs(n):
    assert ops.gradient_scale(torch.float16, n) == 2.0 ** math.floor(math.log2(n))
    assert ops.gradient_scale(torch.bfloat16, n) == ops.gradient_scale(torch.float32, n) == 1.0


def test_scaled_gradients_of_a_large_layer_survive_float16():
    feature = torch.randn(1, 50, 768).half()
    target, weights = feature + 2.0**-9 * torch.randn(feature.shape).half(), torch.full((1, 1), 0.01)
    scale = ops.gradient_scale(torch.float16, feature.numel())
    exact_loss, [exact] = ops.feature_loss_grad([feature.double()], [target.double()], weights.double())
    (loss, [lost]), (same, [kept]) = (ops.feature_loss_grad([feature], [target], weights, s) for s in (1.0, scale))
    assert not lost.any()
    torch.testing.assert_close(kept.double() / scale, exact, rtol=2**-10, atol=2**-24 / scale)
    torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-5, atol=0)
    assert torch.equal(loss, same)


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
        (lambda f, t, w: ([f[0].long(), *f[1:]], t, w), r"features\[0\] must be float32, bfloat16, .* got \w*"),
        (lambda f, t, w: ([f[0].float(), *f[1:]], t, w), r"features\[1\] must have the dtype of features\[0\]"),
        (lambda f, t, w: (f, [t[0].requires_grad_(), *t[1:]], w), "targets must be constant"),
        (lambda f, t, w: (f, t, w.requires_grad_()), "weights must be constant"),
        (lambda f, t, w: (f, [t[0].to("meta"), *t[1:]], w), "must be on cpu"),
        (lambda f, t, w: (f, t, w, 3.0), "grad_scale must be a power of two above 0, got 3"),
        (lambda f, t, w: (f, t, w, float("nan")), "grad_scale must be a power of two"),
        (lambda f, t, w: (f * 9, t * 9, w.repeat(1, 9)), "features must be at most 24 layers, got 27"),
        (lambda f, t, w: ([torch.tensor(1.0)], t[:1], w), r"features\[0\] must be \(batch"),
    ],
)
def test_feature_loss_names_what_does_not_fit(change, message):
    with pytest.raises(ops.OpsError, match=message):
        ops.feature_loss_grad(*change(*layers(3, 3)))


def published_step(z, noise, abar, abar_prev):
    x0 = (z - math.sqrt(1 - abar) * noise) / math.sqrt(abar)
    return math.sqrt(abar_prev) * x0 + math.sqrt(1 - abar_prev) * noise


@pytest.mark.parametrize(("abar", "abar_prev"), [(0.05, 0.09), (0.6, 0.7), (0.99, 1.0)])
def test_steps_match_the_published_form(abar, abar_prev):
    terms = torch.randn((4, 3, 4, 5, 7), dtype=torch.float64)
    z, uncond, cond, gradient = terms
    noise = uncond + 7.5 * (cond - uncond)
    expected = published_step(z, noise, abar, abar_prev)
    of_z, of_noise = ops.step_coefficients(abar, abar_prev)
    got = ops.guided_step([z, noise], [of_z, of_noise])
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)
    unguided = ops.guided_step([z, uncond, cond], [of_z, -6.5 * of_noise, 7.5 * of_noise])
    torch.testing.assert_close(unguided, expected, rtol=1e-11, atol=1e-12)
    pull = math.sqrt(1 - abar) * 300.0
    guided = ops.guided_step(list(terms), [of_z, -6.5 * of_noise, 7.5 * of_noise, pull * of_noise])
    noise = noise + pull * gradient
    torch.testing.assert_close(guided, published_step(z, noise, abar, abar_prev), rtol=1e-10, atol=1e-10)


def test_a_step_equals_diffusers():
    scheduler = sd14_scheduler()
    scheduler.set_timesteps(50)
    z, noise = torch.randn((2, 2, 4, 3, 3), dtype=torch.float64)
    abar = scheduler.alphas_cumprod.double()
    for t in (721, 1):
        before = abar[t - 20] if t >= 20 else scheduler.final_alpha_cumprod.double()
        expected = scheduler.step(noise, t, z).prev_sample
        got = ops.guided_step([z, noise], ops.step_coefficients(abar[t], before))
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_bfloat16_predictions_keep_float32_latents():
    z, uncond, cond = torch.randn((3, 2, 4, 3, 3))
    coefficients = [1.2, 0.4, -0.5]
    mixed = ops.guided_step([z, uncond.bfloat16(), cond.bfloat16()], coefficients)
    rounded = [noise.bfloat16().double() for noise in (uncond, cond)]
    exact = ops.guided_step([z.double(), *rounded], coefficients)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-5, atol=1e-6)


def test_a_table_gives_every_image_its_step():
    terms = list(torch.randn(3, 2, 4, 3, 3))
    table = torch.randn((2, 3), dtype=torch.float64)
    got = ops.guided_step_table(terms, table)
    for b in range(2):
        alone = ops.guided_step([t[b : b + 1] for t in terms], table[b].tolist())
        torch.testing.assert_close(got[b : b + 1], alone, rtol=1e-6, atol=1e-6)
    shared = ops.guided_step_table(terms, table[:1])
    torch.testing.assert_close(shared[:1], got[:1], rtol=0, atol=0)


def test_steps_are_differentiable_in_every_term():
    terms = [torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    table = torch.randn((2, 3), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: ops.guided_step(t, [1.5, -2.0, 0.0]), terms)
    assert torch.autograd.gradcheck(lambda *t: ops.guided_step_table(t, table), terms)
    mixed = [torch.randn(2, 3, 2).to(dtype).requires_grad_() for dtype in (torch.float32, torch.bfloat16)]
    ops.guided_step(mixed, [0.5, 3.0]).sum().backward()
    assert [t.grad.dtype for t in mixed] == [torch.float32, torch.bfloat16]
    assert mixed[1].grad.eq(3).all()


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, float("nan")])
def test_schedule_outside_its_range_is_an_error(bad):
    with pytest.raises(ops.OpsError, match=r"abar must be in \(0, 1\]"):
        ops.step_coefficients(bad, 0.5)
    with pytest.raises(ops.OpsError, match=r"abar_prev must be in \(0, 1\]"):
        ops.step_coefficients(0.5, bad)


Z, TABLE = torch.zeros(2, 4, 2, 2), torch.zeros(1, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.guided_step([], []), "terms must be 1 to 6 tensors, got 0"),
        (lambda: ops.guided_step([Z] * 7, [1.0] * 7), "terms must be 1 to 6 tensors, got 7"),
        (lambda: ops.guided_step([Z, Z], [1.0]), r"coefficients must be one per term \(2\), got 1"),
        (lambda: ops.guided_step([Z, Z[:1]], [1.0, 1.0]), r"terms\[1\] must be shaped \(2, 4, 2, 2\)"),
        (lambda: ops.guided_step([Z, Z.double()], [1.0, 1.0]), r"terms\[1\] must be float64 if and only if"),
        (lambda: ops.guided_step([Z, Z.int()], [1.0, 1.0]), r"terms\[1\] must be float32, bfloat16"),
        (lambda: ops.guided_step([Z, Z.to("meta")], [1.0, 1.0]), "must be on cpu"),
        (lambda: ops.guided_step([Z], [math.inf]), r"coefficients\[0\] must be a finite number, got inf"),
        (lambda: ops.guided_step_table([Z], TABLE), r"table must be shaped \(2 or 1, 1\)"),
        (lambda: ops.guided_step_table([Z, Z], TABLE.float()), "table must be float64"),
        (lambda: ops.guided_step_table([Z, Z], TABLE * math.nan), "table must hold finite numbers"),
        (lambda: ops.guided_step_table([Z, Z], TABLE.clone().requires_grad_()), "must be constant"),
        (lambda: ops.guided_step_table([Z[0, 0, 0, 0]] * 2, TABLE), "got a single number"),
    ],
)
def test_steps_name_what_does_not_fit(call, message):
    with pytest.raises(ops.OpsError, match=message):
        call()


def test_backend_info_is_honest(implementation):
    info = ops.backend_info()
    assert (info["backend"] == "reference") == (implementation == "reference")
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
