"""Contribution maps against explicit weights, himalaya, and a simulation whose truth is known."""

import warnings

import nibabel
import numpy as np
import pandas as pd
import pytest

from napari_neuraldiffuser.core import attribution as contribution
from napari_neuraldiffuser.core.attribution import ContributionError
from napari_neuraldiffuser.core.attribution import maps as contribution_maps
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams
from tests.support.stand_ins import (
    AFFINE,
    SHAPE,
    linear_data,
    make_betas,
    make_rois,
    make_targets,
    primal_ridge,
    without_c,
)

COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}


class Problem:
    """A fitted decoder, test betas and targets, ROIs of three voxels in four, and explicit weights."""

    def __init__(self, n=40, p=25, dtype=np.float64, noise=1.0):
        x, self.y, x_test, self.y_test = linear_data(n, p, noise=noise)
        self.x, self.x_test = x.astype(dtype).astype(float), x_test.astype(dtype).astype(float)
        self.train = make_betas(x.astype(dtype))
        self.test = make_betas(x_test.astype(dtype), 500 + np.arange(len(x_test)))
        # alignment is on: contribution maps must split the prediction before it
        self.decoder = RidgeDecoder(DecodingParams(align="train")).fit(self.train, make_targets(self.y))
        self.targets = make_targets(self.y_test, self.test.stimulus_ids)
        self.labels = np.arange(p) % 4
        self.rois = make_rois("prf-visualrois", self.labels, {1: "V1v", 2: "V1d", 3: "V2v"}, self.test)

    def map(self, known=True, rois=None, **params):
        targets = self.targets if known else None
        params = ContributionParams(**params)
        return contribution.map(self.decoder, self.test, rois or self.rois, targets, params)

    def explicit(self, name):
        """Centred test betas, weights, and true and predicted deviations from the training mean."""
        weights, _ = primal_ridge(self.x, self.y[:, COLUMNS[name]], self.decoder.accuracy[name].chosen)
        x = self.x_test - self.x.mean(0)
        return x, weights, self.y_test[:, COLUMNS[name]] - self.y[:, COLUMNS[name]].mean(0), x @ weights


def test_images_without_captions_have_no_shares_of_c():
    problem = Problem()
    whole = problem.map()
    problem.targets = without_c(problem.targets)
    maps = problem.map()
    assert maps.mapped == ["z", "g02"] and maps.table[maps.table.target == "c"].share.isna().all()
    for name in maps.mapped:
        np.testing.assert_array_equal(maps.voxel_shares[name], whole.voxel_shares[name])
    problem.targets.attrs.clear()
    with pytest.raises(ContributionError, match=r"got none of \['c'\]"):
        problem.map()


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60), (12, 1), (15, 14)])
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_shares_sum_to_r2(n, p, dtype, rtol):
    problem = Problem(n, p, dtype)
    maps = problem.map()
    assert maps.kind == "product-measure"
    unaligned = problem.decoder.predict(problem.test, align="none")
    for name in COLUMNS:
        y, mean = problem.y_test[:, COLUMNS[name]], problem.y[:, COLUMNS[name]].mean(0)
        r2 = 1 - ((y - unaligned[name].reshape(y.shape)) ** 2).sum() / ((y - mean) ** 2).sum()
        np.testing.assert_allclose(maps.totals[name], r2, rtol=1e-4, atol=1e-5)  # predict() rounds to float32
        np.testing.assert_allclose(maps.voxel_shares[name].sum(), maps.totals[name], rtol=rtol)
        rows = maps.table[maps.table.target == name]
        np.testing.assert_allclose(rows.share.sum(), maps.totals[name], rtol=rtol)
        assert (rows.total == maps.totals[name]).all()


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60)])
def test_product_measure_equals_explicit_weights(n, p):
    problem = Problem(n, p)
    maps = problem.map()
    for name in COLUMNS:
        x, weights, y, predicted = problem.explicit(name)
        expected = (x * ((2 * y - predicted) @ weights.T)).sum(0) / (y**2).sum()
        np.testing.assert_allclose(maps.voxel_shares[name], expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60)])
