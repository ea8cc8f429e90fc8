"""The chance level of every score: the same pictures with their stimuli mixed up."""

import json

import numpy as np
import pytest
from scipy.stats import pearsonr

from napari_neuraldiffuser.core.evaluation import metrics
from napari_neuraldiffuser.core.evaluation.chance import CHANCE_REPEATS, mismatch
from napari_neuraldiffuser.core.evaluation.scores import evaluate, summarise
from napari_neuraldiffuser.core.params import EvaluationParams

SIZE = 32
SMALL = EvaluationParams(size=SIZE, batch_size=4)


def encoder(images):
    return images.reshape(len(images), -1)[:, ::5].astype(np.float32)


def pictures(n, repeats, common=0.0, noise=40, seed=0):
    """Seen images (n, 24, 24, 3) that share `common` of what they show, and noisy reconstructions of them."""
    rng = np.random.default_rng(seed)
    own, shared = rng.uniform(0, 255, (n, 4, 4, 3)), rng.uniform(0, 255, (4, 4, 3))
    seen = ((1 - common) * own + common * shared).repeat(6, axis=1).repeat(6, axis=2)
    recon = seen[:, None] + noise * rng.standard_normal((n, repeats, 24, 24, 3))
    return np.clip(recon, 0, 255).astype(np.uint8), seen.astype(np.uint8)


@pytest.mark.parametrize("n", [2, 3, 4, 17, 100])
@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_no_picture_meets_its_own_stimulus_or_twice_the_same(n, repeats):
    others = mismatch(n, repeats)
    assert others.shape == (n, min(repeats, n - 1, CHANCE_REPEATS))
    assert not (others == np.arange(n)[:, None]).any()
    assert all(len(set(row)) == len(row) for row in others.tolist())
    for column in others.T:
        assert sorted(column) == list(range(n))
    np.testing.assert_array_equal(others, mismatch(n, repeats))


def test_neighbours_in_the_list_are_no_more_likely_than_others():
    """Lists of labels are sorted, and neighbours are of one category."""
    apart = (mismatch(1000, 1)[:, 0] - np.arange(1000)) % 1000
    assert len(set(apart.tolist())) > 500


def test_levels_are_those_of_wrong_pairs():
    recon, seen = pictures(5, 3)
    scores, others = evaluate(recon, seen, encoder, SMALL), mismatch(5, 3)
    big = [metrics.resize(recon[i] / 255, SIZE) for i in range(5)]
    wanted = [metrics.resize(seen[i : i + 1] / 255, SIZE)[0] for i in range(5)]

    def r(a, b):
        return pearsonr(a.ravel(), b.ravel()).statistic

    wrong = [r(wanted[i], big[others[i, k]][k]) for i in range(5) for k in range(2)]
    assert scores.chance["pixcorr"] == pytest.approx(np.mean(wrong), abs=1e-9)
    between = [r(big[others[i, 0]][0], big[others[i, 1]][1]) for i in range(5)]
    assert scores.chance["repeat_pixcorr"] == pytest.approx(np.mean(between), abs=1e-9)
    flat = encoder(recon.reshape(-1, 24, 24, 3)).reshape(5, 3, -1)
    between = [r(flat[others[i, 0], 0], flat[others[i, 1], 1]) for i in range(5)]
    assert scores.chance["repeat_features"] == pytest.approx(np.mean(between), abs=1e-6)


def test_what_all_pictures_share_is_in_the_level():
    """PixCorr about as high in both; only against its chance level is one of them good."""
    different, alike = (evaluate(*pictures(20, 2, common, noise=10), None, SMALL) for common in (0.0, 0.9))
    for name in ("pixcorr", "ssim", "repeat_pixcorr"):
        assert alike.chance[name] > different.chance[name] + 0.2
    assert abs(different.chance["pixcorr"]) < 0.1 < different.per_stimulus("pixcorr").mean() - 0.5


def test_every_score_of_a_summary_has_one():
    summary = summarise({"guided": evaluate(*pictures(6, 3), encoder, SMALL)})
    for name, figures in summary["arms"]["guided"].items():
        assert set(figures) == {"mean", "se", "n", "chance"}
        if name.startswith("rank"):
            assert figures["chance"] == 3.5 > figures["mean"] >= 1
        else:
            assert -1 <= figures["chance"] < figures["mean"] <= 1, name
    assert summary["arms"]["guided"]["nway_custom"]["chance"] == 1 / 6  # fewer than 50
    for name in ("twoway_edges", "repeat_identification"):
        assert summary["arms"]["guided"][name]["chance"] == 0.5
    json.dumps(summary, allow_nan=False)


def test_what_is_undefined_is_null():
    one = summarise({"guided": evaluate(*pictures(1, 3), encoder, SMALL)})["arms"]["guided"]
    assert all(figures["chance"] is None for figures in one.values())
    two = summarise({"guided": evaluate(*pictures(2, 3), encoder, SMALL)})["arms"]["guided"]
    assert two["repeat_pixcorr"]["chance"] is None  # two stimuli cannot give an image, and two repeats of others
    assert two["pixcorr"]["chance"] is not None and two["twoway_edges"]["chance"] == 0.5
    recon, seen = pictures(4, 2)
    recon[:] = 90  # constant pictures correlate with nothing
    flat = summarise({"guided": evaluate(recon, seen, None, SMALL)})["arms"]["guided"]
    assert flat["pixcorr"] == {"mean": None, "se": None, "n": 0, "chance": None}
    assert flat["ssim"]["chance"] is not None


def test_pairs_of_two_are_crossed():
    recon, seen = pictures(2, 1)
    crossed = evaluate(recon[::-1], seen, None, SMALL)
    assert evaluate(recon, seen, None, SMALL).chance["ssim"] == pytest.approx(crossed.per_stimulus("ssim").mean())
