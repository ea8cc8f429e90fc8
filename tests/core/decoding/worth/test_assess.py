"""The table of what decoded values are worth: of ridge decoders whose truth is known, by independent computation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.decoding.worth import COLUMNS, WorthParts, assess
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets, without_c

SLICES = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}


def problem(n=60, p=20, m=30, noise=1.0, shuffle=False, **fit):
    x, y, x_test, y_test = linear_data(n, p, m=m, noise=noise)
    if shuffle:
        y = np.random.default_rng(9).permutation(y)
    train, test = make_betas(x), make_betas(x_test, 1000 + np.arange(m))
    decoder = RidgeDecoder(DecodingParams(**fit)).fit(train, make_targets(y))
    return WorthParts(decoder, test, make_targets(y_test, test.stimulus_ids)), (x, y, x_test, y_test)


def test_figures_are_those_of_sklearns_ridge():
    parts, (x, y, x_test, y_test) = problem()
    table = assess(parts).table.set_index("target")
    assert list(table.index) == ["z", "c", "g02"] and list(table.reset_index().columns) == list(COLUMNS)
    for name, columns in SLICES.items():
        model = Ridge(alpha=parts.decoder.accuracy[name].chosen).fit(x, y[:, columns])
        truth, decoded, mean = y_test[:, columns], model.predict(x_test), y[:, columns].mean(0)
        row = table.loc[name]
        r = np.mean([np.corrcoef(truth[:, j], decoded[:, j])[0, 1] for j in range(truth.shape[1])])
        assert row["r"] == pytest.approx(r, rel=1e-6)
        assert row["r2"] == pytest.approx(1 - ((truth - decoded) ** 2).sum() / ((truth - mean) ** 2).sum(), rel=1e-6)
        agreement = np.corrcoef(truth - mean, decoded - mean)[:30, 30:]
        assert row["pattern_r"] == pytest.approx(np.diag(agreement).mean(), rel=1e-6)
        told = [(agreement[:, j] < agreement[j, j]).sum() / 29 for j in range(30)]
        assert row["two_way"] == pytest.approx(np.mean(told)) and row["two_way_p"] < 0.01
        assert row["mse_decoded"] == pytest.approx(((truth - decoded) ** 2).mean(), rel=1e-6)
        assert row["mse_mean"] == pytest.approx(((truth - mean) ** 2).mean(), rel=1e-6)
        # more stimuli than columns: everything is in their span
        assert row["mse_projected"] < 1e-4 * row["mse_mean"]
        assert (row["n_train"], row["n_columns"], row["n_test"]) == (60, truth.shape[1], 30)
    assert table["r2_ceiling"].isna().all()


def test_alignment_changes_no_figure():
    kinds = [problem(align=align, align_form="column")[0] for align in ("none", "train")]
    first, second = (assess(parts).table for parts in kinds)
    pd.testing.assert_frame_equal(first, second)


def test_few_training_stimuli_confine_a_linear_prediction():
    parts, (_, y, _, y_test) = problem(n=5, p=30, alphas=(1.0,))
    found = assess(parts, ContributionParams(save_projected=True))
    table = found.table.set_index("target")
    for name, columns in SLICES.items():
        y_c = y[:, columns] - y[:, columns].mean(0)
        truth = y_test[:, columns] - y[:, columns].mean(0)
        projected = truth @ np.linalg.pinv(y_c) @ y_c
        assert table.loc[name, "mse_projected"] == pytest.approx(((truth - projected) ** 2).mean(), rel=1e-3)
        expected = projected + y[:, columns].mean(0)
        np.testing.assert_allclose(found.projected[name].reshape(30, -1), expected, rtol=2e-3, atol=2e-3)
    assert (table["n_over_d"] < 1).all() and (table["mse_projected"] <= table["mse_decoded"]).all()
    assert any("fewer training stimuli than columns" in note and "g02" in note for note in found.notes)
    np.testing.assert_array_equal(found.projected.stimulus_ids, parts.test.stimulus_ids)
    off = assess(parts, ContributionParams(projection="off"))
    assert off.table["mse_projected"].isna().all() and off.projected is None


def test_shuffled_targets_are_at_chance_and_said_to_be():
    parts, _ = problem(n=80, m=40, shuffle=True)
    found = assess(parts)
    assert (found.table["r2"] < 0.05).all() and (abs(found.table["r"]) < 0.25).all()
    assert (abs(found.table["two_way"] - 0.5) < 4 * found.table["two_way_se"]).all()
    assert any("no better than by chance" in note for note in found.notes)
    assert not any("by chance" in note for note in assess(problem()[0]).notes)


def test_a_target_that_is_not_there_has_no_figures():
    parts, _ = problem()
    whole, lacking = assess(parts).table, without_c(parts.targets)
    table = assess(replace(parts, targets=lacking)).table
    pd.testing.assert_frame_equal(table[table.target != "c"], whole[whole.target != "c"])
    row = table.set_index("target").loc["c"]
    assert row.drop(["n_test", "n_columns", "n_train", "n_over_d"]).isna().all() and row["n_columns"] == 6


def test_a_constant_target_has_no_figures():
    x, y, x_test, y_test = linear_data(40, 12, m=10)
    y[:, 8:14] = y_test[:, 8:14] = 2.5
    test = make_betas(x_test, 100 + np.arange(10))
    decoder = RidgeDecoder().fit(make_betas(x), make_targets(y))
    table = assess(WorthParts(decoder, test, make_targets(y_test, test.stimulus_ids))).table.set_index("target")
    assert table.loc["c", ["r", "r2", "two_way", "mse_projected"]].isna().all()
    assert table.loc["c", "n_train"] == 40 and table.loc["z", "r2"] > 0


def test_the_ceiling_is_r2_without_trial_noise():
    """Against the same decoder on betas that have none."""
    rng = np.random.default_rng(4)
    x, y, clean, y_test = linear_data(300, 25, m=2000, noise=0.5)
    ids = 1000 + np.arange(2000)
    trials = make_betas(np.repeat(clean, 3, 0) + 1.5 * rng.standard_normal((6000, 25)), np.repeat(ids, 3))
    test = make_betas(trials.data.reshape(2000, 3, 25).mean(1), ids)
    decoder = RidgeDecoder().fit(make_betas(x), make_targets(y))
    truth = make_targets(y_test, ids)
    noisy = assess(WorthParts(decoder, test, truth, trials)).table
    without = assess(WorthParts(decoder, make_betas(clean, ids), truth)).table
    np.testing.assert_allclose(noisy["r2_ceiling"], without["r2"], atol=0.03)
    assert (noisy["r2"] < without["r2"] - 0.1).all()
    np.testing.assert_allclose(noisy["r2_over_ceiling"], noisy["r2"] / noisy["r2_ceiling"])


def test_a_decoder_that_is_not_linear_is_judged_too():
    """By what it predicts; it has no span."""

    class Wrapped:
        def __init__(self, inner):
            self.inner, self.params, self.accuracy, self.attrs = inner, inner.params, inner.accuracy, inner.attrs
            self.names = inner.names

        def predict(self, betas, align=None, progress=None):
            return self.inner.predict(betas, align)

    parts, _ = problem()
    linear = assess(parts).table
    found = assess(replace(parts, decoder=Wrapped(parts.decoder)))
    same = ["target", "r", "pattern_r", "r2", "two_way", "mse_decoded"]
    pd.testing.assert_frame_equal(found.table[same], linear[same], rtol=1e-4)
    assert found.table["mse_projected"].isna().all() and found.table["n_over_d"].isna().all()


def test_the_file_has_n_a_and_every_column(tmp_path):
    parts, _ = problem()
    path = assess(parts).save(tmp_path / KINDS["worth"].name(sub="sub-01"))
    assert path.name == "sub-01_desc-decoding_scores.tsv"
    table = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
    assert list(table.columns) == list(COLUMNS) and table["r2_ceiling"].isna().all()
    assert "n/a" in path.read_text()


def test_what_is_refused():
    parts, _ = problem()
    with pytest.raises(DecodingError, match="none for stimulus 1000"):
        assess(replace(parts, targets=make_targets(np.zeros((3, 22)))))
    with pytest.raises(DecodingError, match="at least one"):
        assess(replace(parts, test=parts.test.subset([])))
    assert isinstance(parts.targets, Embeddings)
