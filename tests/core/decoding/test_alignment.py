"""Spread of decoded targets: the gains, the choice of their form, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from napari_neuraldiffuser.core.decoding import DecodingError, TargetFit, alignment
from napari_neuraldiffuser.core.params import DecodingParams

FORMS = alignment.FORMS


def regressed(n=300, columns=40, noise=1.0, seed=0):
    """Targets of correlated columns, and what a regression on them with noise predicts: too little spread."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((8, columns)) * rng.uniform(0.2, 3.0, columns)
    latent, blur = rng.standard_normal((n, 8)), rng.standard_normal((n, 8)) * noise
    y = latent @ mix + 0.3 * rng.standard_normal((n, columns)) + 5
    return (latent + blur) / (1 + noise**2) @ mix + 5, y


@pytest.mark.parametrize("form", ["group", "shrunk", "column"])
def test_aligned_predictions_have_the_targets_mean_and_total_variance(form):
    decoded, y = regressed()
    stats = alignment.measure(decoded, y, form)
    aligned = alignment.apply(decoded, "train", stats)
    np.testing.assert_allclose(aligned.mean(0), y.mean(0), rtol=1e-9)
    np.testing.assert_allclose(aligned.var(0).sum(), y.var(0).sum(), rtol=1e-9)
    gains = (aligned - aligned.mean(0)).std(0) / decoded.std(0)
    if form == "column":
        np.testing.assert_allclose(aligned.std(0), y.std(0), rtol=1e-9)
    if form == "group":
        np.testing.assert_allclose(gains, stats.gain, rtol=1e-9)
    if form == "shrunk":
        ratio = np.sqrt(y.std(0) / decoded.std(0)) / gains
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_energy_distance_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((17, 5)), rng.standard_normal((17, 5)) * 2 + 1
    off = ~np.eye(17, dtype=bool)
    within_x, within_y, between = (cdist(a, b)[off].mean() for a, b in ((x, x), (y, y), (x, y)))
    expected = (2 * between - within_x - within_y) / within_y
    assert alignment.energy_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.1 > abs(alignment.energy_distance(x, rng.standard_normal((17, 5))))


def test_told_apart_is_that_of_correlations():
    rng = np.random.default_rng(2)
    y = rng.standard_normal((12, 7))
    decoded = y + rng.standard_normal((12, 7))
    r = np.corrcoef(y, decoded)[:12, 12:]
    expected = [np.mean([r[i, j] < r[j, j] for i in range(12) if i != j]) for j in range(12)]
    np.testing.assert_allclose(alignment.told_apart(decoded, y), expected)
    # a constant picture tells nothing apart
    np.testing.assert_allclose(alignment.told_apart(np.ones((12, 7)), y), 0.5)


def test_spread_that_was_lost_is_restored_and_that_of_chance_is_not():
    decoded, y = regressed()
    stats = alignment.measure(decoded, y)
    assert stats.form != "none" and stats.identified > 0.9
    assert stats.distance[FORMS.index(stats.form)] == min(stats.distance) < stats.distance[FORMS.index("none")]
    shuffled = alignment.measure(decoded, np.random.default_rng(3).permutation(y))
    assert shuffled.form == "none" and abs(shuffled.identified - 0.5) < 0.05
    assert shuffled.said("g02") == "spread of g02 left as decoded"
    np.testing.assert_array_equal(alignment.apply(decoded, "train", shuffled), decoded)


def test_one_factor_where_columns_are_hardly_decoded():
    """A factor per column would blow up columns that carry nothing but noise."""
    decoded, y = regressed()
    rng = np.random.default_rng(4)
    # noise of one direction in half of the columns: alike in all of them, unlike the targets
    decoded[:, 20:] = 5 + 0.02 * rng.standard_normal((300, 1)) * y.std(0)[20:]
    stats = alignment.measure(decoded, y)
    distance = dict(zip(FORMS, stats.distance, strict=True))
    assert distance["group"] < distance["column"] and stats.form != "column"


def test_a_spread_that_is_right_stays():
    _, y = regressed()
    other = regressed(seed=0)[1] + 0.05 * np.random.default_rng(5).standard_normal(y.shape)
    stats = alignment.measure(other, y, "group")
    assert stats.gain == pytest.approx(1, abs=0.01)


def test_known_moments_stand_for_those_of_the_sample():
    decoded, y = regressed(50)
    known = alignment.Moments(np.full(40, 1.0), np.full(40, 2.0), np.full(40, 3.0))
    stats = alignment.measure(decoded, y, "column", known)
    aligned = alignment.apply(decoded, "train", stats)
    np.testing.assert_allclose(aligned, (decoded - 1) / decoded.std(0) * 3 + 2)
    moved = stats.moved(np.full(40, 10.0))
    np.testing.assert_allclose(alignment.apply(decoded + 10, "train", moved), aligned + 10)


def test_constant_columns_and_targets():
    decoded, y = regressed()
    y[:, 3], decoded[:, 3] = 7.0, 7.0
    decoded[:, 4] = 5.0
    for form in ("group", "shrunk", "column"):
        aligned = alignment.apply(decoded, "train", alignment.measure(decoded, y, form))
        assert np.isfinite(aligned).all()
        np.testing.assert_allclose(aligned[:, 3], 7.0)
        np.testing.assert_allclose(aligned[:, 4], y[:, 4].mean())
    y[:, 0], decoded[:, 0] = 1.0, 1.0
    assert alignment.measure(decoded, y, "group").gain > 1
    stats = alignment.measure(np.ones((9, 4)), np.ones((9, 4)))
    assert stats.form == "none" and np.isnan(stats.distance).all() and np.isnan(stats.identified)
    assert np.isfinite(alignment.apply(np.ones((2, 4)), "train", replace(stats, form="column"))).all()


def test_what_is_refused():
    decoded, y = regressed(10)
    with pytest.raises(DecodingError, match="at least 2 rows"):
        alignment.measure(decoded[:1], y[:1])
    with pytest.raises(DecodingError, match=r"\(10, 40\) for \(9, 40\)"):
        alignment.measure(decoded, y[:9])
    with pytest.raises(DecodingError, match="without measured spread"):
        alignment.apply(decoded, "train", None)
    assert alignment.apply(decoded, "none", None) is decoded


def test_what_an_embeddings_file_says():
    decoded, y = regressed()
    stats = alignment.measure(decoded, y, "column")
    fits = {name: TargetFit(1.0, (1.0,), (0.5,), (40,), y.mean(0), alignment=stats) for name in ("z", "c")}
    params = DecodingParams(align_targets=("z",))
    said = alignment.attrs(fits, params, "train")
    assert said["spread"] == f"spread of z multiplied by {stats.gain:.2f}, per column\nspread of c left as decoded"
    assert "z that of training, per column" in alignment.attrs(fits, params, "test")["spread"]
    assert "left as decoded\nspread of c left" in alignment.attrs(fits, params, "none")["spread"]
