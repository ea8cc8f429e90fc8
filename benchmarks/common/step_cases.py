"""feature_loss_grad and guided_step at the sizes of CLIP ViT-B/32 and Stable Diffusion 1.4, and their rivals."""

from functools import partial

import torch
from torch.nn import functional as F

from common.case import Call, Case, describe, size_of
from napari_neuraldiffuser.core.networks.kernels import ops

LAYERS, TOKENS, WIDTH = 6, 50, 768  # CLIP ViT-B/32
LATENTS = (4, 64, 64)
STEP = (0.3, 0.35, 7.5, 300.0)  # abar, abar of the next step, classifier-free and guidance scales


# ---- feature_loss_grad ------------------------------------------------------------------------------------------


def feature_loss_autograd(leaves, targets, weights):
    """Layer by layer, then autograd."""
    layers = zip(leaves, targets, weights[0], strict=True)
    losses = sum(w * F.mse_loss(f, g.expand_as(f), reduction="none").mean((1, 2)) for f, g, w in layers)
    return losses.detach(), *torch.autograd.grad(losses.sum(), leaves)


def feature_loss_closed(features, targets, weights):
    """Loss and gradient from the difference, in float32."""
    loss, grads = 0, []
    for f, g, w in zip(features, targets, weights[0], strict=True):
        difference = f.float() - g.float()
        loss = loss + w * difference.square().mean((1, 2))
        grads.append((difference * (2 * w / f[0].numel())).to(f.dtype))
    return loss, *grads


def weighted_squares(difference, factor):
    """factor * mean(difference^2) of every image, in one pass."""
    flat = difference.flatten(1)
    return torch.linalg.vector_norm(flat, dim=1).square_().mul_(factor / flat.shape[1])


def feature_loss_out(features, targets, weights) -> Call:
    """Layer by layer in the features' dtype, into given buffers."""
    buffers, factors = [torch.empty_like(f) for f in features], weights[0].tolist()

    def call():
        loss = 0
        for f, g, difference, w in zip(features, targets, buffers, factors, strict=True):
            torch.sub(f, g, out=difference)
            loss = loss + weighted_squares(difference, w)
            difference.mul_(2 * w / f[0].numel())
        return loss, *buffers

    return call


def feature_loss_foreach(features, targets, weights) -> Call:
    """All layers in one call a step, into new tensors."""
    factors = weights[0].tolist()
    scales = [2 * w / f[0].numel() for f, w in zip(features, factors, strict=True)]

    def call():
        differences = torch._foreach_sub(features, targets)
        loss = sum(map(weighted_squares, differences, factors))
        torch._foreach_mul_(differences, scales)
        return loss, *differences

    return call


def feature_loss_grad(batch: int, dtype: torch.dtype, device: str) -> Case:
    features = [torch.randn(batch, TOKENS, WIDTH, device=device).to(dtype) for _ in range(LAYERS)]
    targets = [torch.randn(1, TOKENS, WIDTH, device=device).to(dtype) for _ in range(LAYERS)]
    weights = torch.rand(1, LAYERS, device=device) + 0.5
    leaves = [f.detach().requires_grad_() for f in features]

    def ours():
        loss, grads = ops.feature_loss_grad(features, targets, weights)
        return loss, *grads

    def exact():
        last = [f[-1:].double().requires_grad_() for f in features]
        return feature_loss_autograd(last, [g.double() for g in targets], weights.double())

    return Case(
        "feature_loss_grad",
        describe(batch, dtype),
        batch,
        moved=2 * size_of(*features) + size_of(*targets),
        ours=ours,
        eager=partial(feature_loss_autograd, leaves, targets, weights),
        best={
            "closed form, out=": partial(feature_loss_out, features, targets, weights),
            "closed form, foreach": partial(feature_loss_foreach, features, targets, weights),
        },
        compiled={"closed form": lambda wrap: partial(wrap(feature_loss_closed), features, targets, weights)},
        exact=exact,
    )


# ---- guided_step ------------------------------------------------------------------------------------------------


def guided_step_formula(z, uncond, cond, gradient):
    """Classifier-free guidance, feature guidance, x0 and the DDIM update, one after the other."""
    abar, before, scale, kappa = STEP
    noise = uncond + scale * (cond - uncond) + (1 - abar) ** 0.5 * kappa * gradient
    x0 = (z - (1 - abar) ** 0.5 * noise) / abar**0.5
    return (before**0.5 * x0 + (1 - before) ** 0.5 * noise,)


def guided_step_sum(factors, z, uncond, cond, gradient):
    a, b, c, d = factors
    return (a * z + b * uncond + c * cond + d * gradient,)


def guided_step_out(factors, z, *terms) -> Call:
    """Folded coefficients, accumulated in a given buffer."""
    buffer = torch.empty_like(z)

    def call():
        torch.mul(z, factors[0], out=buffer)
        for factor, term in zip(factors[1:], terms, strict=True):
            buffer.add_(term, alpha=factor)
        return (buffer,)

    return call


def guided_step_new(factors, z, *terms):
    out = z * factors[0]
    for factor, term in zip(factors[1:], terms, strict=True):
        out.add_(term, alpha=factor)
    return (out,)


def guided_step(batch: int, dtype: torch.dtype, device: str) -> Case:
    z, uncond, cond, gradient = torch.randn(4, batch, *LATENTS, device=device).unbind(0)
    z, gradient = z.clone(), 0.01 * gradient
    uncond, cond = uncond.to(dtype, copy=True), cond.to(dtype, copy=True)
    terms = (z, uncond, cond, gradient)
    abar, before, scale, kappa = STEP
    of_z, of_noise = ops.step_coefficients(abar, before)
    factors = of_z, of_noise * (1 - scale), of_noise * scale, of_noise * (1 - abar) ** 0.5 * kappa
    return Case(
        "guided_step",
        describe(batch, dtype, "" if dtype == torch.float32 else " predictions"),
        batch,
        moved=size_of(*terms, z),
        ours=lambda: (ops.guided_step(terms, factors),),
        eager=partial(guided_step_formula, *terms),
        best={
            "folded, out=": partial(guided_step_out, factors, *terms),
            "folded, new tensor": lambda: partial(guided_step_new, factors, *terms),
        },
        compiled={"folded": lambda wrap: partial(wrap(guided_step_sum), factors, *terms)},
        exact=lambda: guided_step_formula(*(term[-1:].double() for term in terms)),
    )
