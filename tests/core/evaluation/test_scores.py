"""Scores of arms: shapes, summary, differences between arms."""

import json

import numpy as np
import pytest
from scipy.stats import pearsonr, sem

from napari_neuraldiffuser.core.base.progress import Countdown
from napari_neuraldiffuser.core.evaluation import metrics
from napari_neuraldiffuser.core.evaluation.metric import label
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.scores import evaluate, scores_table, summarise
from napari_neuraldiffuser.core.evaluation.work import nth
from napari_neuraldiffuser.core.params import EvaluationParams

SMALL = EvaluationParams(size=32, batch_size=4)


def scenes(n=4, size=24, seed=0):
    """Coarse random blocks, so that neighbouring pixels agree as in a picture."""
    blocks = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def noisy(seen, repeats, sd, seed=1):
    rng = np.random.default_rng(seed)
    noise = sd * rng.standard_normal((len(seen), repeats, *seen.shape[1:]))
    return np.clip(seen[:, None] + noise, 0, 255).astype(np.uint8)


def encoder(images):
    return images.reshape(len(images), -1)[:, ::5].astype(np.float32)


@pytest.fixture(scope="module")
def arms():
    seen = scenes()
    return {
        "unguided": evaluate(noisy(seen, 3, 90), seen, encoder, SMALL),
        "guided": evaluate(noisy(seen, 3, 30), seen, encoder, SMALL),
    }


def test_every_value_is_per_stimulus_and_repeat(arms):
    values = arms["guided"].values
    assert {"pixcorr", "ssim", "edges", "twoway_custom", "repeat_pixcorr", "repeat_edges"} <= set(values)
    assert all(v.shape == (4, 3) and np.isfinite(v).all() for v in values.values())


