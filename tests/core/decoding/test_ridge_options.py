"""Options of RidgeDecoder: penalties of blocks and columns, what its file keeps of the targets, leading directions."""

import shutil

import h5py
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from napari_neuraldiffuser.core.decoding import (
    DecodingError,
    LinearDecoder,
    RidgeDecoder,
    join_decoders,
    load,
    ridge,
    solver,
    store,
)
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets, primal_ridge

NAMES = ("z", "c", "g02")
COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}
ALPHAS = tuple(10.0**k for k in range(-1, 5))
OPTIONS = [
    {"penalty": "block"},
    {"penalty": "target"},
    {"penalty": "target", "keep_targets": "half"},
    {"keep_targets": "refer"},
    {"ridge_rank": 3},
    {"penalty": "target", "ridge_rank": 3},
]


def mixed(n=60, p=25, seed=0):
    """Betas and targets whose columns differ in noise, and test betas."""
    x, y, x_test, _ = linear_data(n, p, seed=seed)
    y = y + np.random.default_rng(seed).standard_normal(y.shape) * np.geomspace(0.05, 20, 22)
    return make_betas(x), y, make_betas(x_test, 1000 + np.arange(len(x_test)))


def saved_targets(folder, y, dtype=np.float32):
    make_targets(y.astype(dtype)).save(folder / "targets.h5")
    return TargetFile(folder / "targets.h5")


def flat(embeddings, name):
    return embeddings[name].reshape(len(embeddings[name]), -1)


def same(first, second):
    for name in NAMES:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("n, p", [(60, 25), (30, 60), (40, 1)])
def test_a_penalty_for_each_column_is_that_of_scikit_learn(n, p):
    train, y, test = mixed(n, p)
    params = DecodingParams(alphas=ALPHAS, penalty="target", align="none")
    decoder = RidgeDecoder(params).fit(train, make_targets(y))
    for name in NAMES:
        reference = RidgeCV(ALPHAS, alpha_per_target=True).fit(train.data, y[:, COLUMNS[name]])
        fit = decoder.accuracy[name]
        np.testing.assert_array_equal(fit.penalties, reference.alpha_)
        np.testing.assert_allclose(
            flat(decoder.predict(test), name), reference.predict(test.data), rtol=1e-4, atol=1e-4
        )
        assert fit.best_r2 == fit.penalties_r2 >= max(fit.r2)


@pytest.mark.parametrize("penalty", ["group", "target"])
@pytest.mark.parametrize("n, p", [(250, 400), (400, 120)])
def test_single_precision_agrees_with_scikit_learn_to_1e_4(n, p, penalty):
    x, y, x_test, _ = linear_data(n, p)
    train, test = make_betas(x.astype(np.float32)[:, :200]), make_betas(x_test.astype(np.float32)[:, :200])
    decoder = RidgeDecoder(DecodingParams(penalty=penalty, align="none")).fit(train, make_targets(y))
    for name in NAMES:
        fitted = RidgeCV(decoder.params.alphas, alpha_per_target=penalty == "target")
        expected = fitted.fit(train.data.astype(float), y[:, COLUMNS[name]]).predict(test.data.astype(float))
        error = np.abs(flat(decoder.predict(test), name) - expected).max()
        assert error < 1e-4 * np.abs(expected).max()


