"""What the voxels of a region alone decode, against scikit-learn's ridge on these voxels."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.decoding.worth import REGION_COLUMNS, Voxels, by_region
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets, primal_ridge

SLICES = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3)
NAMES = {1: "V1", 2: "V2", 3: "V3", 9: "empty"}
LABELS = np.repeat([1, 2, 0, 3], [6, 6, 5, 40])


def problem(n=50, m=40):
    """Targets depend on V1 alone; V3 has about as many voxels as there are stimuli, all noise."""
    rng = np.random.default_rng(12)
    _, y, _, y_test = linear_data(n, 6, m=m, noise=0.0, seed=3)
    x, _, x_test, _ = linear_data(n, 6, m=m, noise=0.0, seed=3)
    noise, test_noise = rng.standard_normal((n, 51)), rng.standard_normal((m, 51))
    train = make_betas(np.hstack([x + 0.2 * rng.standard_normal(x.shape), noise]))
    test = make_betas(np.hstack([x_test + 0.2 * rng.standard_normal(x_test.shape), test_noise]), 1000 + np.arange(m))
    families = [make_rois("prf", LABELS, NAMES, train)]
    return Voxels(train, test, make_targets(y), make_targets(y_test, test.stimulus_ids), families), (y, y_test)


@pytest.mark.parametrize("n", [30, 50, 120], ids=["more voxels than stimuli", "about as many", "fewer voxels"])
def test_figures_are_those_of_sklearns_ridge_on_the_voxels(n):
    voxels, (y, y_test) = problem(n)
    table = by_region(voxels, DecodingParams(alphas=ALPHAS)).table.set_index(["roi", "target"])
    assert list(table.reset_index().columns.sort_values()) == sorted(REGION_COLUMNS)
    for roi, mask in {"all voxels": LABELS >= 0, "V1": LABELS == 1, "V3": LABELS == 3}.items():
        x, x_test = voxels.train.data[:, mask], voxels.test.data[:, mask]
        for name, columns in SLICES.items():
            truth, mean, row = y_test[:, columns], y[:, columns].mean(0), table.loc[roi, name]
            model = Ridge(row["penalty"]).fit(x, y[:, columns])
            decoded = model.predict(x_test)
            r2 = 1 - ((truth - decoded) ** 2).sum() / ((truth - mean) ** 2).sum()
            assert row["r2"] == pytest.approx(r2, abs=1e-6)
            own = [np.corrcoef(a, b)[0, 1] for a, b in zip(truth - mean, decoded - mean, strict=True)]
            assert row["pattern_r"] == pytest.approx(np.mean(own), abs=1e-6)
            assert row["pattern_r_se"] == pytest.approx(np.std(own, ddof=1) / np.sqrt(len(own)), abs=1e-6)
            assert row["penalty"] == left_out_choice(x, y[:, columns])
            assert (row["n_voxels"], row["n_columns"], row["n_test"]) == (mask.sum(), truth.shape[1], 40)


def left_out_choice(x, y):
    """The penalty with the least energy of left-out residuals, by refitting without each stimulus."""
    energies = np.zeros(len(ALPHAS))
    for k in range(len(x)):
        fits = [primal_ridge(np.delete(x, k, 0), np.delete(y, k, 0), alpha) for alpha in ALPHAS]
        energies += [np.square(y[k] - x[k] @ weights - intercept).sum() for weights, intercept in fits]
    return ALPHAS[int(np.argmin(energies))]


def test_one_penalty_tried_gives_the_figures_of_ridge_cv():
    voxels, (y, y_test) = problem(120)
    table = by_region(voxels, DecodingParams(alphas=ALPHAS)).table.set_index(["roi", "target"])
    model = RidgeCV(ALPHAS, scoring="neg_mean_squared_error").fit(voxels.train.data[:, LABELS == 1], y[:, :8])
    decoded = model.predict(voxels.test.data[:, LABELS == 1])
    r2 = 1 - ((y_test[:, :8] - decoded) ** 2).sum() / ((y_test[:, :8] - y[:, :8].mean(0)) ** 2).sum()
    assert table.loc[("V1", "z"), "penalty"] == model.alpha_
    assert table.loc[("V1", "z"), "r2"] == pytest.approx(r2, abs=1e-6)


def test_a_region_that_says_nothing_is_at_chance_and_one_without_voxels_has_no_figures():
    voxels, _ = problem(120)
    found = by_region(voxels, DecodingParams(alphas=(*ALPHAS, 1e5)))
    table = found.table.set_index(["roi", "target"])
    for name in SLICES:
        assert table.loc[("V1", name), "r2"] > 0.8
        for roi in ("V2", "V3"):
            assert table.loc[(roi, name), "r2"] < 0.05
            assert abs(table.loc[(roi, name), "pattern_r"]) < 4 * table.loc[(roi, name), "pattern_r_se"]
        empty = table.loc[("empty", name)]
        assert empty["n_voxels"] == 0 and np.isnan(empty["r2"]) and np.isnan(empty["penalty"])


def test_a_voxel_has_the_value_of_the_best_region_that_it_lies_in():
    voxels, _ = problem(60)
    other = make_rois("floc", np.where(np.arange(57) < 12, 1, 0), {1: "both"}, voxels.train)
    voxels = Voxels(voxels.train, voxels.test, voxels.train_targets, voxels.test_targets, [*voxels.families, other])
    found = by_region(voxels, DecodingParams(alphas=ALPHAS))
    r2 = found.table.set_index(["target", "roi"])["r2"]
    for target in SLICES:
        best = found.best[target]
        assert (best[LABELS == 0] == 0).all() and (best[LABELS == 3] == r2[target, "V3"]).all()
        assert (best[LABELS == 1] == max(r2[target, "V1"], r2[target, "both"])).all()
        assert (best[LABELS == 2] == max(r2[target, "V2"], r2[target, "both"])).all()


def test_repeats_of_an_image_are_left_out_together_and_a_known_decomposition_changes_nothing():
    voxels, _ = problem(60)
    train = make_betas(voxels.train.data.astype(np.float32), np.repeat(np.arange(30), 2))
    voxels = Voxels(train, voxels.test, voxels.train_targets, voxels.test_targets, voxels.families)
    fitted = RidgeDecoder(DecodingParams(alphas=ALPHAS)).fit(train, voxels.train_targets)
    first = by_region(voxels, fitted.params)
    lent = Voxels(train, voxels.test, voxels.train_targets, voxels.test_targets, voxels.families, fitted.spectrum)
    second = by_region(lent, fitted.params)
    whole = first.table[first.table["roi"] == "all voxels"].set_index("target")
    assert whole["penalty"].to_dict() == {name: fitted.accuracy[name].chosen for name in SLICES}
    np.testing.assert_allclose(first.table["r2"].dropna(), second.table["r2"].dropna(), atol=1e-6)


def test_a_constant_target_has_no_value():
    voxels, (y, _) = problem(60)
    y[:, 8:14] = 2.5
    voxels = Voxels(voxels.train, voxels.test, make_targets(y), voxels.test_targets, voxels.families)
    found = by_region(voxels)
    assert found.table.set_index("target").loc["c", "r2"].isna().all() and set(found.best) == {"z", "g02"}


def test_what_cannot_be_judged_is_refused_and_work_can_be_stopped():
    voxels, _ = problem(40)
    other = make_betas(voxels.test.data[:, :-1], voxels.test.stimulus_ids)
    with pytest.raises(DecodingError, match="must have the 57 voxels"):
        by_region(Voxels(voxels.train, other, voxels.train_targets, voxels.test_targets))
    strangers = make_betas(voxels.test.data, 5000 + np.arange(40))
    with pytest.raises(DecodingError, match="stimulus 5000"):
        by_region(Voxels(voxels.train, strangers, voxels.train_targets, voxels.test_targets))
    told = []

    def stop(done, total, what):
        told.append((done, total, what))
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        by_region(voxels, progress=stop)
    assert told[1] == (1, 5, "accuracy of V1")


def test_the_table_is_written_with_na_where_there_is_no_value(tmp_path):
    voxels, _ = problem(40)
    path = by_region(voxels).save(tmp_path / "sub-01_desc-regions_scores.tsv")
    lines = path.read_text().splitlines()
    assert lines[0].split("\t") == list(REGION_COLUMNS)
    assert any(line.startswith("empty\tz\tn/a") for line in lines)
