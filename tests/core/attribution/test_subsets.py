"""Decoders that are fitted anew to an ROI, or to all but it, against explicit ridge."""

import numpy as np
import pytest

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.attribution import ContributionError, significance
from napari_neuraldiffuser.core.attribution.coordinates import coordinates
from napari_neuraldiffuser.core.attribution.shares import Truth
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams
from tests.core.attribution.test_integrated import Curved
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets, primal_ridge

RANDOM = ["random_mean", "random_sd", "random_z", "random_p"]
COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}
PARAMS = DecodingParams(penalty="group", align="none")


def row_of(table, roi, target):
    return table[(table.roi == roi) & (table.target == target)].iloc[0]


class Problem:
    """A decoder of 25 voxels in three ROIs and what is outside, with test stimuli."""

    def __init__(self, n=40, m=9, noise=2.0):
        self.x, self.y, self.x_test, self.y_test = linear_data(n, 25, m=m, noise=noise)
        self.test = make_betas(self.x_test, 500 + np.arange(m))
        self.decoder = RidgeDecoder(PARAMS).fit(make_betas(self.x), make_targets(self.y))
        self.targets = make_targets(self.y_test, self.test.stimulus_ids)
        self.labels = np.arange(25) % 4
        self.rois = make_rois("regions", self.labels, {1: "A", 2: "B", 3: "C"}, self.test)

    def map(self, method, **params):
        params = ContributionParams(method=method, bootstrap=20, **{"random_sets": 0} | params)
        return attribution.map(self.decoder, self.test, self.rois, self.targets, params)

    def explained(self, mask, part, alpha):
        """Energy that explicit ridge on some voxels explains, and that of the test targets about the training mean."""
        x, x_test = self.x, self.x_test
        mean = self.y[:, part].mean(0)
        weights, offset = primal_ridge(x[:, mask], self.y[:, part], alpha)
        truth = self.y_test[:, part]
        whole = ((truth - mean) ** 2).sum()
        return whole - ((truth - offset - x_test[:, mask] @ weights) ** 2).sum(), whole

    def best(self, mask, part):
        """R² at the penalty that predicts left-out training stimuli best, found by leaving each out."""
        errors = [self._left_out(mask, part, alpha) for alpha in sorted(PARAMS.alphas)]
        alpha = sorted(PARAMS.alphas)[int(np.argmin(errors))]
        energy, whole = self.explained(mask, part, alpha)
        return energy / whole, alpha

    def _left_out(self, mask, part, alpha):
        total = 0.0
        for i in range(len(self.x)):
            kept = np.arange(len(self.x)) != i
            weights, offset = primal_ridge(self.x[kept][:, mask], self.y[kept, part], alpha)
            total += ((self.y[i, part] - offset - self.x[i, mask] @ weights) ** 2).sum()
        return total


@pytest.mark.parametrize("n", [40, 7])
def test_coordinates_keep_every_inner_product(n):
    problem = Problem(n)
    truth = Truth(problem.decoder, problem.test, problem.targets)
    for name, part in COLUMNS.items():
        found = coordinates(problem.decoder, truth, name)
        y, t = problem.y[:, part] - problem.y[:, part].mean(0), problem.y_test[:, part] - problem.y[:, part].mean(0)
        np.testing.assert_allclose(found.train @ found.train.T, y @ y.T, atol=1e-7)
        np.testing.assert_allclose(found.test @ found.train.T, t @ y.T, atol=1e-7)
        np.testing.assert_allclose(found.energies, (t**2).sum(1))
        assert (np.diff((found.train**2).sum(0)) <= 1e-9).all()


def test_each_region_alone_and_left_out_equal_explicit_ridge():
    problem = Problem()
    alone, left, own = problem.map("roi-only"), problem.map("leave-out"), problem.map("unique")
    assert (alone.kind, left.kind, own.kind) == ("roi-only", "lost-without", "lost-without")
    for name, part in COLUMNS.items():
        whole, _ = problem.best(np.ones(25, bool), part)
        for roi, label in (("A", 1), ("C", 3), ("outside regions", 0)):
            mask = problem.labels == label
            one, without = problem.best(mask, part)[0], problem.best(~mask, part)[0]
            rows = [row_of(maps.table, roi, name) for maps in (alone, left, own)]
            np.testing.assert_allclose(rows[0].share, one, atol=1e-7)
            np.testing.assert_allclose([row.share for row in rows[1:]], whole - without, atol=1e-7)
            np.testing.assert_allclose(rows[2].shared, one - (whole - without), atol=1e-7)
            np.testing.assert_allclose([row.total for row in rows], whole, atol=1e-7)
        inside = problem.labels == 1
        np.testing.assert_allclose(alone.voxel_shares[name][inside], row_of(alone.table, "A", name).share)
        assert not alone.voxel_shares[name][problem.labels == 0].any()


