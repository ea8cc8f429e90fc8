"""Every bad argument of an operation is a Python exception with a sentence, by every way in."""

import re

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import backend, ops, registration
from tests.support.numerics.kernel_cases import MEAN, OPS, STD, Layers, Norm, draw, image, needs_kernels

pytestmark = needs_kernels
NAN, INF = float("nan"), float("inf")


def good(name) -> dict:
    """Arguments that the operation accepts."""
    if name == "feature_loss_grad":
        features, targets, weights = Layers(batch=3, target_batch=3).draw()
        return {"features": features, "targets": targets, "weights": weights, "grad_scale": 1.0}
    if name == "guided_step":
        return {"terms": [draw((2, 3)) for _ in range(3)], "coefficients": [1.0, 2.0, 3.0]}
    if name == "guided_step_table":
        return {"terms": [draw((2, 3)) for _ in range(3)], "table": torch.ones(2, 3, dtype=torch.float64)}
    if name.startswith("prepare_image"):
        forward = {"image": image(5, 7), "size": 4, "mean": MEAN, "std": STD}
        return {"grad": draw((2, 3, 4, 4)), **forward} if name.endswith("backward") else forward
    x, weight, bias = Norm().draw()
    forward = {"x": x, "weight": weight, "bias": bias, "groups": 2}
    if name == "group_norm_silu":
        return {**forward, "eps": 1e-5}
    _, mean, rstd = OPS.group_norm_silu(x, weight, bias, 2)
    return {"grad": draw(x.shape), **forward, "mean": mean, "rstd": rstd}


def item(name, index, change):
    """Replace one tensor of a list argument."""
    return lambda args: {name: [change(t) if i == index else t for i, t in enumerate(args[name])]}


def value(name, change):
    """Replace an argument, by a value or by a function of it."""
    return lambda args: {name: change(args[name]) if callable(change) else change}


def meta(tensor):
    return tensor.to("meta")


def integer(tensor):
    return tensor.long()


def complex_(tensor):
    return tensor.to(torch.complex64)


LOSS = "feature_loss_grad"
STEP = "guided_step"
TABLE = "guided_step_table"
IMAGE = "prepare_image"
IMAGE_BACK = "prepare_image_backward"
NORM = "group_norm_silu"
NORM_BACK = "group_norm_silu_backward"

