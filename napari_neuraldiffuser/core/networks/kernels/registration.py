"""What PyTorch has to know of the compiled operations beyond their kernels: shapes for tracing, and derivatives.

`register` is called once, when the extension is loaded.  The derivatives are those that guidance needs: through the
loss of `feature_loss_grad` to the features, through `guided_step` to every term, through `prepare_image` and
`group_norm_silu` to the picture.  Everything else is a constant, and asking for its gradient is an error.
"""

from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from napari_neuraldiffuser.core.networks.kernels.reference import OpsError, accumulation_dtype, table_columns

NAMESPACE = "neuraldiffuser"


def strange() -> list[str]:
    """Operations of the loaded extension that have other arguments than here: it was compiled from other sources."""
    return [name for name, fake in FAKES.items() if _arguments(name) != list(signature(fake).parameters)]


def _arguments(name: str) -> list[str]:
    """Names of the arguments of a loaded operation; none where there is no such operation."""
    operation, _, overload = name.partition(".")
    schemas = torch._C._jit_get_schemas_for_operator(f"{NAMESPACE}::{operation}")
    return [a.name for schema in schemas if schema.overload_name == overload for a in schema.arguments]


@cache
def register() -> None:
    """Register fake kernels and derivatives of every operation of the extension; more calls do nothing."""
    for name, fake in FAKES.items():
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake)
    for name, (setup, backward) in DERIVATIVES.items():
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup)
    for name in ("prepare_image_backward", "group_norm_silu_backward"):
        torch.library.register_autograd(f"{NAMESPACE}::{name}", _once)


def call(operation: torch._ops.OpOverload, differentiable: Sequence[Tensor], *args: Any) -> Any:
    """Call a compiled operation; what its checks find is an OpsError.

    The dispatcher's own autograd layer is written in Python and takes longer than the kernel of a small tensor.  The
    call goes past it where no tensor of `differentiable` needs a gradient, and through a plain autograd function where
    one does; torch.compile traces the operation itself.
    """
    try:
        if torch.compiler.is_compiling():
            return operation(*args)
        if torch.is_grad_enabled() and any([t.requires_grad for t in differentiable]):
            return DIRECT.get(operation._name, operation)(*args)
        return _below_autograd(operation, *args)
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # out of memory, a failing device
            raise
        raise OpsError(str(error)) from error


