"""What no decoder can be fitted to, or used with, is told in one sentence, by every kind of decoder alike."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from napari_neuraldiffuser.core import decoding
from napari_neuraldiffuser.core.base import memory
from napari_neuraldiffuser.core.base.files import array_digest
from napari_neuraldiffuser.core.base.registry import DECODERS
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.params import DecodingParams
from tests.support.stand_ins import linear_data, make_betas, make_targets

X, Y, X_TEST, _ = linear_data(30, 12)
TARGETS = make_targets(Y)
KINDS = list(DECODERS)
COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}


def fit(kind, betas, targets=TARGETS):
    return decoding.new(params_of(kind)).fit(betas, targets)


def params_of(kind):
    """Of a decoder that is trained in seconds."""
    small = {"network": {"network_epochs": 2, "network_width": 16, "network_bottleneck": 8, "network_folds": 2}}
    known = DecodingParams().to_dict()
    return DecodingParams(decoder=kind, **{k: v for k, v in small.get(kind, {}).items() if k in known})


def changed(row=None, column=None, to=np.nan):
    x = X.copy()
    x[row if row is not None else slice(None), column if column is not None else slice(None)] = to
    return make_betas(x)


BAD = {
    "a NaN row": (changed(row=4), r"most voxels of 1 of 30 rows: row 4 \(stimulus 4\). Leave these rows out"),
    "NaN rows": (changed(row=[4, 7]), r"of 2 of 30 rows: row 4 \(stimulus 4\), row 7 \(stimulus 7\). Leave"),
    "an infinite row": (changed(row=4, to=np.inf), r"most voxels of 1 of 30 rows: row 4"),
    "a NaN voxel": (changed(column=4), r"1 of 12 voxels, first in column 4 of row 0"),
    "one infinite value": (changed(3, 4, np.inf), r"1 of 12 voxels, first in column 4 of row 3 \(stimulus 3\)"),
    "NaN everywhere": (changed(), "12 of 12 voxels"),
    "all trials equal": (make_betas(np.repeat(X[:1], 30, 0)), "betas must vary between stimuli"),
    "all zero": (make_betas(np.zeros_like(X)), "betas must vary between stimuli"),
    "one stimulus": (make_betas(X, np.zeros(30, int)), r"at least \d+ different training stimuli, got 1"),
    "one row": (make_betas(X[:1]), r"at least \d+ different training stimuli, got 1"),
    "no voxels": (make_betas(X[:, :0]), "must have stimuli and voxels"),
    "one row as a vector": (replace(make_betas(X), data=X[0]), "must have stimuli and voxels"),
    "text": (make_betas(X.astype(str)), "betas must be real numbers, got <U"),
    "complex numbers": (make_betas(X.astype(complex)), "betas must be real numbers, got complex128"),
    "objects": (make_betas(X.astype(object)), "betas must be real numbers, got object"),
    "labels as stimuli": (make_betas(X, [f"a{k}" for k in range(30)]), "stimulus_ids must be whole numbers, got a0"),
    "halves as stimuli": (make_betas(X, np.arange(30) + 0.5), "stimulus_ids must be whole numbers, got 0.5"),
    "NaN as a stimulus": (make_betas(X, [np.nan, *range(29)]), "stimulus_ids must be whole numbers, got nan"),
    "a stimulus too few": (
        replace(make_betas(X), stimulus_ids=np.arange(29)),
        r"each of their 30 rows, got .* \(29,\)",
    ),
    "a stimulus too many": (replace(make_betas(X), stimulus_ids=np.arange(31)), r"of their 30 rows, got .* \(31,\)"),
    "positions too few": (
        replace(make_betas(X), voxels=np.zeros((5, 3), int)),
        r"12 voxels, got voxels of shape \(5, 3",
    ),
    "a vertex too few": (
        replace(make_betas(X), voxels=np.zeros((11, 2), int), shape=(2, 20), affine=None),
        r"position \(hemisphere, vertex\) for each of their 12 voxels, got voxels of shape \(11, 2",
    ),
    "volume positions on a surface": (
        replace(make_betas(X), voxels=np.zeros((12, 3), int), shape=(2, 20), affine=None),
        r"position \(hemisphere, vertex\) for each of their 12 voxels, got voxels of shape \(12, 3",
    ),
    "an array": (X, "betas must be a Betas object, got ndarray"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", BAD)
def test_betas_that_are_none(kind, what):
    betas, told = BAD[what]
    with pytest.raises(DecodingError, match=told) as raised:
        fit(kind, betas)
    assert str(raised.value).count("\n") == 0 and str(raised.value).endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_named_by_its_label(kind):
    labelled = replace(changed(row=4), stimulus_names=[f"cat_{k}" for k in range(30)])
    with pytest.raises(DecodingError, match=r"row 4 \(stimulus cat_4\)"):
        fit(kind, labelled)


@pytest.mark.parametrize("kind", KINDS)
def test_betas_on_a_surface_are_fitted_as_those_of_a_volume(kind):
    voxels = np.c_[np.arange(12) // 6, np.arange(12)]
    surface = replace(make_betas(X), voxels=voxels, shape=(2, 20), affine=None, space="fsaverage")
    wanted, got = (fit(kind, betas).predict(betas) for betas in (make_betas(X), surface))
    np.testing.assert_array_equal(got.z, wanted.z)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x", [np.c_[X, X], np.repeat(X[:, :1], 12, 1), X[:11]], ids=["doubled", "one voxel", "n < p"])
def test_betas_of_lower_rank_are_fitted(kind, x):
    """Voxels may be copies of others, and fewer stimuli than voxels are the rule."""
    betas = make_betas(x)
    predicted = fit(kind, betas, make_targets(Y[: len(x)])).predict(betas)
    assert all(np.isfinite(predicted[name]).all() for name in predicted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_voxel_says_nothing_whatever_it_is_later(kind):
    """It could not be learned from, so what it is in new betas must not matter."""
    decoder = fit(kind, changed(column=3, to=2.0))
    new = X_TEST.copy()
    new[:, 3] = 2.0
    usual = decoder.predict(make_betas(new))
    new[:, 3] = 5.0
    np.testing.assert_allclose(decoder.predict(make_betas(new)).z, usual.z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COLUMNS)
def test_a_constant_target_is_decoded_as_it_is(kind, name):
    y = Y.copy()
    y[:, COLUMNS[name]] = 2.5
    decoder = fit(kind, make_betas(X), make_targets(y))
    predicted = decoder.predict(make_betas(X_TEST))
    np.testing.assert_allclose(predicted[name], 2.5, rtol=1e-3)
    assert decoder.accuracy[name].constant and np.isnan(decoder.accuracy[name].best_r2)
    assert not any(decoder.accuracy[other].constant for other in COLUMNS if other != name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", COLUMNS)
def test_targets_without_a_number(kind, name, value):
    y = Y.copy()
    y[4, COLUMNS[name].start] = value
    with pytest.raises(DecodingError, match=rf"targets\['{name}'\] must be finite"):
        fit(kind, make_betas(X), make_targets(y))


@pytest.mark.parametrize("kind", KINDS)
def test_targets_of_other_stimuli(kind):
    with pytest.raises(DecodingError, match=r"none for stimulus 20 \(10 of 30 missing\)"):
        fit(kind, make_betas(X), make_targets(Y[:20]))


OTHER = {
    "no rows": (lambda b: make_betas(X_TEST[:0], []), "must have stimuli and voxels"),
    "a NaN row": (
        lambda b: replace(b, data=np.where(np.arange(9)[:, None] == 2, np.nan, X_TEST)),
        r"rows: row 2 \(sti",
    ),
    "a voxel less": (lambda b: make_betas(X_TEST[:, :11]), "must have the decoder's 12 voxels, got 11"),
    "another order": (lambda b: replace(b, voxels=b.voxels[::-1].copy()), "12 of 12 differ"),
    "another subject": (lambda b: replace(b, voxels=b.voxels + 1), "must have the decoder's voxels, got voxel"),
    "another affine": (lambda b: replace(b, affine=b.affine + 0.5), "with its affine, got another affine"),
    "another grid": (lambda b: replace(b, shape=(7, 6, 6)), r"got func1pt8mm \(7, 6, 6\)"),
    "another space": (lambda b: replace(b, space="func1mm"), "got func1mm"),
    "no positions": (lambda b: replace(b, voxels=None, affine=None, shape=None), "must be with voxel positions"),
}


@pytest.fixture(scope="module", params=KINDS)
def decoder(request):
    return fit(request.param, make_betas(X))


@pytest.mark.parametrize("what", OTHER)
def test_betas_of_another_kind_than_those_of_training(decoder, what):
    change, told = OTHER[what]
    with pytest.raises(DecodingError, match=told):
        decoder.predict(change(make_betas(X_TEST)))


def test_more_than_fits_into_memory_is_refused_before_it_is_computed(decoder, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 500)
    with pytest.raises(memory.MemoryNeeded, match="9 decoded stimuli of 22 numbers must .* Decode fewer"):
        decoder.predict(make_betas(X_TEST))
    kind = decoder.params.decoder
    with pytest.raises(memory.MemoryNeeded, match=r"must fit into memory, got .* Take fewer sessions, a smaller ROI"):
        fit(kind, make_betas(X))


@pytest.fixture
def saved(decoder, tmp_path):
    decoder.save(tmp_path / "d.h5")
    return tmp_path / "d.h5"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("format", 1, "got 1, of an earlier version. Fit the decoder again"),
        ("format", 99, "got 99, of a newer version. Update napari-neuraldiffuser, or fit"),
        ("format", "new", "of format .*, got new"),
        ("format", None, "of format .*, got none. Fit the decoder again"),
        ("kind", "magic", "a decoder of a kind among .*, got 'magic'"),
        ("params", json.dumps({"colour": 1}), r"d.h5 must have parameters that this version knows, got .*\['colour'\]"),
        ("params", "{", "must be a decoder file, got"),
    ],
)
def test_a_file_of_another_version(saved, name, value, told):
    with h5py.File(saved, "a") as file:
        del file["decoder"].attrs[name]
        if value is not None:
            file["decoder"].attrs[name] = value
    with pytest.raises(DecodingError, match=told) as raised:
        decoding.load(saved)
    assert str(saved) in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_betas_of_a_surface_are_betas(kind):
    """Positions are (hemisphere, vertex) there, without affine."""
    where = np.stack([np.arange(12) % 2, np.arange(12) // 2], 1)
    on_surface = {"voxels": where, "affine": None, "shape": (2, 6), "space": "fsaverage"}
    decoder = fit(kind, replace(make_betas(X), **on_surface))
    assert np.isfinite(decoder.predict(replace(make_betas(X_TEST), **on_surface)).c).all()
    with pytest.raises(DecodingError, match="must be of a surface as the decoder's, got those of a volume"):
        decoder.predict(make_betas(X_TEST))


def test_decoders_of_other_penalties_or_spreads_have_other_digests():
    def digest(**params):
        return array_digest(*RidgeDecoder(DecodingParams(**params)).fit(make_betas(X), TARGETS).arrays())

    assert digest() == digest()
    others = [digest(), digest(alphas=(1e6,)), digest(align_form="group"), digest(penalty="target")]
    assert len(set(others)) == len(others)
