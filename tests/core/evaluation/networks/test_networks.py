"""The scoring networks against their published architectures, written with functions over the same weights."""

import pytest
import torch
import torch.nn.functional as F

from napari_neuraldiffuser.core.evaluation.networks.alexnet import AlexNet
from napari_neuraldiffuser.core.evaluation.networks.efficientnet import EfficientNetB1
from napari_neuraldiffuser.core.evaluation.networks.inception import InceptionV3
from napari_neuraldiffuser.core.evaluation.networks.resnet import ResNet50


def filled(build, gain=1.2, seed=0):
    """A network with random weights that keep the size of activations, and statistics of batches as after training."""
    with torch.device("meta"):
        network = build()
    network = network.to_empty(device="cpu").eval()
    torch.manual_seed(seed)
    for name, weight in network.state_dict().items():
        if weight.ndim > 1:
            weight.normal_(0, (2 / weight[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            weight.uniform_(0.5, 2)
        elif weight.is_floating_point():
            weight.normal_(gain if name.endswith("weight") else 0, 0.2)
    return network


def norm(s, name, x, eps):
    """Batch normalisation in evaluation, by its formula."""
    mean, var, weight, bias = (
        s[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + eps).sqrt() * weight + bias


def alexnet(s, x):
    taps = {}
    shapes = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
    for k, (stride, padding) in shapes.items():
        x = F.conv2d(x, s[f"features.{k}.weight"], s[f"features.{k}.bias"], stride, padding).clamp(min=0)
        if k == 3:
            taps["2"] = x.flatten(1)
        if k == 10:
            taps["5"] = x.flatten(1)
        if k in (0, 3):
            x = F.max_pool2d(x, 3, 2)
    return taps


def resnet50(s, x):
    def conv(name, bn, y, stride=1, padding=0):
        return norm(s, bn, F.conv2d(y, s[f"{name}.weight"], None, stride, padding), 1e-5)

    x = F.max_pool2d(conv("conv1", "bn1", x, 2, 3).clamp(min=0), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for k in range(blocks):
            at, stride = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
            y = conv(f"{at}.conv1", f"{at}.bn1", x).clamp(min=0)
            y = conv(f"{at}.conv2", f"{at}.bn2", y, stride, 1).clamp(min=0)
            y = conv(f"{at}.conv3", f"{at}.bn3", y)
            x = conv(f"{at}.downsample.0", f"{at}.downsample.1", x, stride) if k == 0 else x
            x = (x + y).clamp(min=0)
    return {"": F.adaptive_avg_pool2d(x, 1).flatten(1)}


def efficientnet(s, x):
    def conv(name, y, kernel, stride=1, groups=1):
        y = F.conv2d(y, s[f"{name}.0.weight"], None, stride, (kernel - 1) // 2, groups=groups)
        return norm(s, f"{name}.1", y, 1e-5)

    def swish(y):
        return y * torch.sigmoid(y)

    x = swish(conv("features.0", x, 3, 2))
    stages = ((3, 1, 2, 1), (3, 2, 3, 6), (5, 2, 3, 6), (3, 2, 4, 6), (5, 1, 4, 6), (5, 2, 5, 6), (3, 1, 2, 6))
    for stage, (kernel, first, blocks, expansion) in enumerate(stages, 1):
        for k in range(blocks):
            at, stride, y = f"features.{stage}.{k}.block", first if k == 0 else 1, x
            step = 0
            if expansion != 1:
                y, step = swish(conv(f"{at}.0", y, 1)), 1
            y = swish(conv(f"{at}.{step}", y, kernel, stride, y.shape[1]))
            gate = F.adaptive_avg_pool2d(y, 1)
            se = f"{at}.{step + 1}"
            gate = swish(F.conv2d(gate, s[f"{se}.fc1.weight"], s[f"{se}.fc1.bias"]))
            y = y * torch.sigmoid(F.conv2d(gate, s[f"{se}.fc2.weight"], s[f"{se}.fc2.bias"]))
            y = conv(f"{at}.{step + 2}", y, 1)
            x = y + x if y.shape == x.shape and k else y
    return {"": F.adaptive_avg_pool2d(swish(conv("features.8", x, 1)), 1).flatten(1)}


def inception(s, x):
    def conv(name, y, stride=1, padding=0):
        y = F.conv2d(y, s[f"{name}.conv.weight"], None, stride, padding)
        return norm(s, f"{name}.bn", y, 1e-3).clamp(min=0)

    def chain(y, at, *steps):
        for name, *how in steps:
            y = conv(f"{at}.{name}", y, *how)
        return y

    def pool(y, at):
        return conv(f"{at}.branch_pool", F.avg_pool2d(y, 3, 1, 1))

    # ImageNet's normalisation is undone, and [0, 1] brought to [-1, 1]
    mean, sd = (torch.tensor(v, dtype=x.dtype).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = 2 * (x * sd + mean) - 1
    x = conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 2)), 1, 1)
    x = F.max_pool2d(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", F.max_pool2d(x, 3, 2))), 3, 2)
    for at in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        double = (("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1), ("branch3x3dbl_3", 1, 1))
        five = chain(x, at, ("branch5x5_1",), ("branch5x5_2", 1, 2))
        x = torch.cat([conv(f"{at}.branch1x1", x), five, chain(x, at, *double), pool(x, at)], 1)
    double = (("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1), ("branch3x3dbl_3", 2))
    three = conv("Mixed_6a.branch3x3", x, 2)
    x = torch.cat([three, chain(x, "Mixed_6a", *double), F.max_pool2d(x, 3, 2)], 1)
    row, column = (0, 3), (3, 0)
    for at in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = chain(x, at, ("branch7x7_1",), ("branch7x7_2", 1, row), ("branch7x7_3", 1, column))
        places = (0, column, row, column, row)
        double = [(f"branch7x7dbl_{k}", 1, place) for k, place in enumerate(places, 1)]
        x = torch.cat([conv(f"{at}.branch1x1", x), seven, chain(x, at, *double), pool(x, at)], 1)
    at = "Mixed_7a"
    wide = (("branch7x7x3_1",), ("branch7x7x3_2", 1, row), ("branch7x7x3_3", 1, column), ("branch7x7x3_4", 2))
    three = chain(x, at, ("branch3x3_1",), ("branch3x3_2", 2))
    x = torch.cat([three, chain(x, at, *wide), F.max_pool2d(x, 3, 2)], 1)
    for at in ("Mixed_7b", "Mixed_7c"):
        single = conv(f"{at}.branch3x3_1", x)
        double = chain(x, at, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1, 1))
        ends = [
            conv(f"{at}.{name}", y, 1, padding)
            for y, names in (
                (single, ("branch3x3_2a", "branch3x3_2b")),
                (double, ("branch3x3dbl_3a", "branch3x3dbl_3b")),
            )
            for name, padding in zip(names, ((0, 1), (1, 0)), strict=True)
        ]
        x = torch.cat([conv(f"{at}.branch1x1", x), *ends, pool(x, at)], 1)
    return {"": F.adaptive_avg_pool2d(x, 1).flatten(1)}


CASES = {
    "alexnet": (AlexNet, alexnet, 61_100_840, 256, {"2": 184_512, "5": 57_600}),
    "inception": (InceptionV3, inception, 27_161_264, 107, {"": 2048}),
    "efficientnet": (EfficientNetB1, efficientnet, 7_794_184, 63, {"": 1280}),
    "resnet50": (ResNet50, resnet50, 25_557_032, 64, {"": 2048}),
}


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_published_architecture(name):
    build, reference, n_weights, side, sizes = CASES[name]
    network = filled(build).double()
    assert sum(weight.numel() for weight in network.parameters()) == n_weights
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.inference_mode():
        found, expected = network(images), reference(network.state_dict(), images)
    assert {layer: one.shape[1] for layer, one in found.items()} == sizes
    for layer, features in expected.items():
        apart = (features[0] - features[1]).abs().max()
        assert (found[layer] - features).abs().max() < 1e-9 * apart
