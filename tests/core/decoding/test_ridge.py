"""RidgeDecoder against the primal normal equations, its files, its alignment of z and what it refuses."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.networks.embeddings import TargetFile
from napari_neuraldiffuser.core.params import DecodingParams, ParamError
from tests.support.stand_ins import linear_data, make_betas, make_targets, primal_ridge

NAMES = ("z", "c", "g02")


def fitted(n=40, p=25, dtype=np.float64, **params):
    x, y, x_test, y_test = linear_data(n, p)
    train = make_betas(x.astype(dtype), np.arange(n) * 2 + 1)
    test = make_betas(x_test.astype(dtype), 1000 + np.arange(len(x_test)))
    decoder = RidgeDecoder(DecodingParams(**params)).fit(train, make_targets(y, train.stimulus_ids))
    return decoder, train, test, y, y_test


def flat(embeddings, name):
    return embeddings[name].reshape(len(embeddings[name]), -1)


COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60), (25, 24), (33, 1)])
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-5), (np.float32, 2e-4)])
def test_prediction_equals_normal_equations(n, p, dtype, rtol):
    decoder, train, test, y, _ = fitted(n, p, dtype, align="none")
    predicted = decoder.predict(test)
    for name in NAMES:
        alpha = decoder.accuracy[name].chosen
        weights, intercept = primal_ridge(train.data.astype(float), y[:, COLUMNS[name]], alpha)
        expected = test.data.astype(float) @ weights + intercept
        np.testing.assert_allclose(flat(predicted, name), expected, rtol=rtol, atol=rtol)
    assert predicted.z.shape == (9, 2, 2, 2) and predicted.z.dtype == np.float32
    np.testing.assert_array_equal(predicted.stimulus_ids, test.stimulus_ids)


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60)])
@pytest.mark.parametrize("block", ["solver.VOXELS_AT_ONCE", "solver.STIMULI_AT_ONCE"])
def test_blocks_change_nothing(monkeypatch, block, n, p):
    """Real subjects always run in blocks; here 7 at a time, with a rest."""
    whole, train, test, _, _ = fitted(n, p, align="train")
    expected = whole.predict(test)
    monkeypatch.setattr(f"napari_neuraldiffuser.core.decoding.{block}", 7)
    decoder, *_ = fitted(n, p, align="train")
    predicted = decoder.predict(test)
    for name in NAMES:
        np.testing.assert_allclose(decoder.accuracy[name].r2, whole.accuracy[name].r2, rtol=1e-9)
        np.testing.assert_allclose(flat(predicted, name), flat(expected, name), rtol=1e-5, atol=1e-6)


def test_penalty_is_chosen_per_group():
    rng = np.random.default_rng(0)
    x, y, _, _ = linear_data(60, 30, noise=0.05)
    y[:, 8:14] = rng.standard_normal((60, 6))  # c is noise: the largest penalty is best
    train = make_betas(x)
    alphas = tuple(10.0**k for k in range(-2, 6))
    decoder = RidgeDecoder(DecodingParams(alphas=alphas)).fit(train, make_targets(y))
    for name in NAMES:
        reference = RidgeCV(alphas=alphas).fit(x, y[:, COLUMNS[name]])
        assert decoder.accuracy[name].chosen == reference.alpha_
    assert decoder.accuracy["c"].chosen > 100 * decoder.accuracy["z"].chosen
    assert decoder.accuracy["z"].best_r2 > 0.9 > 0.1 > decoder.accuracy["c"].best_r2


def test_scored_columns_are_seeded_and_few():
    # different columns prefer different penalties, so the score tells which were taken
    few = [fitted(cv_targets=3, seed=seed)[0].accuracy["z"].r2 for seed in (0, 0, 1)]
    whole = fitted(cv_targets=8)[0].accuracy["z"].r2
    assert few[0] == few[1] != few[2]
    assert few[0] != whole


def test_training_order_and_storage_order_do_not_matter(tmp_path):
    decoder, train, test, y, _ = fitted(align="train")
    shuffled = np.random.default_rng(3).permutation(50)
    ids = np.concatenate([train.stimulus_ids, 5000 + np.arange(10)])[shuffled]
    padded = np.concatenate([y, np.full((10, 22), np.nan)])[shuffled]
    other = RidgeDecoder().fit(train, make_targets(padded, ids))
    for name in NAMES:
        np.testing.assert_allclose(other.predict(test)[name], decoder.predict(test)[name], rtol=1e-5)


@pytest.mark.parametrize("target_dtype", [np.float16, np.float32])
def test_saved_decoder_predicts_the_same_without_its_targets(tmp_path, target_dtype):
    x, y, x_test, _ = linear_data(30, 20)
    train, test = make_betas(x.astype(np.float32)), make_betas(x_test.astype(np.float32))
    path = tmp_path / "targets.h5"
    make_targets(y.astype(target_dtype)).save(path)
    with TargetFile(path) as targets:
        targets.attrs["model_digest"] = "abc"
        decoder = RidgeDecoder(DecodingParams(align="test", seed=4)).fit(train, targets)
        expected = decoder.predict(test)
        decoder.save(tmp_path / "decoder.h5")
    path.unlink()
    loaded = RidgeDecoder.load(tmp_path / "decoder.h5")
    assert loaded.params == decoder.params and loaded.names == NAMES
    for align in ("none", "train", "test"):
        again = loaded.predict(test, align=align)
        assert again.attrs["model_digest"] == "abc" and again.attrs["align"] == align
    for name in NAMES:
        np.testing.assert_array_equal(loaded.predict(test)[name], expected[name])
        assert loaded.accuracy[name].r2 == decoder.accuracy[name].r2
        assert loaded.targets[name].dtype == target_dtype
    # a file may be replaced by the decoder that reads its targets from it
    loaded.save(tmp_path / "decoder.h5")
    np.testing.assert_array_equal(RidgeDecoder.load(tmp_path / "decoder.h5").predict(test).c, expected.c)
    assert [f.name for f in tmp_path.iterdir()] == ["decoder.h5"]


def test_repeats_are_stored_once(tmp_path):
    x, y, x_test, _ = linear_data(30, 12)
    ids = np.arange(30) // 2
    train = make_betas(x, ids)
    decoder = RidgeDecoder().fit(train, make_targets(y[::2], np.arange(15)))
    decoder.save(tmp_path / "d.h5")
    loaded = RidgeDecoder.load(tmp_path / "d.h5")
    assert len(loaded.targets) == 15
    test = make_betas(x_test)
    np.testing.assert_array_equal(loaded.predict(test).z, decoder.predict(test).z)
    weights, intercept = primal_ridge(x, y[::2][ids][:, COLUMNS["c"]], decoder.accuracy["c"].chosen)
    np.testing.assert_allclose(flat(decoder.predict(test), "c"), x_test @ weights + intercept, rtol=1e-5)


@pytest.mark.parametrize("repeats", [1, 2])
def test_train_alignment_uses_left_out_training_predictions(repeats):
    """Of every target, against a refit without each stimulus."""
    x, y, x_test, _ = linear_data(24, 30)
    ids = np.arange(24) // repeats
    train, test = make_betas(x, ids), make_betas(x_test)
    y = y[::repeats]
    decoder = RidgeDecoder(DecodingParams(align_form="column")).fit(train, make_targets(y, np.arange(len(y))))
    for name, columns in COLUMNS.items():
        truth, alpha = y[ids][:, columns], decoder.accuracy[name].chosen
        left_out = np.empty_like(truth)
        for stimulus in np.unique(ids):
            rest = ids != stimulus
            weights, intercept = primal_ridge(x[rest], truth[rest], alpha)
            left_out[~rest] = x[~rest] @ weights + intercept
        plain = flat(decoder.predict(test, align="none"), name)
        expected = (plain - left_out.mean(0)) / left_out.std(0) * truth.std(0) + truth.mean(0)
        np.testing.assert_allclose(flat(decoder.predict(test), name), expected, rtol=1e-4, atol=1e-5)
    # one new scan gives what it gives among others
    one = make_betas(test.data[3:4], [1003])
    np.testing.assert_allclose(decoder.predict(one).z[0], decoder.predict(test).z[3], rtol=1e-5)


def test_only_some_targets_are_aligned():
    decoder, _, test, *_ = fitted(align_form="group", align_targets=("z", "g02"))
    plain, aligned = decoder.predict(test, align="none"), decoder.predict(test)
    assert np.array_equal(plain.c, aligned.c)
    said = aligned.attrs["spread"].splitlines()
    assert [line.split()[2] for line in said] == ["z", "c", "g02"]
    assert said[1] == "spread of c left as decoded"
    for name in ("z", "g02"):
        stats = decoder.accuracy[name].alignment
        assert stats.gain > 1 and f"multiplied by {stats.gain:.2f}, by one factor" in aligned.attrs["spread"]
        ratio = (flat(aligned, name) - stats.mean) / (flat(plain, name) - stats.decoded_mean)
        np.testing.assert_allclose(ratio, stats.gain, rtol=1e-3)


def test_of_many_stimuli_some_are_left_out(monkeypatch):
    whole, train, test, y, _ = fitted(n=120, p=20, align_form="column")
    monkeypatch.setattr("napari_neuraldiffuser.core.decoding.fitting.MOST_LEFT_OUT", 100)
    monkeypatch.setattr("napari_neuraldiffuser.core.decoding.fitting.SOME_LEFT_OUT", 60)
    some, *_ = fitted(n=120, p=20, align_form="column")
    for name in NAMES:
        a, b = whole.accuracy[name].alignment, some.accuracy[name].alignment
        np.testing.assert_array_equal(a.mean, b.mean)
        # spread of all targets either way; that of predictions is of 60 stimuli
        np.testing.assert_allclose(a.sd, b.sd, rtol=1e-6)
        np.testing.assert_allclose(a.decoded_sd, b.decoded_sd, rtol=0.4)
        assert not np.array_equal(a.decoded_sd, b.decoded_sd)


def test_test_alignment_has_the_training_mean_and_spread():
    decoder, _, test, y, _ = fitted(align="test", align_targets=("z", "c"))
    for name in ("z", "c"):
        values = flat(decoder.predict(test), name).astype(float)
        np.testing.assert_allclose(values.mean(0), y[:, COLUMNS[name]].mean(0), rtol=1e-4)
        np.testing.assert_allclose(values.std(0), y[:, COLUMNS[name]].std(0), rtol=1e-4)
    np.testing.assert_array_equal(decoder.predict(test)["g02"], decoder.predict(test, align="none")["g02"])
    with pytest.raises(DecodingError, match="at least 2 stimuli"):
        decoder.predict(make_betas(test.data[:1]))


@pytest.mark.parametrize("align", ["train", "test"])
def test_a_column_without_decoded_variance_becomes_its_mean(align):
    x, y, x_test, _ = linear_data(30, 12)
    y[:, 2] = 4.0
    # so large a penalty that every column is predicted as its mean, but for a trace
    decoder = RidgeDecoder(DecodingParams(alphas=(1e9,), align=align)).fit(make_betas(x), make_targets(y))
    z = flat(decoder.predict(make_betas(x_test)), "z")
    assert np.isfinite(z).all()
    if align == "test":
        np.testing.assert_allclose(z, np.broadcast_to(y[:, :8].mean(0), z.shape), rtol=1e-5)
    np.testing.assert_allclose(z[:, 2], 4.0, rtol=1e-6)


@pytest.mark.parametrize("rounding", [0.0, 2.0**-11])
@pytest.mark.parametrize("name, columns", [("z", slice(0, 8)), ("c", slice(8, 14))])
def test_constant_target_group_is_predicted_as_it_is(rounding, name, columns):
    """Equal captions encoded in batches of other sizes differ by the rounding of half precision, and are equal."""
    x, y, x_test, _ = linear_data(30, 12)
    y[:, columns] = 2.5 * (1 + rounding * np.random.default_rng(0).uniform(-1, 1, y[:, columns].shape))
    decoder = RidgeDecoder(DecodingParams(align="train")).fit(make_betas(x), make_targets(y))
    np.testing.assert_allclose(decoder.predict(make_betas(x_test))[name], 2.5, rtol=1e-3)
    assert np.isnan(decoder.accuracy[name].best_r2) and decoder.accuracy[name].constant
    assert decoder.accuracy[name].chosen == max(decoder.params.alphas)
    assert decoder.accuracy["g02"].best_r2 > 0


def test_a_target_that_varies_little_is_no_constant():
    x, y, x_test, _ = linear_data(30, 12)
    y[:, 8:14] = 2.5 + 0.02 * y[:, 8:14]
    decoder = RidgeDecoder().fit(make_betas(x), make_targets(y))
    assert not decoder.accuracy["c"].constant and decoder.accuracy["c"].best_r2 > 0


def test_progress_counts_targets():
    x, y, _, _ = linear_data(30, 12)
    calls = []
    RidgeDecoder().fit(make_betas(x), make_targets(y), progress=lambda *args: calls.append(args))
    assert calls == [(1, 3, "ridge z"), (2, 3, "ridge c"), (3, 3, "ridge g02")]


def test_betas_without_geometry_are_compared_by_number_of_voxels(tmp_path):
    x, y, x_test, _ = linear_data(30, 12)
    bare = {"voxels": None, "affine": None, "shape": None}
    train, test = (replace(make_betas(values), **bare) for values in (x, x_test))
    decoder = RidgeDecoder().fit(train, make_targets(y))
    decoder.save(tmp_path / "d.h5")
    np.testing.assert_array_equal(RidgeDecoder.load(tmp_path / "d.h5").predict(test).z, decoder.predict(test).z)
    with pytest.raises(DecodingError, match="without voxel positions"):
        decoder.predict(make_betas(x_test))
    with pytest.raises(DecodingError, match="12 voxels, got 11"):
        decoder.predict(replace(test, data=x_test[:, :11]))


def test_other_voxels_are_refused():
    decoder, _, test, _, _ = fitted()
    with pytest.raises(DecodingError, match="25 voxels, got 24"):
        decoder.predict(replace(test, data=test.data[:, :24], voxels=test.voxels[:24]))
    swapped = test.voxels.copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    with pytest.raises(DecodingError, match=r"2 of 25 differ"):
        decoder.predict(replace(test, voxels=swapped))
    with pytest.raises(DecodingError, match="func1mm"):
        decoder.predict(replace(test, space="func1mm"))
    with pytest.raises(DecodingError, match="affine"):
        decoder.predict(replace(test, affine=test.affine * 1.01))


def test_bad_betas_are_refused():
    x, y, _, _ = linear_data(30, 12)
    broken = x.copy()
    broken[4, 7] = np.nan
    with pytest.raises(DecodingError, match="1 of 12 voxels, first in column 7"):
        RidgeDecoder().fit(make_betas(broken), make_targets(y))
    with pytest.raises(DecodingError, match="stimuli and voxels"):
        RidgeDecoder().fit(make_betas(x[:0]), make_targets(y))
    with pytest.raises(DecodingError, match="at least 3 different training stimuli, got 2"):
        RidgeDecoder().fit(make_betas(x[:6], [1, 1, 1, 2, 2, 2]), make_targets(y))
    with pytest.raises(DecodingError, match="none for stimulus 30"):
        RidgeDecoder().fit(make_betas(x, np.arange(30) + 1), make_targets(y))


def test_scripts_find_the_penalty_by_its_name_and_no_other_kind_of_choice():
    fit = fitted()[0].accuracy["z"]
    assert fit.alpha == fit.chosen in fit.tried
    with pytest.raises(DecodingError, match="alpha must be of tried penalties, got epoch"):
        _ = replace(fit, axis="epoch").alpha


def test_unfitted_and_unknown_alignment_are_refused(tmp_path):
    decoder, _, test, _, _ = fitted()
    with pytest.raises(DecodingError, match="must be fitted"):
        RidgeDecoder().predict(test)
    with pytest.raises(DecodingError, match="must be fitted"):
        RidgeDecoder().save(tmp_path / "d.h5")
    with pytest.raises(ParamError, match="align"):
        decoder.predict(test, align="trian")


def test_files_that_are_no_decoder_are_refused(tmp_path):
    decoder = fitted()[0]
    decoder.save(tmp_path / "d.h5")
    whole = (tmp_path / "d.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("no HDF5")
    make_targets(np.zeros((3, 22))).save(tmp_path / "targets.h5")
    for name in ("cut.h5", "text.h5", "targets.h5", "missing.h5"):
        with pytest.raises(DecodingError, match=f"{name} must be a decoder file"):
            RidgeDecoder.load(tmp_path / name)
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file["decoder"].attrs["format"] = 99
    with pytest.raises(DecodingError, match="format 3, got 99"):
        RidgeDecoder.load(tmp_path / "d.h5")
