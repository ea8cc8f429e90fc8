"""Forward patterns against explicit covariances."""

import numpy as np
import pytest

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.attribution import ContributionError, significance
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.params import ContributionParams
from tests.core.attribution.test_integrated import Curved
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets, primal_ridge

COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}


def problem(m=30):
    x, y, x_test, y_test = linear_data(40, 25, m=m)
    test = make_betas(x_test, 500 + np.arange(m))
    rois = make_rois("regions", np.arange(25) % 4, {1: "A", 2: "B", 3: "C"}, test)
    return x, y, x_test, y_test, test, rois, RidgeDecoder().fit(make_betas(x), make_targets(y))


def test_energies_are_squared_covariances():
    x, y, x_test, _, test, rois, decoder = problem()
    maps = attribution.map(decoder, test, rois, params=ContributionParams(method="haufe"))
    assert maps.kind == "pattern-energy"
    for name, part in COLUMNS.items():
        weights, _ = primal_ridge(x, y[:, part], decoder.accuracy[name].chosen)
        predicted = x_test @ weights
        covariance = np.cov(x_test.T, predicted.T)[:25, 25:]
        energy = (covariance**2).sum(1)
        np.testing.assert_allclose(maps.voxel_shares[name], energy / energy.sum(), rtol=1e-6)
        rows = maps.table[maps.table.target == name]
        np.testing.assert_allclose(rows.share.sum(), 1.0)
        np.testing.assert_allclose(rows.share.iloc[0], maps.voxel_shares[name][np.arange(25) % 4 == 1].sum())


def test_p_is_of_covariance_with_true_targets_dealt_out_anew():
    _, _, x_test, y_test, test, rois, decoder = problem(m=8)
    params = ContributionParams(method="haufe", roi_permutations=25)
    table = attribution.map(decoder, test, rois, make_targets(y_test, test.stimulus_ids), params).table
    orders = [np.arange(8), *significance.orders(8, params)]
    for name, part in COLUMNS.items():
        own = x_test[:, np.arange(25) % 4 == 2]
        energies = [
            (np.cov(own.T, y_test[order, part].T)[: own.shape[1], own.shape[1] :] ** 2).sum() for order in orders
        ]
        row = table[(table.target == name) & (table.roi == "B")].iloc[0]
        np.testing.assert_allclose(row.p, (np.array(energies) >= energies[0] - 1e-12).mean())


def test_error_bars_are_the_spread_over_new_stimuli():
    x, y, x_test, _, test, rois, decoder = problem(m=60 * 60)
    shares, errors = [], []
    for start in range(0, 60 * 60, 60):
        one = make_betas(x_test[start : start + 60])
        table = attribution.map(decoder, one, rois, params=ContributionParams(method="haufe")).table
        shares.append(table.share[table.target == "z"])
        errors.append(table.se[table.target == "z"])
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(shares, axis=0, ddof=1), rtol=0.35)


def test_a_decoder_that_is_not_linear_and_what_does_not_vary():
    *_, test, rois, decoder = problem()
    with pytest.raises(ContributionError, match="must be linear for forward patterns"):
        attribution.map(Curved(25, 0.1), test, rois, params=ContributionParams(method="haufe"))
    one = make_betas(test.data[:1])
    table = attribution.map(decoder, one, rois, params=ContributionParams(method="haufe")).table
    assert table.share.isna().all()