def test_new_scan_equals_explicit_weights_and_sums_to_one(n, p):
    problem = Problem(n, p)
    maps = problem.map(known=False)
    assert maps.kind == "prediction-share" and set(maps.table.kind) == {"prediction-share"}
    for name in COLUMNS:
        x, weights, _, predicted = problem.explicit(name)
        expected = x * (predicted @ weights.T) / (predicted**2).sum(1, keepdims=True)
        np.testing.assert_allclose(maps.voxel_shares[name], expected.mean(0), rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(maps.per_stimulus[name].sum(1), 1.0, rtol=1e-10)
        assert maps.totals[name] == 1.0


def test_a_single_new_scan_has_a_map_and_no_error_bar():
    problem = Problem()
    one = make_betas(problem.test.data[2:3], [502])
    maps = contribution.map(problem.decoder, one, problem.rois)
    whole = problem.map(known=False)
    for name in COLUMNS:
        np.testing.assert_allclose(maps.per_stimulus[name][0], whole.per_stimulus[name][2], rtol=1e-10)
        np.testing.assert_allclose(maps.voxel_shares[name].sum(), 1.0, rtol=1e-10)
    assert maps.table.se.isna().all()


def test_roi_split_equals_himalaya_r2_score_split():
    from himalaya.scoring import r2_score_split

    problem = Problem()
    maps = problem.map()
    for name in COLUMNS:
        x, weights, y, _ = problem.explicit(name)
        parts = np.stack([x[:, problem.labels == k] @ weights[problem.labels == k] for k in (1, 2, 3, 0)])
        with warnings.catch_warnings():
            # himalaya wants a zero test mean; ours is the training mean, and its formula is the same
            warnings.simplefilter("ignore", UserWarning)
            per_column = np.asarray(r2_score_split(y, parts))
        # himalaya scores every column; weighting by the columns' energy pools them
        energy = (y**2).sum(0)
        expected = (per_column * energy).sum(1) / energy.sum()
        rows = maps.table[maps.table.target == name]
        assert list(rows.roi) == ["V1v", "V1d", "V2v", "outside prf-visualrois"]
        np.testing.assert_allclose(rows.share, expected, rtol=1e-7)


def simulation(n=400, m=300, per_roi=10, seed=0):
    """ROIs A signal + shared noise, B that noise only, C the signal again, D unrelated noise."""
    rng = np.random.default_rng(seed)
    signal, noise = rng.standard_normal((2, n + m, 3))
    mix = rng.standard_normal((4, 3, per_roi))
    own = 0.3 * rng.standard_normal((3, n + m, per_roi))
    a = signal @ mix[0] + noise @ mix[1] + own[0]
    b, c, d = noise @ mix[2] + own[1], signal @ mix[3] + 2 * own[2], rng.standard_normal((n + m, per_roi))
    x = np.concatenate([a, b, c, d], axis=1)
    y = signal @ rng.standard_normal((3, 22)) + rng.standard_normal((n + m, 22))
    return x, y


def test_noise_suppressors_have_weights_but_no_share():
    x, y = simulation()
    train, test = make_betas(x[:400]), make_betas(x[400:])
    decoder = RidgeDecoder().fit(train, make_targets(y[:400]))
    rois = make_rois("regions", np.repeat([1, 2, 3, 4], 10), dict(enumerate("ABCD", 1)), test)
    table = contribution.map(decoder, test, rois, make_targets(y[400:])).table
    weights, _ = primal_ridge(x[:400], y[:400], decoder.accuracy["c"].chosen)
    energy = (weights**2).reshape(4, 10, -1).sum((1, 2))
    assert energy[1] / energy.sum() > 0.05  # raw weights mislead ...
    for name in COLUMNS:
        share = table[table.target == name].set_index("roi").share
        assert abs(share["B"]) < 0.02 and abs(share["D"]) < 0.03  # ... and the product measure does not
        assert share["A"] > 0.1 and share["C"] > 0.1


def test_error_bars_are_the_spread_over_new_stimuli():
    x, y = simulation(n=200, m=160 * 60)
    decoder = RidgeDecoder().fit(make_betas(x[:200]), make_targets(y[:200]))
    decoder_rois = make_rois("regions", np.repeat([1, 2, 3, 4], 10), dict(enumerate("ABCD", 1)), make_betas(x[:1]))
    shares, errors = [], []
    for start in range(200, 200 + 160 * 60, 60):
        part = slice(start, start + 60)
        table = contribution.map(decoder, make_betas(x[part]), decoder_rois, make_targets(y[part])).table
        shares.append(table.share[table.target == "z"])
        errors.append(table.se[table.target == "z"])
    # known to 6 % from 160 sets of stimuli
    observed = np.std(shares, axis=0, ddof=1)
    np.testing.assert_allclose(np.mean(errors, axis=0)[:4], observed[:4], rtol=0.2)


def test_bootstrap_is_a_ratio_of_resampled_sums():
    rng = np.random.default_rng(1)
    numerators, denominators = rng.standard_normal((11, 3)), rng.random(11) + 0.5
    params = ContributionParams(bootstrap=4000, seed=3)
    ratio, se = contribution_maps.ratio_and_se(numerators, denominators, params)
    draws = np.random.default_rng(9).integers(0, 11, (4000, 11))
    reference = numerators[draws].sum(1) / denominators[draws].sum(1)[:, None]
    np.testing.assert_allclose(ratio, numerators.sum(0) / denominators.sum())
    np.testing.assert_allclose(se, reference.std(0), rtol=0.06)


def test_families_may_overlap_and_each_sums_to_the_total():
    problem = Problem()
    faces = make_rois("floc-faces", np.arange(25) % 3, {1: "FFA-1", 2: "mTL"}, problem.test)
    words = make_rois("floc-words", (np.arange(25) < 9).astype(int), {1: "mTL"}, problem.test)
    maps = problem.map(rois=[problem.rois, faces, words])
    for (_, target), rows in maps.table.groupby(["family", "target"]):
        np.testing.assert_allclose(rows.share.sum(), maps.totals[target], rtol=1e-10)
        assert rows.n_voxels.sum() == 25
    row = maps.table.query("roi == 'mTL' and family == 'floc-words' and target == 'c'").iloc[0]
    np.testing.assert_allclose(row.share, maps.voxel_shares["c"][:9].sum(), rtol=1e-9)
    with pytest.raises(ContributionError, match="'mTL' in 2 families"):
        maps.combined(["mTL"], "c")
    np.testing.assert_allclose(maps.combined(["mTL"], "c", "floc-words"), (row.share, row.se), rtol=1e-10)


def test_combined_rois_add_up_and_have_their_own_error():
    maps = Problem().map()
    rows = maps.table[maps.table.target == "z"].set_index("roi")
    share, se = maps.combined(["V1v", "V1d"], "z")
    np.testing.assert_allclose(share, rows.share["V1v"] + rows.share["V1d"], rtol=1e-10)
    assert 0 < se != pytest.approx(rows.se["V1v"] + rows.se["V1d"])
    with pytest.raises(ContributionError, match="'V9' in 0 families"):
        maps.combined(["V9"], "z")


def test_roi_without_voxels_has_share_zero():
    problem = Problem()
    rois = make_rois("prf-visualrois", np.ones(25, int), {1: "V1v", 7: "hV4"}, problem.test)
    rows = problem.map(rois=rois).table.set_index(["target", "roi"]).loc["g02"]
    assert rows.loc["hV4", ["share", "se", "n_voxels"]].tolist() == [0, 0, 0]
    assert rows.loc["outside prf-visualrois", "n_voxels"] == 0
    assert rows.loc["V1v", "n_voxels"] == 25


def test_files_are_named_and_placed_as_designed(tmp_path):
    maps = Problem(dtype=np.float32).map()
    paths = maps.save(tmp_path / "sub-01", "sub-01")
    images = [f"sub-01_space-func1pt8mm_target-{name}_contribution.nii.gz" for name in COLUMNS]
    assert [p.name for p in paths] == [*images, "sub-01_contribution.tsv"]
    assert sorted(p.name for p in (tmp_path / "sub-01").iterdir()) == sorted(p.name for p in paths)
    voxels = Problem().test.voxels
    for name, path in zip(COLUMNS, paths[:3], strict=True):
        image = nibabel.load(path)
        assert image.shape == SHAPE and image.get_data_dtype() == np.float32
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(image.affine, AFFINE.astype(np.float32))
        data = image.get_fdata()
        np.testing.assert_allclose(data[tuple(voxels.T)], maps.voxel_shares[name], rtol=1e-6)
        assert np.count_nonzero(data) == len(voxels)
    table = pd.read_csv(paths[-1], sep="\t")
    assert list(table.columns[:5]) == ["roi", "target", "share", "se", "n_voxels"]
    pd.testing.assert_frame_equal(table, maps.table, check_exact=False, check_dtype=False)


def test_same_seed_same_table_and_progress():
    problem = Problem()
    pd.testing.assert_frame_equal(problem.map(seed=2).table, problem.map(seed=2).table)
    assert not problem.map(seed=2).table.se.equals(problem.map(seed=3).table.se)
    calls = []
    contribution.map(problem.decoder, problem.test, problem.rois, progress=lambda *a: calls.append(a))
    assert calls == [(k, 3, f"contribution {name}") for k, name in enumerate(COLUMNS, 1)]


def test_loaded_decoder_gives_the_same_maps(tmp_path):
    problem = Problem()
    before = problem.map().table
    problem.decoder.save(tmp_path / "decoder.h5")
    problem.decoder = RidgeDecoder.load(tmp_path / "decoder.h5")
    pd.testing.assert_frame_equal(problem.map().table, before)


def test_targets_that_do_not_fit_are_refused():
    problem = Problem()

    def refused(targets, message, error=ContributionError):
        with pytest.raises(error, match=message):
            contribution.map(problem.decoder, problem.test, problem.rois, targets)

    ids = problem.test.stimulus_ids
    refused(make_targets(problem.y_test, ids, layers=("g04",)), r"none of \['g02'\]")
    refused(make_targets(problem.y_test, ids + 1000), "stimuli in common")
    refused(make_targets(problem.y_test[1:], ids[1:]), "none for stimulus 500", DecodingError)
    wide = np.concatenate([problem.y_test, problem.y_test[:, :2]], axis=1)
    refused(make_targets(wide, ids), r"decoder's shape \(1, 8\), got \(1, 10\)")
    broken = problem.y_test.copy()
    broken[0, 9] = np.nan
    refused(make_targets(broken, ids), r"targets\['c'\] must be finite")


def test_betas_that_do_not_fit_are_refused():
    problem = Problem()
    bad = problem.test.data.copy()
    bad[1, 3] = np.nan
    with pytest.raises(DecodingError, match="first in column 3"):
        contribution.map(problem.decoder, make_betas(bad), problem.rois)
    with pytest.raises(DecodingError, match="25 voxels, got 24"):
        contribution.map(problem.decoder, make_betas(problem.test.data[:, :24]), problem.rois)


def assert_undefined(maps, name):
    """No share, no error, no total and no map, whatever the region; also not for several regions together."""
    rows = maps.table[maps.table.target == name]
    assert len(rows) == 4 and rows[["share", "se", "total"]].isna().all(axis=None) and (rows.n_voxels > 0).all()
    assert name not in maps.volumes and np.isnan(maps.totals[name]) and np.isnan(maps.voxel_shares[name]).all()
    assert np.isnan(maps.combined(["V1v", "V1d"], name)).all()


@pytest.mark.parametrize("rounding", [0.0, 2.0**-11])
def test_true_targets_that_do_not_vary_have_no_share_and_the_others_are_as_before(rounding, tmp_path):
    """They are the training mean in every test stimulus, but for the rounding of half precision."""
    problem, before = Problem(), Problem().map()
    y, noise = problem.y_test.copy(), np.random.default_rng(0).uniform(-1, 1, problem.y_test.shape)
    y[:, COLUMNS["c"]] = (problem.y.mean(0) * (1 + rounding * noise))[:, COLUMNS["c"]]
    problem.targets = make_targets(y, problem.test.stimulus_ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = problem.map()
    assert_undefined(maps, "c")
    for name in ("z", "g02"):
        np.testing.assert_array_equal(maps.voxel_shares[name], before.voxel_shares[name])
    paths = maps.save(tmp_path, "sub-01")
    assert [path.name.split("target-")[1][:3] for path in paths[:-1]] == ["z_c", "g02"]
    text = paths[-1].read_text().splitlines()
    assert [line for line in text if "\tc\t" in line][0].split("\t")[2:4] == ["n/a", "n/a"]


@pytest.mark.parametrize("known", [True, False])
def test_training_targets_that_do_not_vary(known):
    """Of the prediction, their mean, there is no share; of true test values that vary, it explains nothing."""
    problem = Problem()
    problem.y[:, COLUMNS["c"]] = problem.y[0, COLUMNS["c"]]
    problem.decoder = RidgeDecoder(DecodingParams(align="train")).fit(problem.train, make_targets(problem.y))
    assert problem.decoder.accuracy["c"].constant and not problem.decoder.accuracy["z"].constant
    maps = problem.map(known)
    if known:
        np.testing.assert_allclose(maps.voxel_shares["c"], 0, atol=1e-9)
        assert abs(maps.totals["c"]) < 1e-9 and "c" in maps.volumes
    else:
        assert_undefined(maps, "c")
    assert np.isfinite(maps.totals["z"])


def test_a_stimulus_that_is_predicted_to_be_the_mean_counts_nowhere():
    problem = Problem()
    whole = contribution.map(problem.decoder, problem.test, problem.rois)
    rows = np.vstack([problem.test.data, problem.decoder.beta_mean])
    more = contribution.map(problem.decoder, make_betas(rows), problem.rois)
    for name in COLUMNS:
        np.testing.assert_allclose(more.voxel_shares[name], whole.voxel_shares[name], rtol=1e-9)
    alone = contribution.map(problem.decoder, make_betas(problem.decoder.beta_mean[None]), problem.rois)
    for name in COLUMNS:
        assert_undefined(alone, name)


def test_one_stimulus_has_shares_without_an_error():
    problem = Problem()
    one = make_betas(problem.test.data[:1], problem.test.stimulus_ids[:1])
    maps = contribution.map(problem.decoder, one, problem.rois, problem.targets)
    assert maps.table.se.isna().all() and maps.table.share.notna().all() and set(maps.volumes) == set(COLUMNS)


class FreeRois:
    """A family whose masks are given."""

    def __init__(self, name, masks):
        self.name, self.masks = name, masks

    def of(self, betas):
        return self.masks


def test_rois_that_do_not_fit_are_refused():
    problem = Problem()
    half = np.arange(25) < 13
    for rois, message in (
        ([], "at least one family"),
        ([problem.rois, problem.rois], "'prf-visualrois' twice"),
        (FreeRois("own", {"a": half, "b": half}), "13 shared voxels"),
        (FreeRois("own", {"a": half[:4]}), r"per voxel \(25\), got shape \(4,\)"),
    ):
        with pytest.raises(ContributionError, match=message):
            contribution.map(problem.decoder, problem.test, rois)


def test_a_family_without_labels_is_all_outside():
    problem = Problem()
    table = problem.map(rois=FreeRois("none", {})).table
    assert set(table.roi) == {"outside none"} and (table.n_voxels == 25).all()
