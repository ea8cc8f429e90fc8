"""Every score of every stimulus and repeat, against the definitions as loops over scikit-image and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from napari_neuraldiffuser.core.evaluation import metrics
from napari_neuraldiffuser.core.evaluation.scores import evaluate, scores_table
from napari_neuraldiffuser.core.params import EvaluationParams

N, REPEATS, SIZE = 4, 3, 24
IDS = [30, 10, 40, 20]
PAIR = {
    "pixcorr": lambda a, b: pearsonr(a.ravel(), b.ravel()).statistic,
    "ssim": lambda a, b: structural_similarity(
        rgb2gray(a), rgb2gray(b), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    ),
    "edges": lambda a, b: pearsonr(a, b).statistic,
}


def pictures(rng, *shape):
    """Coarse random blocks: their edges differ, and so do their colours."""
    return rng.integers(0, 256, (*shape, 8, 8, 3), dtype=np.uint8).repeat(4, axis=-3).repeat(4, axis=-2)


def encode(images):
    return images.reshape(len(images), -1)[:, ::7].astype(np.float32)


def flipped(images):
    return encode(255 - images[:, ::-1]) ** 2


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(3)
    return pictures(rng, N, REPEATS), pictures(rng, N)


@pytest.fixture(scope="module")
def scores(given):
    images, seen = given
    return evaluate(images, seen, {"first": encode, "second": flipped}, EvaluationParams(size=SIZE, batch_size=5))


def features(images, name):
    """(m, ...) of images (m, H, W, 3): what a score compares."""
    if name == "edges":
        return metrics.hog_edges(images)
    return metrics.resize(images / 255, SIZE)


def others(n, k):
    return [j for j in range(n) if j != k]


@pytest.mark.parametrize("name", PAIR)
def test_agreement_with_the_seen_image_and_between_repeats(given, scores, name):
    images, seen = given
    for i in range(N):
        target, drawn = features(seen[i : i + 1], name)[0], features(images[i], name)
        for k in range(REPEATS):
            assert scores.values[name][i, k] == pytest.approx(PAIR[name](target, drawn[k]), abs=1e-6)
            between = np.mean([PAIR[name](drawn[k], drawn[j]) for j in others(REPEATS, k)])
            assert scores.values[f"repeat_{name}"][i, k] == pytest.approx(between, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "of"), [("twoway_edges", metrics.hog_edges), ("twoway_first", encode), ("twoway_second", flipped)]
)
def test_two_way_identification(given, scores, name, of):
    images, seen = given
    target = of(seen)
    for k in range(REPEATS):
        drawn = of(images[:, k])
        for j in range(N):
            own = PAIR["edges"](target[j], drawn[j])
            won = [PAIR["edges"](target[i], drawn[j]) < own for i in others(N, j)]
            assert scores.values[name][j, k] == pytest.approx(np.mean(won))
            # with fewer than 50 stimuli, n-way is among all
            assert scores.values[name.replace("twoway", "nway")][j, k] == pytest.approx(float(all(won)))
            assert scores.values[name.replace("twoway", "rank")][j, k] == 1 + len(won) - sum(won)


def test_features_of_repeats_agree_by_the_first_encoder(given, scores):
    images, _ = given
    for i in range(N):
        drawn = encode(images[i])
        for k in range(REPEATS):
            between = np.mean([PAIR["edges"](drawn[k], drawn[j]) for j in others(REPEATS, k)])
            assert scores.values["repeat_features"][i, k] == pytest.approx(between, abs=1e-6)


def test_repeats_are_told_from_those_of_other_stimuli(given, scores):
    images, _ = given
    drawn = np.stack([metrics.hog_edges(stack) for stack in images])
    for i in range(N):
        for k in range(REPEATS):
            own = [PAIR["edges"](drawn[i, k], drawn[i, j]) for j in others(REPEATS, k)]
            foreign = [PAIR["edges"](drawn[i, k], drawn[j, m]) for j in others(N, i) for m in range(REPEATS)]
            share = np.mean([theirs < mine for mine in own for theirs in foreign])
            assert scores.values["repeat_identification"][i, k] == pytest.approx(share)


def test_no_score_is_left_out_of_these_tests(scores):
    compared = {*PAIR, *(f"repeat_{name}" for name in PAIR), "repeat_features", "repeat_identification"}
    identified = {f"{what}_{of}" for what in ("twoway", "nway", "rank") for of in ("edges", "first", "second")}
    assert set(scores.values) == compared | identified


def test_the_table_has_every_value_in_its_row(scores):
    table = scores_table({"guided": scores}, IDS)
    assert table.stim.tolist() == sorted(IDS * REPEATS)
    rows = table.set_index(["stim", "rep"])
    for name, values in scores.values.items():
        for (i, stimulus), k in ((pair, k) for pair in enumerate(IDS) for k in range(REPEATS)):
            assert rows.loc[(stimulus, k + 1), name] == values[i, k]
    assert isinstance(table, pd.DataFrame) and set(table.arm) == {"guided"}