CASES = [  # operation, what is wrong, start of the sentence
    (LOSS, lambda a: {"features": [], "targets": []}, "features must"),
    (LOSS, lambda a: {"features": a["features"][:1] * 25, "targets": a["targets"][:1] * 25,
                      "weights": torch.ones(1, 25)}, "features must"),
    (LOSS, value("targets", lambda t: t[:-1]), "targets must"),
    (LOSS, value("targets", lambda t: [*t, t[0]]), "targets must"),
    (LOSS, value("targets", []), "targets must"),
    (LOSS, item("features", 1, integer), "features[1] must"),
    (LOSS, item("features", 0, complex_), "features[0] must"),
    (LOSS, item("features", 1, torch.Tensor.half), "features[1] must"),
    (LOSS, item("features", 1, lambda t: t[:2]), "features[1] must"),
    (LOSS, item("features", 0, lambda t: t[0, 0]), "features[0] must"),
    (LOSS, item("features", 1, lambda t: torch.tensor(1.0)), "features[1] must"),
    (LOSS, item("features", 2, lambda t: t[:, :0]), "features[2] must"),
    (LOSS, lambda a: {k: [t[:0] for t in a[k]] for k in ("features", "targets")}, "features[0] must"),
    (LOSS, item("targets", 1, lambda t: t[:2]), "targets[1] must"),
    (LOSS, item("targets", 0, lambda t: t[:, :-1]), "targets[0] must"),
    (LOSS, item("targets", 0, lambda t: t[..., None]), "targets[0] must"),
    (LOSS, item("targets", 0, lambda t: torch.tensor(1.0)), "targets[0] must"),
    (LOSS, item("targets", 2, lambda t: t[:0]), "targets[2] must"),
    (LOSS, item("targets", 2, integer), "targets[2] must"),
    (LOSS, item("targets", 2, meta), "targets[2] must"),
    (LOSS, item("features", 1, meta), "features[1] must"),
    (LOSS, value("weights", meta), "weights must"),
    (LOSS, value("weights", lambda w: w.flatten()), "weights must"),
    (LOSS, value("weights", lambda w: w[:, :-1]), "weights must"),
    (LOSS, value("weights", lambda w: w[:1].expand(2, -1)), "weights must"),
    (LOSS, value("weights", lambda w: w[:0]), "weights must"),
    (LOSS, value("weights", integer), "weights must"),
    *((LOSS, value("grad_scale", s), "grad_scale must") for s in (3.0, 0.0, -2.0, NAN, INF, -INF)),
    (STEP, lambda a: {"terms": [], "coefficients": []}, "terms must"),
    (STEP, lambda a: {"terms": a["terms"][:1] * 7, "coefficients": [1.0] * 7}, "terms must"),
    (STEP, value("coefficients", [1.0, 2.0]), "coefficients must"),
    (STEP, value("coefficients", [1.0] * 4), "coefficients must"),
    (STEP, value("coefficients", []), "coefficients must"),
    *((STEP, value("coefficients", [1.0, bad, 0.0]), "coefficients[1] must") for bad in (NAN, INF, -INF)),
    (STEP, item("terms", 1, lambda t: t[:1]), "terms[1] must"),
    (STEP, item("terms", 2, lambda t: t.T), "terms[2] must"),
    (STEP, item("terms", 2, torch.Tensor.flatten), "terms[2] must"),
    (STEP, item("terms", 0, integer), "terms[0] must"),
    (STEP, item("terms", 1, complex_), "terms[1] must"),
    (STEP, item("terms", 1, torch.Tensor.double), "terms[1] must"),
    (STEP, item("terms", 0, torch.Tensor.double), "terms[1] must"),
    (STEP, item("terms", 1, meta), "terms[1] must"),
    (TABLE, lambda a: {"terms": []}, "terms must"),
    (TABLE, lambda a: {"terms": [t[0, 0] for t in a["terms"]]}, "terms[0] must"),
    (TABLE, item("terms", 1, integer), "terms[1] must"),
    (TABLE, value("table", torch.Tensor.float), "table must"),
    (TABLE, value("table", lambda t: t[0]), "table must"),
    (TABLE, value("table", lambda t: t[:0]), "table must"),
    (TABLE, value("table", lambda t: t[:, :2]), "table must"),
    (TABLE, value("table", lambda t: torch.cat([t, t])), "table must"),
    (TABLE, value("table", meta), "table must"),
    (TABLE, value("table", lambda t: t * NAN), "table must"),
    *((op, change, sentence) for op in (IMAGE, IMAGE_BACK) for change, sentence in [
        (value("image", lambda t: t[0]), "image must"),
        (value("image", lambda t: t[:, :2]), "image must"),
        (value("image", lambda t: t[:, :, :0]), "image must"),
        (value("image", lambda t: t[:, :, :, :0]), "image must"),
        (value("image", lambda t: (t * 9).to(torch.uint8)), "image must"),
        (value("image", complex_), "image must"),
        (value("size", 0), "size must"),
        (value("size", -3), "size must"),
        (value("mean", MEAN[:2]), "mean must"),
        (value("mean", (0.0, NAN, 0.0)), "mean must"),
        (value("std", (*STD, 1.0)), "std must"),
        (value("std", []), "std must"),
        *((value("std", (1.0, bad, 1.0)), "std must") for bad in (0.0, -1.0, NAN, INF)),
    ]),
    (IMAGE_BACK, value("grad", lambda g: g[:1]), "grad must"),
    (IMAGE_BACK, value("grad", lambda g: g[0]), "grad must"),
    (IMAGE_BACK, value("grad", lambda g: g[..., :-1]), "grad must"),
    (IMAGE_BACK, value("grad", integer), "grad must"),
    (IMAGE_BACK, value("grad", meta), "grad must"),
    *((op, change, sentence) for op in (NORM, NORM_BACK) for change, sentence in [
        (value("x", lambda t: t[0, 0, 0]), "x must"),
        (value("x", lambda t: t[..., None, None]), "x must"),
        (value("x", lambda t: t[..., :0]), "x must"),
        (value("x", integer), "x must"),
        (value("x", complex_), "x must"),
        (value("groups", 0), "groups must"),
        (value("groups", -2), "groups must"),
        (value("groups", 4), "groups must"),
        (value("groups", 12), "groups must"),
        (value("groups", 2**62), "groups must"),
        (value("x", lambda t: t[:, :0]), "groups must"),
        (value("weight", lambda w: w[:-1]), "weight must"),
        (value("weight", lambda w: w[None]), "weight must"),
        (value("weight", integer), "weight must"),
        (value("weight", meta), "weight must"),
        (value("bias", lambda b: b[:1]), "bias must"),
        (value("bias", meta), "bias must"),
    ]),
    *((NORM, value("eps", bad), "eps must") for bad in (NAN, INF, -1e-5)),
    (NORM_BACK, value("grad", lambda g: g[:1]), "grad must"),
    (NORM_BACK, value("grad", integer), "grad must"),
    (NORM_BACK, value("grad", meta), "grad must"),
    (NORM_BACK, value("mean", lambda m: m[:, :1]), "mean must"),
    (NORM_BACK, value("mean", torch.Tensor.double), "mean must"),
    (NORM_BACK, value("rstd", lambda r: r[:1]), "rstd must"),
    (NORM_BACK, value("rstd", torch.Tensor.half), "rstd must"),
    (NORM_BACK, value("rstd", meta), "rstd must"),
]  # fmt: skip
IDS = [f"{op}-{i}-{sentence}" for i, (op, _, sentence) in enumerate(CASES)]


