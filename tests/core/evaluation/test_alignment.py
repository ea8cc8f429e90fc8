"""The test of the pairing: what it says of right, shifted, mixed and empty pairings."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation import alignment
from napari_neuraldiffuser.core.evaluation.identification import matrices
from napari_neuraldiffuser.core.evaluation.scores import evaluate, summarise
from napari_neuraldiffuser.core.params import EvaluationParams


def features(n=20, share=0.3, repeats=2, seed=0):
    rng = np.random.default_rng(seed)
    seen = rng.standard_normal((n, 1, 60))
    return seen, share * seen + rng.standard_normal((n, repeats, 60))


def test_agreement_of_every_pairing_equals_the_loop():
    seen, recon = features(7)
    test = alignment.self_test(matrices(recon, seen))

    def agreement(partner):
        return np.mean([np.corrcoef(seen[partner(j), 0], recon[j, k])[0, 1] for j in range(7) for k in range(2)])

    assert test["paired"] == pytest.approx(agreement(lambda j: j), abs=1e-6)
    for s, value in test["shifted"].items():
        assert value == pytest.approx(agreement(lambda j, s=int(s): (j + s) % 7), abs=1e-6)
    assert test["at_best"] == max(test["shifted"].values())
    for paired, value in zip(alignment.derangements(7), test["mixed"], strict=True):
        assert (paired != np.arange(7)).all() and sorted(paired) == list(range(7))
        assert value == pytest.approx(agreement(lambda j, paired=paired: paired[j]), abs=1e-6)


def test_a_right_pairing_is_not_doubted():
    seen, recon = features()
    assert alignment.doubted({"x": alignment.self_test(matrices(recon, seen))}) == ""


@pytest.mark.parametrize(("shift", "said"), [(1, "1 place after"), (-1, "1 place before"), (4, "4 places after")])
def test_a_shifted_pairing_is_named_by_its_shift(shift, said):
    seen, recon = features(share=0.6)
    recon = np.roll(recon, -shift, axis=0)  # reconstruction j is of seen image j + shift
    told = alignment.doubted({"x": alignment.self_test(matrices(recon, seen))})
    assert "probably paired with the wrong stimuli" in told and said in told


def test_reconstructions_of_nothing_are_told_from_shifted_ones():
    for seed in range(5):
        seen, recon = features(share=0, seed=seed)
        told = alignment.doubted({"x": alignment.self_test(matrices(recon, seen))})
        assert not told or "do not tell which image" in told


def test_one_kind_of_features_that_tells_is_enough():
    seen, recon = features()
    good, none = (alignment.self_test(matrices(one, seen)) for one in (recon, np.roll(recon, 3, axis=0)))
    assert alignment.doubted({"edges": none}) and not alignment.doubted({"edges": none, "encoder": good})


def test_too_few_stimuli_say_nothing():
    seen, recon = features(4)
    assert alignment.self_test(matrices(recon, seen)) == {} and alignment.doubted({"x": {}}) == ""


@pytest.mark.parametrize("chosen", ["pixcorr", "edges"])
def test_every_summary_has_it_and_shifted_seen_images_are_found(chosen):
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8).repeat(6, axis=1).repeat(6, axis=2)
    recon = np.clip(seen[:, None] + 30 * rng.standard_normal((12, 2, 24, 24, 3)), 0, 255).astype(np.uint8)
    params = EvaluationParams(size=24, metrics=(chosen,))
    right = summarise({"guided": evaluate(recon, seen, None, params)})
    wrong = summarise({"guided": evaluate(recon, np.roll(seen, 1, axis=0), None, params)})
    assert alignment.warnings(right["alignment"]) == []
    (told,) = alignment.warnings(wrong["alignment"])
    assert "1 place after" in told and "shifted by s places" in wrong["protocol"]["alignment"]
