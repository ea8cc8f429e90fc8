"""The operations under autograd and torch.compile, with and without kernels."""

import pytest
import torch

from napari_neuraldiffuser.core.networks.kernels import ops
from tests.core.networks.kernels.test_ops import MEAN, STD, layers

pytestmark = pytest.mark.usefixtures("implementation")


def second_derivative(compute, x):
    (first,) = torch.autograd.grad(compute(x.requires_grad_()).square().sum(), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x)


def test_kernels_give_no_derivative_that_they_do_not_have(implementation):
    if implementation == "reference":
        pytest.skip("plain PyTorch has them all")
    raw, ones = torch.ops.neuraldiffuser, torch.ones(4)
    features, targets, weights = layers(2, 1)
    image, once = torch.rand(2, 3, 9, 9) - 0.5, "must be differentiated once"
    with pytest.raises(RuntimeError, match=once):
        second_derivative(lambda f: ops.feature_loss_grad([f, *features[1:]], targets, weights)[0], features[0])
    with pytest.raises(RuntimeError, match=once):
        second_derivative(lambda x: ops.prepare_image(x, 5, MEAN, STD), image)
    with pytest.raises(RuntimeError, match=once):
        second_derivative(lambda x: ops.group_norm_silu(x, 2, ones, ones), torch.randn(2, 4, 3, 3))
    features, targets, weights = layers(2, 1)
    with pytest.raises(RuntimeError, match="weights must be constant"):
        raw.feature_loss_grad(features, targets, weights.requires_grad_())[0].sum().backward()
    with pytest.raises(RuntimeError, match="weight must be constant"):
        raw.group_norm_silu(torch.randn(2, 4, 3, 3), ones.clone().requires_grad_(), ones, 2)[0].sum().backward()


@pytest.mark.slow
def test_operations_compile_into_one_graph(implementation):
    features, targets, weights = layers(2, 1, torch.float32)
    image, table = torch.rand(2, 3, 9, 9), torch.rand(1, 3).double()

    def everything(x, y):
        steps = ops.guided_step([x, y, y], [1.0, 2.0, 0.5]), ops.guided_step_table([x, y, y], table)
        loss, grads = ops.feature_loss_grad([x.flatten(2) * 2, y], [x.flatten(2)[:1], y], weights[:, :2])
        normed = ops.group_norm_silu(y, 2, torch.ones(4), torch.zeros(4))
        return *steps, loss, *grads, normed, ops.prepare_image(image, 5, MEAN, STD)

    x, y = torch.randn(2, 2, 4, 3, 5)
    torch._dynamo.reset()
    got, expected = torch.compile(everything, fullgraph=True)(x, y), everything(x, y)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