# What speaks before the operation's own checks: the dispatcher, which without a tensor cannot know whom to ask, and
# the shape functions, which answer for it where one of the tensors is meta.
OTHERS = "no tensor arguments|All tensors must be on cpu like the first, got meta"


def direct(name):
    return OPS.guided_step.table if name == TABLE else getattr(OPS, name)


@pytest.mark.parametrize("name", [LOSS, STEP, TABLE, IMAGE, IMAGE_BACK, NORM, NORM_BACK])
def test_the_good_arguments_are_good(name):
    direct(name)(**good(name))
    if hasattr(ops, name):
        getattr(ops, name)(**good(name))
        with backend.reference_only():
            getattr(ops, name)(**good(name))


@pytest.mark.parametrize(("name", "change", "sentence"), CASES, ids=IDS)
def test_a_bad_argument_is_named(name, change, sentence):
    arguments = good(name)
    arguments.update(change(arguments))
    match = rf"(?s){re.escape(sentence)} .+\."
    with pytest.raises((RuntimeError, ops.OpsError), match=f"{match}|{OTHERS}"):
        direct(name)(**arguments)
    if not hasattr(ops, name):  # a backward, which has no function of its own
        return
    with pytest.raises(ops.OpsError, match=f"{match}|{OTHERS}"):
        getattr(ops, name)(**arguments)
    with backend.reference_only(), pytest.raises(ops.OpsError, match=match):
        getattr(ops, name)(**arguments)


@pytest.mark.parametrize("size", [2**20, 2**31, 2**40, 2**62])
def test_an_image_beyond_all_memory_is_refused(size):
    if size == 2**20 and backend.extension().build_info()["sanitize"]:
        pytest.skip("AddressSanitizer ends the process instead")
    with pytest.raises(RuntimeError):
        OPS.prepare_image(image(5, 7), size, MEAN, STD)