def test_pixcorr_follows_the_protocol(arms):
    seen = scenes()
    recon = noisy(seen, 3, 30)
    big_seen, big = metrics.resize(seen[1:2], 32), metrics.resize(recon[1], 32)
    expected = pearsonr(big_seen[0].ravel(), big[2].ravel()).statistic
    assert arms["guided"].values["pixcorr"][1, 2] == pytest.approx(expected, abs=1e-9)
    pairs = [pearsonr(big[a].ravel(), big[b].ravel()).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert arms["guided"].per_stimulus("repeat_pixcorr")[1] == pytest.approx(np.mean(pairs), abs=1e-9)


def test_identical_images_score_one():
    seen = scenes()
    scores = evaluate(seen[:, None].repeat(2, axis=1), seen, encoder, SMALL)
    assert all(np.allclose(v, 1, atol=1e-6) for v in scores.values.values())


def test_seen_and_reconstruction_may_differ_in_size():
    seen = scenes(size=48)
    scores = evaluate(seen[:, ::2, ::2][:, None], seen, None, SMALL)
    assert scores.values["pixcorr"].min() > 0.9
    assert "repeat_features" not in scores.values
    assert scores.protocol["resolution"]["seen"] == [48, 48]


def test_summary_has_the_documented_shape(arms):
    summary = summarise(arms)
    assert set(summary) == {"protocol", "arms", "paired", "alignment"}
    assert {"n_test_images", "repeats", "resolution", "metrics", "undefined"} <= set(summary["protocol"])
    for arm in ("unguided", "guided"):
        assert all(set(entry) == {"mean", "se", "n", "chance"} for entry in summary["arms"][arm].values())
    assert all(set(entry) == {"mean", "se", "n", "worse"} for entry in summary["paired"].values())
    assert set(summary["protocol"]["metrics"]) == set(summary["arms"]["guided"])
    json.dumps(summary, allow_nan=False)


def test_summary_numbers_are_over_stimuli(arms):
    summary = summarise(arms)
    guided, unguided = (arms[a].values["ssim"].mean(axis=1) for a in ("guided", "unguided"))
    assert summary["arms"]["guided"]["ssim"]["mean"] == pytest.approx(guided.mean())
    assert summary["arms"]["guided"]["ssim"]["se"] == pytest.approx(sem(guided))
    paired = summary["paired"]["ssim"]
    assert paired["mean"] == pytest.approx((guided - unguided).mean())
    assert paired["se"] == pytest.approx(sem(guided - unguided))
    assert paired["worse"] == np.mean(guided < unguided)


def test_worse_counts_stimuli_not_repeats():
    seen = scenes()
    good, bad = noisy(seen, 2, 20), noisy(seen, 2, 120)
    mixed = good.copy()
    mixed[0] = bad[0]
    summary = summarise({"unguided": evaluate(good, seen, None, SMALL), "guided": evaluate(mixed, seen, None, SMALL)})
    assert summary["paired"]["pixcorr"]["worse"] == 0.25


def test_one_stimulus_one_repeat_gives_nulls_and_counts():
    seen = scenes(1)
    summary = summarise({"guided": evaluate(noisy(seen, 1, 10), seen, encoder, SMALL)})
    assert summary["arms"]["guided"]["twoway_custom"] == {"mean": None, "se": None, "n": 0, "chance": None}
    assert summary["arms"]["guided"]["pixcorr"]["se"] is None
    assert summary["protocol"]["undefined"]["guided"]["repeat_edges"] == 1
    assert summary["paired"] == {}


def test_constant_reconstruction_is_counted_not_scored_zero():
    seen = scenes()
    images = noisy(seen, 2, 10)
    images[2, 1] = 99
    scores = evaluate(images, seen, None, SMALL)
    assert np.isnan(scores.values["pixcorr"][2, 1])
    assert scores.undefined["pixcorr"] == 1
    assert np.isfinite(scores.values["ssim"]).all()
    assert summarise({"guided": scores})["arms"]["guided"]["pixcorr"]["n"] == 4


def test_table_has_one_row_per_image(arms):
    table = scores_table(arms, [3, 70, 8, 9])
    assert list(table.columns[:3]) == ["stim", "rep", "arm"]
    assert len(table) == 4 * 3 * 2 and table.stim.is_monotonic_increasing
    row = table[(table.stim == 70) & (table.rep == 3) & (table.arm == "guided")]
    assert row.pixcorr.item() == arms["guided"].values["pixcorr"][1, 2]


def test_several_encoders_each_get_a_two_way_column():
    seen = scenes()
    scores = evaluate(noisy(seen, 2, 20), seen, {"first": encoder, "second": lambda x: encoder(x[:, ::2])}, SMALL)
    assert {"twoway_first", "twoway_second", "repeat_features"} <= set(scores.values)


def test_progress_is_of_the_whole_and_ends_complete():
    calls = []
    encoders = {"one": encoder, "two": encoder}
    evaluate(noisy(scenes(), 2, 5), scenes(), encoders, SMALL, lambda *a: calls.append(a))
    done = [call[0] for call in calls]
    assert done[0] == 0 and done == sorted(done) and {call[1] for call in calls} == {done[-1]}
    assert {call[2].split(",")[0] for call in calls} == {"scoring"}  # one stage: time left is not counted anew


def test_time_left_of_two_arms_does_not_start_again():
    now, told, clock = 0.0, [], Countdown()

    def listen(done, total, what):
        nonlocal now
        now += 1
        told.append(clock.left(done, total, what, now))

    for k in range(2):
        evaluate(noisy(scenes(8), 1, 5), scenes(8), None, SMALL, nth(listen, k, 2))
    left = [int(text.split()[2]) for text in told if text]
    assert len(told) - 8 < len(left) and max(left) <= 1.5 * len(told) and max(left[-8:]) <= 12


def test_worse_is_higher_where_lower_is_better():
    seen = scenes()
    good, bad = noisy(seen, 2, 20), noisy(seen, 2, 200)
    summary = summarise({"unguided": evaluate(good, seen, None, SMALL), "guided": evaluate(bad, seen, None, SMALL)})
    assert summary["paired"]["rank_edges"]["mean"] > 0 and summary["paired"]["nway_edges"]["mean"] < 0
    assert summary["paired"]["rank_edges"]["worse"] > 0


@pytest.mark.parametrize(
    ("images", "seen", "message"),
    [
        (np.zeros((2, 1, 8, 8, 3)), np.zeros((2, 8, 8, 3), np.uint8), "images must be .*uint8"),
        (np.zeros((2, 1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8), "seen must be"),
        (np.zeros((2, 1, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8), "per seen image, got 2 for 3"),
        (np.zeros((0, 1, 8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8), "non-empty"),
    ],
)
def test_bad_images_are_named(images, seen, message):
    with pytest.raises(MetricError, match=message):
        evaluate(images, seen, None, SMALL)


def test_encoder_that_loses_images_is_an_error():
    with pytest.raises(MetricError, match="encoder must return one row per image"):
        evaluate(noisy(scenes(), 1, 5), scenes(), lambda x: encoder(x)[:1], SMALL)


def test_arms_of_different_stimuli_are_not_paired(arms):
    fewer = evaluate(noisy(scenes(3), 3, 30), scenes(3), encoder, SMALL)
    with pytest.raises(MetricError, match="same stimuli and repeats"):
        summarise({"unguided": arms["unguided"], "guided": fewer})
    with pytest.raises(MetricError, match="at least one arm"):
        summarise({})
    with pytest.raises(MetricError, match="one id per stimulus"):
        scores_table(arms, [1, 2])


# ---- names of encoders ----


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("demo", "demo"),
        ("openai/clip-vit-base-patch32", "openai_clip_vit_base_patch32"),
        ("SD 1.4 (fp16)", "sd_1_4_fp16"),
        ("--", "custom"),
        ("Größe", "gr_e"),
    ],
)
def test_scores_have_the_name_of_the_encoder_that_made_the_features(name, word):
    seen = scenes()
    scores = evaluate(noisy(seen, 2, 20), seen, {name: encoder}, SMALL)
    column = f"twoway_{word}"
    assert column in scores.values and scores.chance[column] == 0.5
    assert f"image encoder {name}:" in scores.protocol["metrics"][column]
    assert f"image encoder {name} " in scores.protocol["metrics"]["repeat_features"]
    assert label(column) == f"Two-way identification ({word})"


def test_encoders_have_a_column_each_or_are_refused():
    seen = scenes()
    two = {"CLIP-B": encoder, "dino": lambda images: encoder(images)[:, ::3]}
    scores = evaluate(noisy(seen, 2, 20), seen, two, SMALL)
    assert {"twoway_clip_b", "twoway_dino"} <= set(scores.values)
    with pytest.raises(MetricError, match="differ in letters and digits"):
        evaluate(noisy(seen, 2, 20), seen, {"CLIP-B": encoder, "clip b": encoder}, SMALL)