def test_more_voxels_than_stimuli():
    problem = Problem(12)
    left = problem.map("leave-out")
    for name, part in COLUMNS.items():
        whole, without = problem.best(np.ones(25, bool), part)[0], problem.best(problem.labels != 2, part)[0]
        row = row_of(left.table, "B", name)
        np.testing.assert_allclose(row.share, whole - without, atol=1e-6)


def test_alone_is_tested_by_dealing_out_the_true_targets():
    problem = Problem(noise=6.0)
    table = problem.map("roi-only", roi_permutations=40).table
    params = ContributionParams(roi_permutations=40)
    orders, truth = [np.arange(9), *significance.orders(9, params)], problem.y_test.copy()
    for name, part in COLUMNS.items():
        mask = problem.labels == 3
        alpha, r2 = problem.best(mask, part)[1], []
        for order in orders:
            problem.y_test = truth[order]
            r2.append(problem.explained(mask, part, alpha)[0])
        problem.y_test = truth
        row = row_of(table, "C", name)
        np.testing.assert_allclose(row.p, (np.array(r2) >= r2[0] - 1e-9).mean())


def test_what_is_lost_is_tested_by_dealing_the_regions_responses_to_other_stimuli():
    problem = Problem(noise=6.0)
    table = problem.map("unique", roi_permutations=15).table
    params = ContributionParams(roi_permutations=15)
    train, test = (np.vstack([np.arange(k), significance.orders(k, params, i)]) for k, i in ((40, 1), (9, 2)))
    mask = problem.labels == 1
    for name, part in COLUMNS.items():
        alpha, energies = problem.best(~mask, part)[1], []
        for rows, places in zip(train, test, strict=True):
            x, x_test = problem.x.copy(), problem.x_test.copy()
            x[:, mask], x_test[:, mask] = x[rows][:, mask], x_test[places][:, mask]
            weights, offset = primal_ridge(x, problem.y[:, part], alpha)
            mean = problem.y[:, part].mean(0)
            decoded = offset + x_test @ weights - mean
            energies.append(((problem.y_test[:, part] - mean) * decoded).sum() / np.linalg.norm(decoded))
        row = row_of(table, "A", name)
        np.testing.assert_allclose(row.p, (np.array(energies) >= energies[0] - 1e-9).mean())
    assert table[table.roi == "outside regions"].p.isna().all()


def test_random_sets_have_the_regions_size():
    problem = Problem()
    table = problem.map("roi-only", random_sets=12).table
    rng = np.random.default_rng([0, 2, 6])
    masks = [np.isin(np.arange(25), rng.choice(25, 6, replace=False)) for _ in range(12)]
    for name, part in COLUMNS.items():
        r2 = np.array([problem.best(mask, part)[0] for mask in masks])
        row = row_of(table, "B", name)
        z, p = (row.share - r2.mean()) / r2.std(ddof=1), (1 + (r2 >= row.share).sum()) / 13
        np.testing.assert_allclose(row[RANDOM].astype(float), [r2.mean(), r2.std(ddof=1), z, p], atol=1e-6)
    assert table[table.roi == "outside regions"].random_p.isna().all()


def test_an_empty_region_and_a_target_that_does_not_vary():
    problem = Problem()
    problem.y[:, COLUMNS["c"]] = 1.0
    problem.decoder = RidgeDecoder(PARAMS).fit(make_betas(problem.x), make_targets(problem.y))
    problem.rois = make_rois("regions", problem.labels, {1: "A", 9: "none"}, problem.test)
    table = problem.map("unique", roi_permutations=5, random_sets=3).table.set_index(["target", "roi"])
    assert table.loc[("z", "none"), "share"] == 0 and np.isnan(table.loc[("z", "none"), "p"])
    assert table.loc["c", ["share", "se"]].isna().all(axis=None)
    assert table.loc[("z", "A"), "p"] > 0


@pytest.mark.parametrize("method", ["roi-only", "leave-out", "unique"])
def test_what_cannot_be_fitted_anew_is_refused(method):
    problem = Problem()
    with pytest.raises(ContributionError, match=f"targets must be there for {method}"):
        attribution.map(problem.decoder, problem.test, problem.rois, params=ContributionParams(method=method))
    reduced = RidgeDecoder(PARAMS.but(ridge_rank=3)).fit(make_betas(problem.x), make_targets(problem.y))
    for decoder in (reduced, Curved(25, 0.1)):
        with pytest.raises(ContributionError, match="must be ridge with all its training data"):
            attribution.map(decoder, problem.test, problem.rois, problem.targets, ContributionParams(method=method))