def _below_autograd(operation: Callable[..., Any], *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operation(*args)


# ---- fake kernels: shape, dtype and strides of the outputs ---------------------------------------

Tensors = Sequence[Tensor]
Args = tuple[Any, ...]
"""Arguments of an operation, or their gradients: None for constants."""


def _beside(first: Tensor, *others: Tensor) -> None:
    """A meta tensor among others ends up in a fake kernel, which must not answer for the real one."""
    for other in others:
        if other.device != first.device:
            raise RuntimeError(f"All tensors must be on {first.device} like the first, got {other.device}. Move them.")


def _fake_feature_loss_grad(
    features: Tensors, targets: Tensors, weights: Tensor, grad_scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    _beside(*features, *targets, weights)
    loss = features[0].new_empty(features[0].shape[:1], dtype=accumulation_dtype(features[0].dtype))
    return loss, [torch.empty_like(f, memory_format=torch.contiguous_format) for f in features]


def _fake_guided_step(terms: Tensors, coefficients: Sequence[float]) -> Tensor:
    _beside(*terms)
    return _dense_like(terms[0])


def _fake_guided_step_table(terms: Tensors, table: Tensor) -> Tensor:
    _beside(*terms, table)
    return _dense_like(terms[0])


def _fake_prepare_image(image: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return image.new_empty((image.shape[0], 3, size, size))


def _fake_prepare_image_backward(
    grad: Tensor, image: Tensor, size: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    _beside(image, grad)
    return _dense_like(image)


def _fake_group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float = 1e-5, silu: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    _beside(x, weight, bias)
    mean, rstd = (x.new_empty((x.shape[0], groups), dtype=accumulation_dtype(x.dtype)) for _ in range(2))
    return _norm_out(x), mean, rstd


def _fake_group_norm_silu_backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool = True
) -> Tensor:
    _beside(x, grad, mean, rstd, weight, bias)
    return _norm_out(x)


def _norm_out(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)


def _dense_like(x: Tensor) -> Tensor:
    """Channels-last for a dense channels-last tensor, contiguous for every other."""
    last = False
    if x.ndim == 4 and not x.is_contiguous():
        _, channels, height, width = x.shape
        last = x.stride() == (channels * height * width, 1, channels * width, channels)
    return torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)


FAKES: dict[str, Callable[..., Any]] = {
    "feature_loss_grad": _fake_feature_loss_grad,
    "guided_step": _fake_guided_step,
    "guided_step.table": _fake_guided_step_table,
    "prepare_image": _fake_prepare_image,
    "prepare_image_backward": _fake_prepare_image_backward,
    "group_norm_silu": _fake_group_norm_silu,
    "group_norm_silu_backward": _fake_group_norm_silu_backward,
}


def _once(ctx: Any, *upstream: Any) -> None:
    raise RuntimeError("The operation must be differentiated once, got a second derivative. Use create_graph=False.")


def _no_constants(needed: Sequence[bool | Sequence[bool]], *names: str) -> None:
    """A gradient that does not exist must not be taken for zero."""
    for name, wanted in zip(names, needed, strict=True):
        if any(wanted) if isinstance(wanted, (list, tuple)) else wanted:
            raise RuntimeError(f"{name} must be constant, got a tensor that requires a gradient. Detach it.")


def _feature_loss_setup(ctx: Any, inputs: Args, output: Any) -> None:
    _, grads = output
    ctx.mark_non_differentiable(*grads)
    ctx.save_for_backward(*grads)
    ctx.grad_scale = inputs[3]


def _feature_loss_backward(ctx: Any, upstream: Tensor, _: Any) -> Args:
    if torch.is_grad_enabled():
        _once(ctx)
    _no_constants(ctx.needs_input_grad[1:3], "targets", "weights")
    grads, upstream, scaled = ctx.saved_tensors, upstream / ctx.grad_scale, []
    for grad, wanted in zip(grads, ctx.needs_input_grad[0], strict=True):
        factor = upstream.view(-1, *[1] * (grad.ndim - 1))
        scaled.append((grad.to(upstream.dtype) * factor).to(grad.dtype) if wanted else None)
    # the dispatcher leaves arguments out that have their default value: None for those that were passed
    return scaled, [None] * len(grads), *[None] * (len(ctx.needs_input_grad) - 2)


def _guided_step_setup(ctx: Any, inputs: Args, output: Any) -> None:
    terms, ctx.coefficients = inputs
    ctx.dtypes = [term.dtype for term in terms]


def _guided_step_backward(ctx: Any, upstream: Tensor) -> Args:
    return _scaled(ctx, upstream, ctx.coefficients, ctx.needs_input_grad[0]), None


def _guided_step_table_setup(ctx: Any, inputs: Args, output: Any) -> None:
    terms, table = inputs
    ctx.save_for_backward(table)
    ctx.dtypes = [term.dtype for term in terms]


def _guided_step_table_backward(ctx: Any, upstream: Tensor) -> Args:
    _no_constants(ctx.needs_input_grad[1:2], "table")
    (table,) = ctx.saved_tensors
    columns = table_columns(table, upstream)
    return _scaled(ctx, upstream, columns, ctx.needs_input_grad[0]), None


def _scaled(ctx: Any, upstream: Tensor, coefficients: Sequence[Any], needed: Sequence[bool]) -> list[Tensor | None]:
    wide = upstream.to(accumulation_dtype(upstream.dtype))
    terms = zip(coefficients, ctx.dtypes, needed, strict=True)
    return [(wide * c).to(dtype) if wanted else None for c, dtype, wanted in terms]


def _constant(operation: Callable[..., Any], *args: Any) -> Tensor:
    """A first derivative; with create_graph it goes through autograd, which then refuses the second."""
    return operation(*args) if torch.is_grad_enabled() else _below_autograd(operation, *args)


def _prepare_image_setup(ctx: Any, inputs: Args, output: Any) -> None:
    image, *ctx.settings = inputs
    ctx.save_for_backward(image)


def _prepare_image_backward(ctx: Any, upstream: Tensor) -> Args:
    (image,) = ctx.saved_tensors
    grad = _constant(torch.ops.neuraldiffuser.prepare_image_backward.default, upstream, image, *ctx.settings)
    return grad, None, None, None


def _group_norm_setup(ctx: Any, inputs: Args, output: Any) -> None:
    x, weight, bias, ctx.groups, _, ctx.silu = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # no zeros for those two; None may arrive for the other
    ctx.save_for_backward(x, mean, rstd, weight, bias)


def _group_norm_backward(ctx: Any, upstream: Tensor | None, *_: Any) -> Args:
    _no_constants(ctx.needs_input_grad[1:3], "weight", "bias")
    if upstream is None:  # nobody asks for a gradient through the picture
        return None, None, None, None, None, None
    backward = torch.ops.neuraldiffuser.group_norm_silu_backward.default
    grad = _constant(backward, upstream, *ctx.saved_tensors, ctx.groups, ctx.silu)
    return grad, None, None, None, None, None


DERIVATIVES: dict[str, tuple[Callable[..., None], Callable[..., Args]]] = {
    "feature_loss_grad": (_feature_loss_setup, _feature_loss_backward),
    "guided_step": (_guided_step_setup, _guided_step_backward),
    "guided_step.table": (_guided_step_table_setup, _guided_step_table_backward),
    "prepare_image": (_prepare_image_setup, _prepare_image_backward),
    "group_norm_silu": (_group_norm_setup, _group_norm_backward),
}


def _direct(name: str) -> Callable[..., Any]:
    """`DERIVATIVES[name]` as an autograd function: a third of the overhead of the registered derivative."""
    setup, backward = DERIVATIVES[name]
    namespace = getattr(torch.ops, NAMESPACE)

    # with `ctx` in forward: the form with a setup_context of its own takes twice the time
    def forward(ctx: Any, *args: Any) -> Any:
        out = _below_autograd(getattr(namespace, name).default, *args)
        setup(ctx, args, out)
        return out

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    direct: Any = type(f"Direct_{name}", (torch.autograd.Function,), methods)
    return direct.apply


# those whose tensors are arguments of their own: an autograd function does not look into lists
DIRECT = {f"{NAMESPACE}::{name}": _direct(name) for name in ("prepare_image", "group_norm_silu")}
