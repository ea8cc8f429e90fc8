"""p values of regions against scipy, and against maps that are computed anew for every order of the stimuli."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, kstest

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.attribution import significance
from napari_neuraldiffuser.core.attribution.significance import Null
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.params import ContributionParams
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets

COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}


def test_false_discovery_equals_scipy():
    rng = np.random.default_rng(0)
    for k in (1, 2, 7, 30):
        p = np.round(rng.random(k) ** 2, 2)  # with ties
        np.testing.assert_allclose(significance.false_discovery(p), false_discovery_control(p))


def test_largest_statistic_is_of_regions_in_their_own_spread():
    rng = np.random.default_rng(1)
    scale = np.array([1.0, 100.0, 5.0, 0.0])
    every = rng.standard_normal((200, 4)) * scale
    every[0] = [3.5, 150.0, 40.0, 0.0]
    found = significance.p_values(Null(every[0], every[1:]), np.array([True, True, False, True]))
    z = (every - every.mean(0))[:, :3] / every[:, :3].std(0)
    np.testing.assert_allclose(found["p"][:3], [(z[:, k] >= z[0, k]).mean() for k in range(3)])
    largest = z[1:, :2].max(1)  # the third is no region
    for k in (0, 1):
        np.testing.assert_allclose(found["p_max"][k], (1 + (largest >= z[0, k]).sum()) / 200)
    assert np.isnan(found["p"][3]) and np.isnan(found["p_max"][2:]).all() and np.isnan(found["p_fdr"][2:]).all()


def test_p_of_noise_is_uniform():
    """Agreements of independent targets and predictions, whose p must be as small as any level that often."""
    rng = np.random.default_rng(2)
    params = ContributionParams(roi_permutations=99)
    found = []
    for _ in range(400):
        y, predicted = rng.standard_normal((2, 12, 3))
        null = significance.of_labels([y @ predicted.T], significance.orders(12, params))
        found.append(significance.p_values(null, np.array([True]))["p"][0])
    assert kstest(found, "uniform").pvalue > 0.01


def test_the_null_of_the_additive_split_is_that_of_targets_dealt_out_anew():
    x, y, x_test, y_test = linear_data(40, 25, m=8, noise=4.0)
    test = make_betas(x_test, 500 + np.arange(8))
    decoder = RidgeDecoder().fit(make_betas(x), make_targets(y))
    rois = make_rois("regions", np.arange(25) % 4, {1: "A", 2: "B", 3: "C"}, test)
    params = ContributionParams(method="additive", roi_permutations=30)

    def shares(order, params):
        return attribution.map(decoder, test, rois, make_targets(y_test[order], test.stimulus_ids), params).table

    table = shares(slice(None), params)
    plain = params.but(roi_permutations=0, bootstrap=2)
    dealt = [shares(order, plain).share for order in significance.orders(8, params)]
    expected = (1 + (np.array(dealt) >= table.share.to_numpy() - 1e-12).sum(0)) / 31
    np.testing.assert_allclose(table.p, expected)
    assert table.p.nunique() > 3 and list(table.columns[-3:]) == ["p", "p_fdr", "p_max"]


@pytest.mark.parametrize("known", [True, False])
def test_no_p_without_permutations_or_true_targets(known):
    x, y, x_test, y_test = linear_data(20, 25)
    test = make_betas(x_test, 500 + np.arange(9))
    decoder = RidgeDecoder().fit(make_betas(x), make_targets(y))
    rois = make_rois("regions", np.arange(25) % 4, {1: "A"}, test)
    for method in ("additive", "haufe"):
        params = ContributionParams(method=method, roi_permutations=0 if known else 5)
        targets = make_targets(y_test, test.stimulus_ids) if known else None
        assert "p" not in attribution.map(decoder, test, rois, targets, params).table
