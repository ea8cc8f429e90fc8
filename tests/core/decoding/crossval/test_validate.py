"""Cross-validation against scikit-learn's, and that nothing of a stimulus is known when it is decoded."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from napari_neuraldiffuser.core.base import memory
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.decoding.crossval import cross_validate, deal
from napari_neuraldiffuser.core.params import CrossvalParams, DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets

COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}
ALPHAS = tuple(10.0**k for k in range(-1, 5))


def small(n=43, p=60, seed=0, **more):
    x, y, _, _ = linear_data(n, p, seed=seed, **more)
    return make_betas(x), make_targets(y), x, y


def test_decoded_stimuli_are_those_of_nested_scikit_learn():
    betas, targets, x, y = small()
    params = CrossvalParams(folds=5)
    found = cross_validate(betas, targets, DecodingParams(alphas=ALPHAS, align="none"), params)
    folds = deal(43, params)
    np.testing.assert_array_equal(found.folds, folds)
    np.testing.assert_array_equal(found.decoded.stimulus_ids, np.arange(43))
    for name, columns in COLUMNS.items():
        nested = RidgeCV(alphas=ALPHAS)
        expected = cross_val_predict(nested, x, y[:, columns], cv=PredefinedSplit(folds))
        np.testing.assert_allclose(found.decoded[name].reshape(43, -1), expected, rtol=1e-4, atol=1e-4)
        chosen = [nested.fit(x[folds != k], y[folds != k, columns]).alpha_ for k in range(5)]
        assert found.chosen[name] == chosen
        means = np.stack([y[folds != k][:, columns].mean(0) for k in folds])
        r2 = 1 - ((y[:, columns] - expected) ** 2).sum() / ((y[:, columns] - means) ** 2).sum()
        assert found.scores[name].r2 == pytest.approx(r2, abs=1e-4)


def test_noise_is_at_chance_where_a_leak_would_not_be():
    values = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((40, 200)), rng.standard_normal((40, 22))
        betas, targets = make_betas(x), make_targets(y)
        params = DecodingParams(alphas=(1.0, 10.0, 100.0))
        values.append(cross_validate(betas, targets, params, CrossvalParams(folds=5)).scores)
        # decoded by a decoder that has seen them
        seen = RidgeDecoder(params).fit(betas, targets).predict(betas, align="none")
        own = np.corrcoef(seen.z.reshape(40, -1).ravel(), y[:, :8].ravel())[0, 1]
        assert own > 0.8
    two_way = [score.two_way.value for scores in values for score in scores.values()]
    assert abs(np.mean(two_way) - 0.5) < 0.05
    assert np.mean([score.r2 for scores in values for score in scores.values()]) < 0


def test_trials_of_a_stimulus_stay_together():
    """Each of 30 stimuli has two trials of the same pattern: a trial that is left out alone would be given away."""
    rng = np.random.default_rng(0)
    pattern, y = rng.standard_normal((30, 80)), rng.standard_normal((30, 22))
    ids = np.repeat(np.arange(30), 2)
    betas = make_betas(pattern[ids] + 0.01 * rng.standard_normal((60, 80)), ids)
    found = cross_validate(betas, make_targets(y), DecodingParams(alphas=(1.0,)), CrossvalParams(folds=10))
    np.testing.assert_array_equal(found.decoded.stimulus_ids, ids)
    np.testing.assert_array_equal(found.folds[::2], found.folds[1::2])
    assert found.scores["z"].r2 < 0.2


def test_alignment_is_in_the_embeddings_and_not_in_the_scores():
    betas, targets, _, y = small(noise=3.0)
    by = {
        align: cross_validate(betas, targets, DecodingParams(align=align), CrossvalParams(folds=4))
        for align in ("none", "train")
    }
    assert by["none"].scores == by["train"].scores
    spread = {align: found.decoded.z.std(0).mean() for align, found in by.items()}
    assert spread["none"] < spread["train"]
    assert by["train"].decoded.attrs["align"] == "train" and "chosen" not in by["train"].decoded.attrs


def test_progress_counts_folds_and_ends_the_work():
    betas, targets, _, _ = small()
    told = []
    cross_validate(betas, targets, params=CrossvalParams(folds=3), progress=lambda *said: told.append(said))
    assert [said for said in told if said[2] == "cross-validation"] == [(k, 3, "cross-validation") for k in (1, 2, 3)]
    assert told[0] == (0, 3, "cross-validation, fold 1, ridge z 1/3")
    assert {what.split(",")[0] for _, _, what in told} == {"cross-validation"}

    def stop(done, total, what):
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        cross_validate(betas, targets, params=CrossvalParams(folds=3), progress=stop)


def test_folds_that_are_there_are_not_decoded_again():
    betas, targets, _, _ = small()
    kept = {}

    def keep(k, work):
        if k not in kept:
            kept[k] = work()
        return kept[k]

    first = cross_validate(betas, targets, params=CrossvalParams(folds=3), keep=keep)
    again = cross_validate(betas, targets, params=CrossvalParams(folds=3), keep=lambda k, work: kept[k])
    np.testing.assert_array_equal(first.decoded.z, again.decoded.z)
    assert first.scores == again.scores


def test_what_is_no_set_to_cross_validate_is_refused(monkeypatch):
    betas, targets, _, _ = small()
    with pytest.raises(DecodingError, match="folds must be at most the number of different stimuli, got 50 for 43"):
        cross_validate(betas, targets, params=CrossvalParams(folds=50))
    with pytest.raises(DecodingError, match="categories must have every stimulus, got none for 1, first 42"):
        cross_validate(betas, targets, categories=dict.fromkeys(range(42), "a"))
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(memory.MemoryNeeded, match="43 decoded rows .* got 16 kB for 1 kB free"):
        cross_validate(betas, targets)
