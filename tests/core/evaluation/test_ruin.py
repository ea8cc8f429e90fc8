"""A strength that ruins an image is told from one that does not."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation.ruin import CLIPPED, WORSE, clipped, ruined


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(60, 200, (2, 32, 32, 3)).astype(np.uint8)


def scores(*values):
    return [{"stim": 1, "rep": k, "pixcorr": value} for k, value in enumerate(values, 1)]


def test_a_helpful_strength_is_not_blamed(picture):
    assert ruined(picture, picture, scores(0.5, 0.6), scores(0.4, 0.5)) == ""
    assert ruined(picture, picture, scores(0.5, 0.5), scores(0.5 + 0.9 * WORSE, 0.5)) == ""


def test_a_score_far_below_the_unguided_one(picture):
    why = ruined(picture, picture, scores(0.2, 0.3), scores(0.5, 0.6))
    assert why == "PixCorr is 0.25 with guidance and 0.55 without"


def test_brightness_at_its_ends(picture):
    burnt = picture.copy()
    burnt[:, :8, :, 0] = 255  # a quarter, in one channel
    assert clipped(burnt) == pytest.approx(0.25)
    assert "25% of the pixels" in ruined(burnt, picture, scores(0.9), scores(0.1))
    assert ruined(burnt, burnt, scores(0.9), scores(0.1)) == "", "a picture that is so without guidance too"
    few = picture.copy()
    few[:, : int(32 * CLIPPED * 0.9)] = 0
    assert ruined(few, picture, [], []) == ""


def test_an_overflow_and_scores_that_are_missing(picture):
    assert ruined(picture, picture, scores(0.9), scores(0.1), finite=False) == "a latent overflowed"
    assert ruined(picture, picture, [], scores(0.9)) == ""
