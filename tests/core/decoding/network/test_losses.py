"""Losses against their equations in float64, written out with loops."""

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.decoding.network import losses


def cosines(a, b):
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return a @ b.T


def log_softmax(values):
    return values - np.log(np.exp(values).sum())


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return rng.standard_normal((7, 5)), rng.standard_normal((7, 5))


def tensors(*arrays):
    return [torch.from_numpy(a.astype(np.float32)) for a in arrays]


def test_bimixco_is_its_equation(pair):
    predicted, target = pair
    share, partner = np.random.default_rng(1).uniform(size=7), np.array([3, 0, 2, 1, 6, 5, 4])
    logits, total = cosines(predicted, target) / 0.3, 0.0
    for i in range(7):
        row = log_softmax(logits[i])
        total += share[i] * row[i] + (1 - share[i]) * row[partner[i]]
    for j in range(7):
        column = log_softmax(logits[:, j])
        total += share[j] * column[j] + sum((1 - share[i]) * column[i] for i in range(7) if partner[i] == j)
    mix = losses.Mix(torch.from_numpy(share), torch.from_numpy(partner))
    assert losses.bimixco(*tensors(predicted, target), mix, 0.3).item() == pytest.approx(-total / 14, rel=1e-5)


def test_softclip_is_its_equation(pair):
    predicted, target = pair
    own, logits, total = cosines(target, target) / 0.2, cosines(predicted, target) / 0.2, 0.0
    for i in range(7):
        wanted = np.exp(log_softmax(own[i]))
        total += sum(wanted[j] * (log_softmax(logits[i])[j] + log_softmax(logits[:, j])[i]) for j in range(7))
    assert losses.softclip(*tensors(predicted, target), 0.2).item() == pytest.approx(-total / 14, rel=1e-5)


def test_what_is_mixed_can_be_undone(pair):
    """With the partner's rows and the shares, the original rows come out of the mixed ones."""
    values = torch.from_numpy(pair[0])
    mix = losses.Mix.draw(7, torch.Generator().manual_seed(3))
    assert not torch.equal(mix.of(values), values)
    share = mix.share.double()[:, None]
    undone = (mix.of(values) - (1 - share) * values[mix.partner]) / share
    torch.testing.assert_close(undone[mix.share > 0.01], values[mix.share > 0.01])


def test_without_mixing_bimixco_contrasts_each_with_its_own(pair):
    predicted, target = tensors(*pair)
    mix = losses.Mix(torch.ones(7), torch.randperm(7))
    assert torch.equal(mix.of(target), target)
    logits, own = losses.similarity(predicted, target, 0.3), torch.arange(7)
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(logits, own) + entropy(logits.T, own)) / 2
    torch.testing.assert_close(losses.bimixco(predicted, target, mix, 0.3), expected)


def test_mixing_mostly_keeps_one_of_two():
    share = losses.Mix.draw(20_000, torch.Generator().manual_seed(0)).share
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    # of Beta(0.15, 0.15), whose variance is 1 / (4 (2 * 0.15 + 1))
    assert share.var().item() == pytest.approx(1 / (4 * 1.3), rel=0.03)


def test_regression_losses_are_1_for_the_mean(pair):
    target = pair[1] - pair[1].mean(0)
    size = float(np.square(target).sum(1).mean())
    (values,) = tensors(target)
    assert losses.squared(torch.zeros_like(values), values, size).item() == pytest.approx(1.0, rel=1e-5)
    expected = np.abs(target).mean() / np.sqrt(size / 5)
    assert losses.absolute(torch.zeros_like(values), values, size).item() == pytest.approx(expected, rel=1e-5)
