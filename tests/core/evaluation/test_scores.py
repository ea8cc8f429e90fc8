"""Scores of arms: shapes, summary, pairing, folders of pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import pearsonr, sem

from napari_neuraldiffuser.core.base.pictures import PictureError
from napari_neuraldiffuser.core.evaluation import metrics
from napari_neuraldiffuser.core.evaluation.folders import ImageFolderError, evaluate_folders
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.scores import evaluate, scores_table, summarise
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
    assert {"pixcorr", "ssim", "edges", "twoway_demo", "repeat_pixcorr", "repeat_edges"} <= set(values)
    assert all(v.shape == (4, 3) and np.isfinite(v).all() for v in values.values())
    assert arms["guided"].sd_maps.shape == (4, 24, 24)
    assert arms["guided"].sd_maps.mean() < arms["unguided"].sd_maps.mean()


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
    assert set(summary) == {"protocol", "arms", "paired"}
    assert {"n_test_images", "repeats", "resolution", "metrics", "undefined"} <= set(summary["protocol"])
    for arm in ("unguided", "guided"):
        assert all(set(entry) == {"mean", "se", "n", "chance"} for entry in summary["arms"][arm].values())
    assert all(set(entry) == {"mean", "se", "worse"} for entry in summary["paired"].values())
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
    assert summary["arms"]["guided"]["twoway_demo"] == {"mean": None, "se": None, "n": 0, "chance": None}
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


def test_progress_ends_complete():
    calls = []
    evaluate(noisy(scenes(), 1, 5), scenes(), None, SMALL, lambda *a: calls.append(a))
    assert calls[0][:2] == (0, 4) and calls[-1][:2] == (4, 4)


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


# ---- folders ----


def save(folder, name, image):
    folder.mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / name)


@pytest.fixture
def folders(tmp_path):
    for k, image in enumerate(scenes()):
        save(tmp_path / "seen", f"stim-{k + 10:05d}_seen.png", image)
    return tmp_path / "recon", tmp_path / "seen"


def test_our_own_names_are_read_by_their_entities(folders, arms):
    recon, seen = folders
    for arm, sd in (("unguided", 90), ("guided", 30)):
        for k, repeats in enumerate(noisy(scenes(), 3, sd)):
            for r, image in enumerate(repeats):
                save(recon, f"sub-01_stim-{k + 10:05d}_rep-{r + 1}_desc-{arm}_recon.png", image)
    result = evaluate_folders(recon, seen, encoder, SMALL)
    assert result.stimuli == ["00010", "00011", "00012", "00013"] and not result.notes
    for arm in arms:
        assert np.allclose(result.arms[arm].values["pixcorr"], arms[arm].values["pixcorr"])
    assert "paired" in result.summary() and len(result.table()) == 24


@pytest.mark.parametrize("name", ["stim-{:05d}_seen.png", "{}.png", "img_{:04d}.jpg", "stim-{}_recon.bmp"])
def test_other_tools_names_match_by_stem_or_number(folders, name):
    recon, seen = folders
    for k, image in enumerate(scenes()):
        save(recon, name.format(k + 10), image)
    result = evaluate_folders(recon, seen, None, SMALL)
    assert list(result.arms) == ["recon"] and len(result.stimuli) == 4
    assert result.arms["recon"].values["pixcorr"].min() > 0.9


def test_second_number_is_the_repeat(folders):
    recon, seen = folders
    for k in range(4):
        for r, image in enumerate(noisy(scenes(), 2, 20)[k]):
            save(recon, f"{k + 10}_{r}.png", image)
    assert evaluate_folders(recon, seen, None, SMALL).arms["recon"].values["ssim"].shape == (4, 2)


def test_unmatched_files_are_noted(folders):
    recon, seen = folders
    save(recon, "10.png", scenes()[0])
    save(recon, "99.png", scenes()[0])
    result = evaluate_folders(recon, seen, None, SMALL)
    assert result.stimuli == ["00010"] and "99.png" in result.notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "recon_dir must be a folder with images"),
        (["a.png", "b.png"], "got no match"),
        (["10_1.png", "x10_1.png"], "one file per stimulus, repeat and arm"),
        (["10_1.png", "10_2.png", "11_1.png"], "equally many"),
    ],
)
def test_folders_that_cannot_be_matched(folders, files, message):
    recon, seen = folders
    for name in files:
        save(recon, name, scenes()[0])
    with pytest.raises(ImageFolderError, match=message):
        evaluate_folders(recon, seen, None, SMALL)


def test_unreadable_image_is_named(folders):
    recon, seen = folders
    save(recon, "10.png", scenes()[0])
    (recon / "11.png").write_bytes((recon / "10.png").read_bytes()[:60])
    with pytest.raises(PictureError, match=r"11\.png must be a whole picture"):
        evaluate_folders(recon, seen, None, SMALL)


def test_ambiguous_seen_and_odd_sizes_are_errors(folders):
    recon, seen = folders
    save(recon, "10.png", scenes()[0])
    save(recon, "11.png", scenes(size=16)[0])
    with pytest.raises(ImageFolderError, match="must have the size of"):
        evaluate_folders(recon, seen, None, SMALL)
    save(seen, "other_10.png", scenes()[0])
    with pytest.raises(ImageFolderError, match="one image per stimulus"):
        evaluate_folders(recon, seen, None, SMALL)
