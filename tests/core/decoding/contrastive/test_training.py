"""Losses against their formulas in NumPy, and what training keeps, holds out and scales."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from napari_neuraldiffuser.core.decoding import DecodingError
from napari_neuraldiffuser.core.decoding.contrastive import losses, training
from napari_neuraldiffuser.core.params import DecodingParams

PARAMS = DecodingParams(decoder="contrastive", contrastive_epochs=5, contrastive_batch=16)


def problem(n=80, k=6, noise=1.0, seed=0, repeats=1):
    """Scores of which the first vary most, each predicted with noise in proportion."""
    rng = np.random.default_rng(seed)
    stimuli = 100 + np.arange(n) // repeats
    spread = np.geomspace(4, 0.5, k)
    scores = rng.standard_normal((n // repeats, k))[np.arange(n) // repeats] * spread
    left_out = 0.6 * scores + 0.4 * noise * spread * rng.standard_normal((n, k))
    return training.Problem(left_out, scores, (scores**2).sum(1) + 1.0, stimuli)


def run(given, steps=5, told=lambda epoch: None, **params):
    return training.train(given, PARAMS.but(**params), [0, 3], told, steps)


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("loss", ["softclip", "infonce"])
def test_contrast_is_its_formula(loss):
    rng = np.random.default_rng(0)
    predicted, true = rng.standard_normal((2, 7, 4))
    stimuli = np.array([1, 1, 2, 3, 4, 5, 6])
    params = PARAMS.but(contrastive_loss=loss, contrastive_soft_temperature=0.2)
    wanted = losses.wanted(torch.tensor(true), torch.tensor(stimuli), params)
    same = (stimuli[:, None] == stimuli) / np.array([2, 2, 1, 1, 1, 1, 1])[:, None]
    expected = same if loss == "infonce" else softmax(unit(true) @ unit(true).T / 0.2, axis=1)
    np.testing.assert_allclose(wanted, expected)
    logits = unit(predicted) @ unit(true).T / 0.07
    both = (expected * log_softmax(logits, 1)).sum(1).mean() + (expected * log_softmax(logits.T, 1)).sum(1).mean()
    found = losses.contrast(*map(torch.tensor, (predicted, true)), wanted, torch.tensor(-np.log(0.07)))
    assert float(found) == pytest.approx(-both / 2)


def test_error_is_that_of_the_best_scale():
    predicted, true = np.random.default_rng(0).standard_normal((2, 7, 4))
    least = min(((a * predicted - true) ** 2).sum(1).mean() for a in np.linspace(-1, 1, 4001))
    assert float(losses.error(*map(torch.tensor, (predicted, true)))) == pytest.approx(least, rel=1e-6)


def test_no_pass_changes_nothing():
    given = problem()
    kept = run(given, steps=0)
    np.testing.assert_allclose(kept.change, np.eye(6), atol=1e-12)
    assert kept.epoch == 0 and len(kept.r2) == 1
    held = training.hold_out(given.stimuli, PARAMS.contrastive_held_out, np.random.default_rng([0, 3]))
    residual = ((given.left_out - given.scores)[held] ** 2).sum() + held.sum()
    assert kept.r2[0] == pytest.approx(1 - residual / given.energy[held].sum())


def test_contrast_raises_directions_that_vary_little():
    """All are predicted alike, so cosines tell stimuli apart best if the weak ones count more."""
    given = problem(n=200)
    kept = run(given, steps=30, contrastive_regression=0.0, contrastive_rate=0.03)
    assert kept.epoch > 0
    assert kept.change[-1, -1] > 1.3 * kept.change[0, 0]
    regressed = run(given, steps=30, contrastive_regression=1e4, contrastive_rate=0.03)
    assert kept.change[-1, -1] / kept.change[0, 0] > 1.2 * regressed.change[-1, -1] / regressed.change[0, 0]

    def told_apart(scores):
        fresh = problem(n=200, seed=5)
        r = unit(fresh.left_out @ scores) @ unit(fresh.scores).T
        return (r < np.diag(r)[:, None]).mean()

    assert told_apart(kept.change) > told_apart(np.eye(6))


def test_held_out_stimuli_need_the_gain_of_the_start():
    given = problem()
    kept = run(given, contrastive_regression=0.0, contrastive_rate=0.05)
    assert kept.epoch > 0
    held = training.hold_out(given.stimuli, PARAMS.contrastive_held_out, np.random.default_rng([0, 3]))
    true, start = given.scores[held], given.left_out[held]
    needed = [(one * true).sum() / (one**2).sum() for one in (start, start @ kept.change)]
    assert needed[1] == pytest.approx(needed[0]) and needed[0] != pytest.approx(1.0, abs=0.05)


def test_the_best_pass_is_kept():
    curve = run(problem(noise=5.0), steps=40, contrastive_patience=3, contrastive_rate=0.3)
    # it gets worse from the beginning, and ends after three passes
    assert curve.epoch < len(curve.r2) - 1 and len(curve.r2) < 41
    assert len(curve.r2) == curve.epoch + 4


def test_the_seed_decides():
    one, same = (run(problem()) for _ in range(2))
    np.testing.assert_array_equal(one.change, same.change)
    other = training.train(problem(), PARAMS, [1, 3], lambda epoch: None, 5)
    assert not np.array_equal(one.change, other.change)


def test_what_is_told_ends_training():
    seen = []

    def told(epoch):
        seen.append(epoch)
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(problem(), told=told)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("share, count", [(0.2, 4), (0.01, 2), (0.5, 10)])
def test_whole_stimuli_are_held_out(share, count):
    stimuli = np.repeat(np.arange(20), 3)[np.random.default_rng(0).permutation(60)]
    held = training.hold_out(stimuli, share, np.random.default_rng(1))
    assert len(set(stimuli[held])) == count and not set(stimuli[held]) & set(stimuli[~held])


def test_too_few_stimuli_are_refused():
    with pytest.raises(DecodingError, match="at least 4 different training stimuli to be contrasted, got 3"):
        training.hold_out(np.array([1, 1, 2, 3]), 0.5, np.random.default_rng(0))


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DecodingError, match="decoder_device must be there, got cuda"):
        run(problem(), decoder_device="cuda")


def test_a_direction_that_is_not_predicted_stays_finite():
    given = problem()
    given.left_out[:, -1] = 0.0
    kept = run(given)
    assert np.isfinite(kept.change).all() and np.isfinite(kept.r2).all()
