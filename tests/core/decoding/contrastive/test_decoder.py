"""LinearContrastiveDecoder: ridge where nothing is trained, its linear map, its files, and what it refuses."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import attribution, decoding
from napari_neuraldiffuser.core.decoding import DecodingError, LinearDecoder, RidgeDecoder, join_decoders
from napari_neuraldiffuser.core.decoding.contrastive.decoder import LinearContrastiveDecoder
from napari_neuraldiffuser.core.networks.embeddings import TargetFile
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets

NAMES = ("z", "c", "g02", "g04")
PARAMS = DecodingParams(
    decoder="contrastive", contrastive_epochs=6, contrastive_batch=16, contrastive_rate=0.05, contrastive_regression=1.0
)


def data(n=60, p=25, dtype=np.float32, t=34):
    x, y, x_test, y_test = linear_data(n, p, t=t)
    train, test = make_betas(x.astype(dtype)), make_betas(x_test.astype(dtype), 1000 + np.arange(len(x_test)))
    return train, test, make_targets(y.astype(dtype), layers=NAMES[2:]), y_test


@pytest.fixture(scope="module")
def fitted():
    train, test, targets, y_test = data()
    return LinearContrastiveDecoder(PARAMS).fit(train, targets), train, test, targets, y_test


@pytest.mark.parametrize("n, p", [(40, 25), (20, 60)])
def test_without_training_and_with_one_penalty_it_is_ridge(n, p):
    train, test, targets, _ = data(n, p, np.float64)
    params = PARAMS.but(contrastive_epochs=0, alphas=(3.0,))
    decoder, ridge = (kind(params).fit(train, targets) for kind in (LinearContrastiveDecoder, RidgeDecoder))
    for align in ("none", "test"):
        one, other = decoder.predict(test, align=align), ridge.predict(test, align=align)
        for name in NAMES:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-4)
    for name, fit in decoder.accuracy.items():
        assert (fit.axis, fit.chosen, fit.tried) == ("epoch", 0.0, (0.0,)) and fit.shape == targets[name].shape[1:]
        np.testing.assert_allclose(fit.mean, ridge.accuracy[name].mean)
        np.testing.assert_allclose(fit.alignment.sd, ridge.accuracy[name].alignment.sd)
        np.testing.assert_allclose(fit.alignment.decoded_sd, ridge.accuracy[name].alignment.decoded_sd, rtol=1e-4)
        np.testing.assert_allclose(fit.alignment.decoded_mean, ridge.accuracy[name].alignment.decoded_mean, rtol=1e-4)


def test_it_is_linear(fitted):
    decoder, _, test, _, _ = fitted
    assert isinstance(decoder, LinearDecoder) and decoding.new(PARAMS).__class__ is LinearContrastiveDecoder
    x = decoder.centre(test)
    rng = np.random.default_rng(0)
    for name in NAMES:
        factors = decoder.factors[name]
        weights = factors.inputs @ factors.directions.T
        np.testing.assert_allclose(decoder.deviations(name, decoder.similarity(x)), x @ weights, atol=1e-4)
        q = rng.standard_normal((len(x), weights.shape[1])).astype(np.float32)
        np.testing.assert_allclose(decoder.pull_back(name, q), q @ weights.T, atol=1e-4)


def test_contributions_sum_to_r2(fitted):
    decoder, _, test, _, y_test = fitted
    truth = make_targets(y_test, test.stimulus_ids, layers=NAMES[2:])
    rois = make_rois("prf-visualrois", np.arange(25) % 3, {1: "V1", 2: "V2"}, test)
    maps = attribution.map(decoder, test, rois, truth)
    plain = decoder.predict(test, align="none")
    for name in NAMES:
        y, mean = truth[name].reshape(len(y_test), -1), decoder.accuracy[name].mean
        r2 = 1 - ((y - plain[name].reshape(y.shape)) ** 2).sum() / ((y - mean) ** 2).sum()
        assert maps.totals[name] == pytest.approx(r2, rel=1e-3, abs=1e-4)
        assert maps.voxel_shares[name].sum() == pytest.approx(r2, rel=1e-3, abs=1e-4)


def test_targets_without_contrast_stay_at_the_start(fitted):
    decoder, train, test, targets, _ = fitted
    start = LinearContrastiveDecoder(PARAMS.but(contrastive_epochs=0)).fit(train, targets)
    assert len(decoder.accuracy["z"].tried) == 1 and decoder.accuracy["c"].chosen > 0
    np.testing.assert_array_equal(decoder.predict(test).z, start.predict(test).z)
    assert not np.allclose(decoder.predict(test).c, start.predict(test).c)
    for name in NAMES[1:]:
        fit = decoder.accuracy[name]
        assert fit.r2[0] == start.accuracy[name].best_r2 and 1 < len(fit.tried) <= 7
        assert fit.tried == tuple(map(float, range(len(fit.tried))))


def test_the_rank_is_the_most_directions():
    train, test, targets, _ = data()
    decoder = LinearContrastiveDecoder(PARAMS.but(contrastive_rank=2)).fit(train, targets)
    for name in NAMES:
        assert decoder.factors[name].directions.shape[1] == 2
        values = decoder.predict(test, align="none")[name].reshape(len(test.data), -1)
        assert np.linalg.matrix_rank(values - decoder.accuracy[name].mean, tol=1e-3) == 2


@pytest.mark.parametrize("target_dtype", [np.float16, np.float32])
def test_a_saved_decoder_decodes_the_same_without_its_targets(tmp_path, target_dtype):
    train, test, targets, _ = data()
    y = np.concatenate([targets[name].reshape(len(targets), -1) for name in NAMES], axis=1)
    make_targets(y.astype(target_dtype), layers=NAMES[2:]).save(tmp_path / "targets.h5")
    with TargetFile(tmp_path / "targets.h5") as file:
        file.attrs["model_digest"] = "abc"
        decoder = LinearContrastiveDecoder(PARAMS).fit(train, file)
    (tmp_path / "targets.h5").unlink()
    decoder.save(tmp_path / "decoder.h5")
    loaded = decoding.load(tmp_path / "decoder.h5")
    assert isinstance(loaded, LinearContrastiveDecoder) and loaded.params == PARAMS and loaded.names == NAMES
    for align in ("none", "train", "test"):
        one, other = loaded.predict(test, align=align), decoder.predict(test, align=align)
        assert one.attrs["model_digest"] == "abc" and one.attrs["align"] == align
        for name in NAMES:
            np.testing.assert_array_equal(one[name], other[name])
    for name in NAMES:
        assert loaded.accuracy[name].r2 == decoder.accuracy[name].r2
    for one, other in zip(loaded.arrays(), decoder.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.close()


@pytest.mark.parametrize("parts", [[["g04", "g02"], ["z"], ["c"]], [[n] for n in NAMES]])
def test_joined_parts_are_the_whole(fitted, tmp_path, parts):
    decoder, train, test, targets, _ = fitted
    paths = [tmp_path / f"{k}.h5" for k in range(len(parts))]
    for names, path in zip(parts, paths, strict=True):
        LinearContrastiveDecoder(PARAMS).fit(train, targets, names=names).save(path)
    with pytest.raises(DecodingError, match="to decode, got no"):
        decoding.load(paths[0]).predict(test)
    join_decoders(paths, tmp_path / "joined.h5")
    joined = decoding.load(tmp_path / "joined.h5")
    assert joined.names == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(joined.predict(test)[name], decoder.predict(test)[name])


def test_equal_seeds_give_equal_bits(fitted):
    decoder, train, test, targets, _ = fitted
    same, other = (LinearContrastiveDecoder(PARAMS.but(seed=s)).fit(train, targets).predict(test).c for s in (0, 1))
    np.testing.assert_array_equal(same, decoder.predict(test).c)
    assert not np.array_equal(same, other)


def test_a_constant_target_is_its_mean(tmp_path):
    train, test, targets, _ = data()
    targets.c[:] = 2.5
    decoder = LinearContrastiveDecoder(PARAMS).fit(train, targets)
    assert decoder.accuracy["c"].constant and np.isnan(decoder.accuracy["c"].best_r2)
    decoder.save(tmp_path / "d.h5")
    for one in (decoder, decoding.load(tmp_path / "d.h5")):
        np.testing.assert_allclose(one.predict(test).c, 2.5, rtol=1e-6)


def test_repeats_are_held_out_together():
    """A stimulus of several rows: its left-out scores do not know it, whatever the other rows are."""
    train, test, targets, _ = data(40)
    twice = np.concatenate([np.arange(40), np.arange(40)])
    rng = np.random.default_rng(5)
    # the second row of a stimulus is its first but for a little noise, which would give it away
    repeated = np.concatenate([train.data, train.data + 0.01 * rng.standard_normal(train.data.shape)])
    alone = LinearContrastiveDecoder(PARAMS).fit(train, targets)
    pairs = LinearContrastiveDecoder(PARAMS).fit(
        replace(train, data=repeated, stimulus_ids=train.stimulus_ids[twice]), targets
    )
    assert np.isfinite(pairs.predict(test).c).all()
    # R² of what is left out is that of stimuli that were not seen: copies of rows cannot raise it
    assert pairs.accuracy["c"].r2[0] < alone.accuracy["c"].r2[0] + 0.05


def test_progress_counts_passes_and_can_end_it():
    train, _, targets, _ = data()
    calls = []
    LinearContrastiveDecoder(PARAMS).fit(train, targets, progress=lambda *args: calls.append(args))
    assert calls[-1] == (28, 28, "contrastive, g04 pass 7") and [c[0] for c in calls] == sorted(c[0] for c in calls)

    class Stop(Exception):
        pass

    def stop(done, total, what):
        if what == "contrastive, c pass 2":
            raise Stop

    with pytest.raises(Stop):
        LinearContrastiveDecoder(PARAMS).fit(train, targets, progress=stop)


def test_what_cannot_be_is_refused(fitted, tmp_path):
    decoder, train, test, targets, _ = fitted
    with pytest.raises(DecodingError, match="must be fitted"):
        LinearContrastiveDecoder().predict(test)
    with pytest.raises(DecodingError, match="must be fitted to be saved"):
        LinearContrastiveDecoder().save(tmp_path / "d.h5")
    with pytest.raises(DecodingError, match="at least 4 different training stimuli, got 3"):
        LinearContrastiveDecoder().fit(train.subset(train.stimulus_ids[:3]), targets)
    with pytest.raises(DecodingError, match="25 voxels, got 24"):
        decoder.predict(replace(test, data=test.data[:, :24], voxels=test.voxels[:24]))
    with pytest.raises(DecodingError, match="among"):
        LinearContrastiveDecoder().fit(train, targets, names=["g12"])


@pytest.mark.parametrize("change", ["lost", "shape", "nan", "text"])
def test_a_damaged_file_is_told_in_a_sentence(fitted, tmp_path, change):
    decoder, _, test, _, _ = fitted
    decoder.save(tmp_path / "whole.h5")
    for name in ("beta_mean", "stimulus_ids", "fits/c/inputs", "fits/c/directions", "fits/c/mean", "geometry/voxels"):
        path = tmp_path / f"{name.replace('/', '-')}.h5"
        path.write_bytes((tmp_path / "whole.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            group = file["decoder"]
            values = group[name][...]
            del group[name]
            if change == "shape":
                group[name] = values[1:]
            elif change == "nan":
                group[name] = np.full(values.shape, np.nan)
            elif change == "text":
                group[name] = "text"
        if name == "stimulus_ids" and change == "shape":
            continue  # their number is that of training rows, which nothing else in the file knows
        if name == "geometry/voxels" and change in ("lost", "nan"):
            continue  # betas may have no positions
        with pytest.raises(DecodingError) as error:
            decoding.load(path).predict(test)
        assert "\n" not in str(error.value) and str(path) in str(error.value), (name, change)