@pytest.mark.parametrize("convert", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_mkldnn,
                                     lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)],
                         ids=["sparse", "csr", "mkldnn", "quantised"])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_other_kinds_of_tensors_are_refused(convert):
    matrix = draw((4, 6))
    odd = convert(matrix)
    calls = [
        lambda: OPS.guided_step([odd], [1.0]),
        lambda: OPS.guided_step([matrix, odd], [1.0, 1.0]),
        lambda: OPS.feature_loss_grad([odd], [matrix], torch.ones(1, 1), 1.0),
        lambda: OPS.feature_loss_grad([matrix], [odd], torch.ones(1, 1), 1.0),
        lambda: OPS.group_norm_silu(odd, torch.ones(6), torch.ones(6), 2),
    ]
    for call in calls:
        with pytest.raises(RuntimeError):
            call()


# ---- gradients that do not exist ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (LOSS, item("targets", 1, lambda t: t.requires_grad_()), "targets must be constant"),
        (LOSS, value("weights", lambda w: w.requires_grad_()), "weights must be constant"),
        (TABLE, value("table", lambda t: t.requires_grad_()), "table must be constant"),
        (NORM, value("weight", lambda w: w.requires_grad_()), "weight must be constant"),
        (NORM, value("bias", lambda b: b.requires_grad_()), "bias must be constant"),
    ],
)
@pytest.mark.parametrize("input_too", [False, True])
def test_a_constant_that_wants_a_gradient_is_an_error_not_a_zero(name, change, sentence, input_too):
    arguments = good(name)
    arguments.update(change(arguments))
    if input_too:
        first = next(iter(arguments.values()))
        (first[0] if isinstance(first, list) else first).requires_grad_()
    with pytest.raises(ops.OpsError, match=sentence):
        getattr(ops, name)(**arguments)
    with pytest.raises((RuntimeError, ops.OpsError), match=sentence):
        result = direct(name)(**arguments)
        (result if isinstance(result, torch.Tensor) else result[0]).sum().backward()


@pytest.mark.parametrize("name", [LOSS, IMAGE, NORM])
def test_a_second_derivative_is_an_error(name):
    arguments = good(name)
    first = next(iter(arguments.values()))
    leaf = (first[0] if isinstance(first, list) else first).requires_grad_()
    with pytest.raises(RuntimeError, match="must be differentiated once"):
        result = direct(name)(**arguments)
        out = result if isinstance(result, torch.Tensor) else result[0]
        (grad,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
        grad.square().sum().backward()


def test_results_without_a_derivative_say_so():
    arguments = good(NORM)
    arguments["x"].requires_grad_()
    out, mean, rstd = OPS.group_norm_silu(**arguments)
    assert [t.requires_grad for t in (out, mean, rstd)] == [True, False, False]
    arguments = good(LOSS)
    arguments["features"][0].requires_grad_()
    loss, grads = OPS.feature_loss_grad(**arguments)
    assert loss.requires_grad
    assert not any(grad.requires_grad for grad in grads)


# ---- no images at all -----------------------------------------------------------------------------


def test_no_images_give_no_images():
    pixels = torch.zeros(0, 3, 5, 7)
    assert OPS.prepare_image(pixels, 4, MEAN, STD).shape == (0, 3, 4, 4)
    assert OPS.prepare_image_backward(torch.zeros(0, 3, 4, 4), pixels, 4, MEAN, STD).shape == (0, 3, 5, 7)
    x, vector = torch.zeros(0, 6, 5, 7), torch.ones(6)
    out, mean, rstd = OPS.group_norm_silu(x, vector, vector, 2)
    assert (out.shape, mean.shape, rstd.shape) == (x.shape, (0, 2), (0, 2))
    assert OPS.group_norm_silu_backward(x, x, mean, rstd, vector, vector, 2).shape == x.shape


# ---- an extension of other sources --------------------------------------------------------------


def test_operations_of_other_sources_are_named(monkeypatch):
    """An extension that was compiled before the operations changed would fail in the middle of a run."""
    assert registration.strange() == []
    monkeypatch.setitem(registration.FAKES, "guided_step.table", lambda terms, table, index: None)
    monkeypatch.setitem(registration.FAKES, "no_such_operation", lambda x: x)
    assert registration.strange() == ["guided_step.table", "no_such_operation"]