def test_a_penalty_for_each_block():
    train, y, test = mixed()
    decoder = RidgeDecoder(DecodingParams(alphas=ALPHAS, penalty="block", align="none")).fit(train, make_targets(y))
    # z has two channels of 4 numbers, c two tokens of 3, g02 one of 8
    for name, blocks in {"z": 2, "c": 2, "g02": 1}.items():
        columns = np.split(np.arange(22)[COLUMNS[name]], blocks)
        for part, penalties in zip(columns, np.split(decoder.accuracy[name].penalties, blocks), strict=True):
            reference = RidgeCV(ALPHAS).fit(train.data, y[:, part])
            assert set(penalties) == {reference.alpha_}
    weights, intercept = primal_ridge(train.data, y[:, :4], decoder.accuracy["z"].penalties[0])
    got = flat(decoder.predict(test), "z")[:, :4]
    np.testing.assert_allclose(got, test.data @ weights + intercept, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", ["block", "target"])
def test_spread_of_columns_with_their_own_penalties_is_of_left_out_stimuli(penalty):
    train, y, _ = mixed(n=25, p=30)
    decoder = RidgeDecoder(DecodingParams(alphas=ALPHAS, penalty=penalty)).fit(train, make_targets(y))
    fit, left_out = decoder.accuracy["c"], np.empty((25, 6))
    for i in range(25):
        rest = np.arange(25) != i
        for j, alpha in enumerate(fit.penalties):
            weights, intercept = primal_ridge(train.data[rest], y[rest, 8 + j : 9 + j], alpha)
            left_out[i, j] = (train.data[i] @ weights + intercept).item()
    np.testing.assert_allclose(fit.alignment.decoded_mean, left_out.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fit.alignment.decoded_sd, left_out.std(0), rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_is_saved_loaded_and_joined(tmp_path, options):
    train, y, test = mixed()
    params = DecodingParams(alphas=ALPHAS, **options)
    (tmp_path / "parts").mkdir()
    with saved_targets(tmp_path, y, np.float16) as targets:
        whole = RidgeDecoder(params).fit(train, targets)
        expected = whole.predict(test)
        whole.save(tmp_path / "whole.h5")
        parts = []
        for names in (["g02"], ["z", "c"]):
            parts.append(tmp_path / "parts" / f"{names[0]}.h5")
            RidgeDecoder(params).fit(train, targets, names=names).save(parts[-1])
    join_decoders(parts, tmp_path / "joined.h5")
    shutil.rmtree(tmp_path / "parts")
    for path in (tmp_path / "whole.h5", tmp_path / "joined.h5"):
        decoder = load(path)
        assert decoder.names == NAMES and decoder.params == params
        if options.get("keep_targets") == "half":
            assert decoder.targets["z"].dtype == np.float16
        same(decoder.predict(test), expected)
        np.testing.assert_array_equal(decoder.predict_target("c", test), expected.c)
        for a, b in zip(decoder.arrays(), whole.arrays(), strict=True):
            np.testing.assert_array_equal(a, b)
        # and once more
        decoder.save(tmp_path / "again.h5")
        same(load(tmp_path / "again.h5").predict(test), expected)
        decoder.close()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_stays_linear(options):
    train, y, test = mixed()
    decoder = RidgeDecoder(DecodingParams(alphas=ALPHAS, **{**options, "keep_targets": "copy"})).fit(
        train, make_targets(y)
    )
    assert isinstance(decoder, LinearDecoder)
    x = decoder.centre(test)
    for name in NAMES:
        deviations = decoder.deviations(name, decoder.similarity(x))
        q = np.random.default_rng(0).standard_normal(deviations.shape)
        pulled = decoder.pull_back(name, q)
        # <x W, q> = <x, W q>
        np.testing.assert_allclose((pulled * x).sum(1), (deviations * q).sum(1), rtol=1e-4, atol=1e-6)


def test_half_precision_is_refused_where_it_cannot_hold_a_target(tmp_path):
    train, y, test = mixed()
    decoder = RidgeDecoder(DecodingParams(keep_targets="half")).fit(train, make_targets(y))
    decoder.save(tmp_path / "d.h5")
    np.testing.assert_allclose(load(tmp_path / "d.h5").predict(test).c, decoder.predict(test).c, rtol=1e-2, atol=1e-2)
    decoder = RidgeDecoder(DecodingParams(keep_targets="half")).fit(train, make_targets(1e5 * y))
    with pytest.raises(DecodingError, match=r"targets\['z'\] must be below 65,504 to be kept in half precision"):
        decoder.save(tmp_path / "d.h5")


def referring(folder, y, train):
    with saved_targets(folder, y) as targets:
        decoder = RidgeDecoder(DecodingParams(keep_targets="refer")).fit(train, targets)
        decoder.save(folder / "decoder.h5")
    return folder / "decoder.h5"


def test_a_decoder_refers_to_its_targets_and_moves_with_them(tmp_path):
    train, y, test = mixed()
    old = tmp_path / "old"
    old.mkdir()
    path = referring(old, y, train)
    with h5py.File(path) as file:
        assert "z" not in file and "stimulus_id" not in file
    expected = load(path).predict(test)
    old.rename(tmp_path / "new")
    same(load(tmp_path / "new" / "decoder.h5").predict(test), expected)
    # the decoder alone, while the targets stay where they are
    old.mkdir()
    path = referring(old, y, train)
    path.rename(tmp_path / "alone.h5")
    same(load(tmp_path / "alone.h5").predict(test), expected)
    (old / "targets.h5").unlink()
    with pytest.raises(DecodingError, match=r"alone.h5 must have its training targets at .*targets.h5, got no file"):
        load(tmp_path / "alone.h5")


def test_targets_that_are_not_those_of_the_fit_are_refused(tmp_path):
    train, y, _ = mixed()
    path = referring(tmp_path, y, train)
    changed = y.copy()
    changed[-1, 9] += 1e-3
    saved_targets(tmp_path, changed).close()
    with pytest.raises(DecodingError, match="must have the targets c that .*decoder.h5 was fitted to, got others"):
        load(path)
    with pytest.raises(DecodingError, match="copy or half for targets in memory, got refer"):
        RidgeDecoder(DecodingParams(keep_targets="refer")).fit(train, make_targets(y)).save(path)


def test_all_directions_are_the_exact_decoder_and_few_say_what_they_lose():
    train, y, test = mixed(200, 40)
    params = DecodingParams(align="none")
    exact = RidgeDecoder(params).fit(train, make_targets(y))
    for rank, most in ((8, 1e-3), (3, 0.9), (1, 1.0)):
        reduced = RidgeDecoder(params.but(ridge_rank=rank)).fit(train, make_targets(y))
        got, wanted = reduced.predict(test), exact.predict(test)
        for name in NAMES:
            kept = reduced.compacted[name]
            assert kept.basis.shape[0] == min(rank, COLUMNS[name].stop - COLUMNS[name].start)
            assert kept.basis.dtype == np.float16 and kept.error < most
            mean = exact.accuracy[name].mean
            off = np.linalg.norm(flat(got, name) - flat(wanted, name)) / np.linalg.norm(flat(wanted, name) - mean)
            assert off == pytest.approx(kept.error, rel=0.5, abs=1e-3)
            assert f"% in {name}" in got.attrs["compact"]
        # the leading directions are those of the fitted values
        x = exact.centre(train)
        fitted = exact.deviations("c", exact.similarity(x))
        lost = np.linalg.norm(reduced.deviations("c", x) - fitted) / np.linalg.norm(fitted)
        best = np.linalg.svd(fitted, compute_uv=False)
        assert lost == pytest.approx(np.sqrt((best[rank:] ** 2).sum() / (best**2).sum()), rel=0.02, abs=1e-3)


def test_the_page_is_told_what_a_reduced_decoder_loses(tmp_path):
    train, y, _ = mixed()
    made, path = make_targets(y), tmp_path / "decoder.h5"
    RidgeDecoder().fit(train, made).save(path)
    assert store.read_notes(path) == []
    decoder = RidgeDecoder(DecodingParams(ridge_rank=2)).fit(train, made)
    decoder.save(path)
    (note,) = store.read_notes(path)
    assert note.startswith("reduced decoder: 2 directions of each target, off by ")
    assert [f"{100 * decoder.compacted[name].error:.1f} % in {name}" in note for name in NAMES] == [True] * len(NAMES)
    assert note.endswith(load(path).compact_said())


def test_a_decoder_that_was_fitted_on_a_gpu_predicts_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train, y, test = mixed()
    fitted, path = RidgeDecoder().fit(train, make_targets(y)), tmp_path / "decoder.h5"
    expected = fitted.predict(test)
    fitted.params = fitted.params.but(decoder_device="cuda")
    fitted.save(path)
    found = load(path)
    assert found.params.decoder_device == "cuda"
    assert all(np.array_equal(found.predict(test)[name], expected[name]) for name in NAMES)


def test_a_target_asked_for_must_be_there():
    train, y, test = mixed()
    with pytest.raises(
        DecodingError, match=r"target must be among those of the decoder, \('z', 'c', 'g02'\), got 'g04'"
    ):
        RidgeDecoder().fit(train, make_targets(y)).predict_target("g04", test)


@pytest.mark.parametrize("n, p", [(60, 25), (30, 60)])
def test_parts_share_a_decomposition(tmp_path, n, p):
    train, y, test = mixed(n, p)
    path = ridge.decompose(train, tmp_path / "spectrum.h5")
    whole, shared = (RidgeDecoder().fit(train, make_targets(y), spectrum=s) for s in (None, path))
    same(whole.predict(test), shared.predict(test))
    np.testing.assert_array_equal(whole.spectrum.u, shared.spectrum.u)
    other, *_ = mixed(n, p, seed=1)
    with pytest.raises(DecodingError, match="must be the decomposition of these betas, got that of others"):
        RidgeDecoder().fit(other, make_targets(y), spectrum=path)
    with pytest.raises(DecodingError, match="a decomposition of betas, got"):
        RidgeDecoder().fit(train, make_targets(y), spectrum=tmp_path / "none.h5")


def test_targets_of_one_number():
    x, y, x_test, _ = linear_data(30, 12)
    targets = Embeddings(y[:, :1], y[:, 1:2], {"g02": y[:, 2:3]}, np.arange(30))
    for options in ({}, {"penalty": "target"}, {"penalty": "block"}, {"ridge_rank": 4}):
        decoder = RidgeDecoder(DecodingParams(alphas=ALPHAS, align="none", **options)).fit(make_betas(x), targets)
        reference = RidgeCV(ALPHAS).fit(x, y[:, 1])
        got = decoder.predict(make_betas(x_test)).c[:, 0]
        np.testing.assert_allclose(got, reference.predict(x_test), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("n, p", [(20, 30), (30, 12)])
def test_decomposition_through_torch_is_that_of_scipy(monkeypatch, n, p):
    x = linear_data(n, p)[0]
    x -= x.mean(0)
    expected = solver.decompose(x)
    monkeypatch.setattr(solver, "_eigh", lambda gram: solver._eigh_torch(gram, "cpu"))
    got = solver.decompose(x)
    np.testing.assert_allclose(got.s, expected.s, rtol=1e-9)
    np.testing.assert_allclose(
        (got.u * got.s) @ got.u.T, (expected.u * expected.s) @ expected.u.T, atol=1e-9 * got.s[-1]
    )
