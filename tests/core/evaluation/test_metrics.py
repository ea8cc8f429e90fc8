"""Image metrics against scikit-image, PyTorch, SciPy and explicit loops."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from skimage.color import rgb2gray
from skimage.feature import hog
from skimage.metrics import structural_similarity

from napari_neuraldiffuser.core.evaluation import metrics


def pictures(n, height=20, width=23, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(7, 5, 31), (64, 64, 425), (40, 33, 17), (16, 16, 16)])
def test_resize_equals_torch_bilinear_antialias(height, width, size):
    images = pictures(2, height, width) / 255
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True
    )
    assert np.allclose(metrics.resize(images, size), expected.permute(0, 2, 3, 1), atol=1e-12)


def test_resize_of_grey_images_equals_that_of_each_channel():
    images = pictures(2) / 255
    assert np.allclose(metrics.resize(images[..., 1], 40), metrics.resize(images, 40)[..., 1], atol=1e-14)


def test_pixcorr_equals_scipy_for_every_pair():
    images = pictures(4) / 255
    matrix = metrics.pixcorr_matrix(images)
    for i, j in itertools.product(range(4), repeat=2):
        assert matrix[i, j] == pytest.approx(pearsonr(images[i].ravel(), images[j].ravel()).statistic, abs=1e-12)


def test_pixcorr_of_known_cases():
    image = pictures(1)[0] / 255
    matrix = metrics.pixcorr_matrix(np.stack([image, 0.5 * image + 0.2, 1 - image]))
    assert np.allclose(matrix[0], [1, 1, -1], atol=1e-12)


@pytest.mark.parametrize("value", [0, 7, 128, 255])
def test_constant_image_has_no_correlation_but_is_not_zero(value):
    images = pictures(2)
    images[1] = value
    matrix = metrics.pixcorr_matrix(metrics.resize(images / 255, 61))
    assert matrix[0, 0] == pytest.approx(1)
    assert np.isnan(matrix[0, 1]) and np.isnan(matrix[1, 1])
    edges = metrics.hog_edges(images)
    assert np.isnan(metrics.correlations(edges, edges)[0, 1])


@pytest.mark.parametrize("shape", [(20, 23), (64, 64), (425, 425)])
def test_ssim_equals_scikit_image(shape):
    rng = np.random.default_rng(1)
    base = rng.random(shape)
    greys = np.stack([base, np.clip(base + 0.2 * rng.standard_normal(shape), 0, 1), 1 - base])
    matrix = metrics.ssim_matrix(greys)
    for i, j in itertools.product(range(3), repeat=2):
        expected = structural_similarity(
            greys[i], greys[j], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
        )
        assert matrix[i, j] == pytest.approx(expected, abs=1e-12)


def identification_loops(features):
    n, repeats, _ = features.shape
    out = np.empty((n, repeats))
    for i, k in itertools.product(range(n), range(repeats)):
        wins = []
        for m in (m for m in range(repeats) if m != k):
            own = pearsonr(features[i, k], features[i, m]).statistic
            for j, p in itertools.product((j for j in range(n) if j != i), range(repeats)):
                wins.append(own > pearsonr(features[i, k], features[j, p]).statistic)
        out[i, k] = np.mean(wins)
    return out


@pytest.mark.parametrize(("n", "repeats"), [(2, 2), (5, 3)])
def test_repeat_identification_equals_the_loops(n, repeats):
    rng = np.random.default_rng(n)
    features = rng.standard_normal((n, 1, 30)) * 0.4 + rng.standard_normal((n, repeats, 30))
    assert np.allclose(metrics.repeat_identification(features), identification_loops(features))


def test_repeat_identification_fails_what_always_draws_the_same_picture():
    one = np.random.default_rng(0).standard_normal((1, 1, 30))
    assert np.all(metrics.repeat_identification(np.tile(one, (4, 3, 1))) < 0.6)  # rounding decides ties
    distinct = np.random.default_rng(1).standard_normal((4, 1, 30)).repeat(3, axis=1)
    assert np.allclose(metrics.repeat_identification(distinct), 1)


@pytest.mark.parametrize("shape", [(1, 3, 9), (4, 1, 9)])
def test_repeat_identification_needs_two_stimuli_and_two_repeats(shape):
    assert np.isnan(metrics.repeat_identification(np.random.default_rng(0).random(shape))).all()


def test_agreement_splits_into_seen_and_mean_over_pairs():
    matrix = np.array([[1, 0.1, 0.2, 0.3], [0.1, 1, 0.4, 0.5], [0.2, 0.4, 1, 0.9], [0.3, 0.5, 0.9, 1]])
    seen, between = metrics.with_first_and_between(matrix)
    assert seen.tolist() == [0.1, 0.2, 0.3]
    assert np.allclose(between, [0.45, 0.65, 0.7])
    assert between.mean() == pytest.approx((0.4 + 0.5 + 0.9) / 3)
    assert np.isnan(metrics.with_first_and_between(np.eye(2))[1]).all()


@pytest.mark.parametrize("side", [24, 128, 425])
def test_hog_edges_equal_scikit_image(side):
    rng = np.random.default_rng(side)
    noise, flat = pictures(1, side, side), np.full((1, side, side, 3), 90, np.uint8)
    ramp = (
        np.broadcast_to(np.arange(side) * 255 // side, (1, side, side))[..., None].repeat(3, axis=-1).astype(np.uint8)
    )
    blocks = rng.integers(0, 256, (1, 4, 4, 3), np.uint8).repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    for image in (noise, flat, ramp, blocks):
        small = np.round(metrics.resize(rgb2gray(image), 128)[0], 9)
        expected = hog(small, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys")
        assert np.allclose(metrics.hog_edges(image)[0], expected, atol=1e-6)


def test_grey_equals_scikit_image():
    images = pictures(2)
    assert np.allclose(metrics.grey(images), rgb2gray(images), atol=1e-12)
    assert np.allclose(metrics.grey(images / 255), rgb2gray(images / 255), atol=1e-12)


def test_hog_edges_ignore_brightness_and_see_a_shift():
    image = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    image[:, 20:40, 20:40] = 200
    dimmed, moved = image // 2, np.roll(image, 16, axis=2)
    edges = metrics.hog_edges(np.concatenate([image, dimmed, moved]))
    r = metrics.correlations(edges, edges)
    assert r[0, 1] > 0.99
    assert r[0, 2] < 0.6
