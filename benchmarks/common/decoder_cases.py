"""prepare_image and group_norm_silu at the sizes of the Stable Diffusion 1.4 decoder, and their rivals."""

from functools import partial

import torch
from torch.nn import functional as F

from common.case import Call, Case, describe, forward_backward, size_of
from napari_neuraldiffuser.core.networks.kernels import ops

aten = torch.ops.aten

IMAGE, GUIDE = 512, 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP
GROUPS, EPS = 32, 1e-6
# hardtanh passes no gradient on its edges, torch.clamp does: the next float32 above 1
EDGE = 1.0 + 2.0**-23


# ---- prepare_image ----------------------------------------------------------------------------------------------


def resize(image, size: int = GUIDE):
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)


def statistics(device: str):
    """Mean and standard deviation of the channels, to be broadcast over an image."""
    return (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))


def prepare_image_formula(mean, std, image):
    """Clamp, resize and normalise as separate calls; on CPUs bfloat16 goes through float32, which the resize needs."""
    wide = image.to(torch.promote_types(image.dtype, torch.float32)) if image.device.type == "cpu" else image
    unit = (wide / 2 + 0.5).clamp(0, 1)
    return ((resize(unit) - mean) / std).to(image.dtype)


def prepare_image_closed(shift, gain, image, upstream) -> Call:
    """Gradient in closed form, what is affine folded into one operation on the small image."""
    buffer = torch.empty_like(image, dtype=torch.float32)

    def call():
        wide = image.float()
        small = resize(torch.clamp(wide, -1, 1, out=buffer))
        grad = aten._upsample_bilinear2d_aa_backward(upstream.float() * gain, [GUIDE, GUIDE], list(image.shape), False)
        grad = aten.hardtanh_backward(grad, wide, -EDGE, EDGE)
        return torch.addcmul(shift, small, gain).to(image.dtype), grad.to(image.dtype)

    return call


def filter_matrix(device: str):
    """The resize of one axis as a matrix (GUIDE, IMAGE): the columns are resized unit images."""
    unit = torch.eye(IMAGE, device=device).view(1, IMAGE, IMAGE, 1).expand(-1, -1, -1, 2).contiguous()
    columns = F.interpolate(unit, (GUIDE, 2), mode="bilinear", antialias=True, align_corners=False)
    return columns[0, :, :, 0].T.contiguous()


def prepare_image_matrix(matrix, shift, gain, image):
    """Two matrix products instead of the resize."""
    small = matrix @ (image.float().clamp(-1, 1) @ matrix.T)
    return (small * gain + shift).to(image.dtype)


def prepare_image(batch: int, dtype: torch.dtype, device: str, channels_last: bool = False) -> Case:
    image = torch.randn(batch, 3, IMAGE, IMAGE, device=device).mul_(0.7).to(dtype)
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    upstream = torch.randn(batch, 3, GUIDE, GUIDE, device=device).to(dtype)
    mean, std = statistics(device)
    affine = ((0.5 - mean) / std, 0.5 / std)
    formula = partial(prepare_image_formula, mean, std)
    matrix = (filter_matrix(device), *affine)

    def both(function, *constants):
        return forward_backward(partial(function, *constants), image, upstream)

    return Case(
        "prepare_image",
        describe(batch, dtype, " channels-last" if channels_last else ""),
        batch,
        moved=3 * size_of(image) + 2 * size_of(upstream),  # the image is read once in each direction
        ours=both(lambda x: ops.prepare_image(x, GUIDE, MEAN, STD)),
        eager=both(formula),
        best={
            "closed form": partial(prepare_image_closed, *affine, image, upstream),
            "matrix products": lambda: both(prepare_image_matrix, *matrix),
        },
        compiled={
            "formula": lambda wrap: both(wrap(prepare_image_formula), mean, std),
            "matrix products": lambda wrap: both(wrap(prepare_image_matrix), *matrix),
        },
        exact=lambda: forward_backward(formula, image[-1:].double(), upstream[-1:].double())(),
        note="" if dtype == torch.float32 or device == "cuda" else "through float32, as the resize has no bfloat16",
    )


# ---- group_norm_silu --------------------------------------------------------------------------------------------


def group_norm_silu_formula(x, weight, bias):
    return F.silu(F.group_norm(x, GROUPS, weight, bias, EPS))


def group_norm_silu_closed(x, upstream, weight, bias, memory_format) -> Call:
    """Both backward functions called directly, in the given memory format."""
    x, upstream = (t.contiguous(memory_format=memory_format) for t in (x, upstream))
    n, c, pixels = x.shape[0], x.shape[1], x.shape[2:].numel()
    out, slope = torch.empty_like(x), torch.empty_like(x)

    def call():
        norm, mean, rstd = aten.native_group_norm(x, weight, bias, n, c, pixels, GROUPS, EPS)
        aten.silu.out(norm, out=out)
        aten.silu_backward.grad_input(upstream, norm, grad_input=slope)
        grad = aten.native_group_norm_backward(slope, x, mean, rstd, weight, n, c, pixels, GROUPS, [True, False, False])
        return out, grad[0]

    return call


def group_norm_silu(batch: int, dtype: torch.dtype, device: str, shape: tuple[int, ...]) -> Case:
    def make():
        image = torch.randn(batch, *shape, device=device, dtype=dtype)
        return image.contiguous(memory_format=torch.channels_last)

    x, upstream = make() * 1.5 + 0.3, make()
    weight, bias = (torch.randn(shape[0], device=device).to(dtype) for _ in range(2))
    parameters = (weight, bias)
    closed = partial(group_norm_silu_closed, x, upstream, weight, bias)
    formats = {"contiguous": torch.contiguous_format}
    if device == "cpu":  # on CUDA the backward function takes contiguous tensors only
        formats["channels-last"] = torch.channels_last

    def exact():
        wide = [parameter.double() for parameter in parameters]
        return forward_backward(
            lambda last: group_norm_silu_formula(last, *wide), x[-1:].double(), upstream[-1:].double()
        )()

    return Case(
        "group_norm_silu",
        describe(batch, dtype, " " + "x".join(map(str, shape))),
        batch,
        moved=5 * size_of(x),  # x and out; x, upstream gradient and gradient
        ours=forward_backward(lambda t: ops.group_norm_silu(t, GROUPS, weight, bias, EPS), x, upstream),
        eager=forward_backward(lambda t: group_norm_silu_formula(t, *parameters), x, upstream),
        best={f"closed form, {name}": partial(closed, value) for name, value in formats.items()},
        compiled={
            "formula": lambda wrap: forward_backward(
                partial(wrap(group_norm_silu_formula), weight=weight, bias=bias), x, upstream
            )
        },
        exact=exact,
    )
