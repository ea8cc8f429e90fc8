"""A strength that ruins an image is told from one that does not."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.evaluation.differences import Difference
from napari_neuraldiffuser.core.evaluation.ruin import (
    CLIPPED,
    WIDER,
    WORSE,
    Watched,
    clipped,
    harm,
    out_of_range,
    ruined,
)


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


@pytest.mark.parametrize(
    ("paired", "shares", "expected"),
    [
        ({"pixcorr": Difference(0.05, 0.01, 60)}, (0.02, 0.01), ""),
        ({"pixcorr": Difference(-0.31, 0.02, 60)}, None, "PixCorr -0.310 ± 0.020 (n = 60)"),
        ({"pixcorr": Difference(0.05, 0.01, 60), "ssim": Difference(-0.03, 0.01, 60)}, None, "SSIM -0.030"),
        ({"pixcorr": Difference(-0.03, 0.02, 60)}, None, ""),  # within 2 standard errors
        ({"repeat_pixcorr": Difference(-0.3, 0.01, 60)}, None, ""),  # no main figure
        ({"pixcorr": Difference(-0.3, 0.2, 2)}, None, "PixCorr -0.300"),  # few stimuli, as for one image
        ({"pixcorr": Difference(-0.05, 0.001, 2)}, None, ""),
        ({"pixcorr": Difference()}, (0.3, 0.1), "30% of the pixels"),
    ],
)
def test_a_run_that_guidance_harms_is_said_with_the_remedy(paired, shares, expected):
    told = harm(paired, shares)
    assert bool(told) == bool(expected) and expected in told
    if told:
        assert all(remedy in told for remedy in ("neuraldiffuser tune", "guidance_scale", "--guidance none"))


def figures(*spreads):
    return np.array([[0.0, spread, 3 * spread] for spread in spreads])


@pytest.mark.parametrize(
    ("guided", "told"),
    [
        ((0.8, 0.99 * WIDER), ""),
        ((0.8, 2.0), "standard deviations of 0.80 to 2.00, outside the range without guidance, 0.80 to 1.00"),
        ((0.4, 0.4), "standard deviations of 0.40, outside"),
        ((*[0.9] * 19, 2.0), ""),  # one image in twenty
        ((np.nan, np.nan), ""),  # overflowed, or written before there were figures
        ((np.nan, 2.0), "of 2.00, outside"),
    ],
)
def test_latents_that_leave_the_range_of_the_unguided_ones(picture, guided, told):
    latents = figures(*guided), figures(0.8, 1.0, np.nan)
    said = out_of_range(*latents)
    assert bool(said) == bool(told) and told in said
    assert ruined(picture, picture, [], [], latents=latents) == said
    assert harm({}, (0.0, 0.0), latents).count(told) == 1 if told else harm({}, (0.0, 0.0), latents) == ""
    assert out_of_range(latents[0], np.empty((0, 3))) == "", "nothing is known of the unguided ones"


def test_pictures_are_watched_as_they_are_read(picture):
    burnt = picture.copy()
    burnt[:, :8] = 255
    watched = Watched(np.stack([picture, burnt]))
    assert watched.share == 0.0
    np.testing.assert_array_equal(watched[0], picture)
    np.testing.assert_array_equal(watched[1, 0], burnt[0])  # one repeat alone does not count
    assert watched.share == 0.0
    watched[1], watched[1]
    assert watched.share == pytest.approx(0.125) and len(watched) == 2
