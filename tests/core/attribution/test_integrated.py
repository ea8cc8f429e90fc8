"""Integrated gradients against closed forms, and against the additive split where the decoder is linear."""

import numpy as np
import pytest

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.attribution import ContributionError
from napari_neuraldiffuser.core.decoding import RidgeDecoder, TargetFit
from napari_neuraldiffuser.core.params import ContributionParams
from tests.support.stand_ins import linear_data, make_betas, make_rois, make_targets

COLUMNS = {"z": slice(0, 8), "c": slice(8, 14), "g02": slice(14, 22)}
INTEGRATED = ContributionParams(method="integrated-gradients")


class Curved:
    """Predicts 1 + x A + bend (x B)², of which all gradients are known, and nothing else that a decoder has."""

    def __init__(self, p, bend, seed=0):
        rng = np.random.default_rng(seed)
        self.bend, self.mean = bend, rng.standard_normal(p)
        self.a = {name: rng.standard_normal((p, part.stop - part.start)) for name, part in COLUMNS.items()}
        self.b = {name: rng.standard_normal(a.shape) for name, a in self.a.items()}
        shapes = {name: make_targets(np.zeros((1, 22)))[name].shape[1:] for name in COLUMNS}
        self.accuracy = {
            name: TargetFit(1.0, (1.0,), (0.5,), shapes[name], np.ones(a.shape[1]), "epoch")
            for name, a in self.a.items()
        }
        self.params, self.attrs = None, {}

    names = property(lambda self: tuple(self.accuracy))

    def unused(self, *_):
        raise NotImplementedError

    check = fit = predict = arrays = save = load = close = unused

    def centre(self, betas):
        return betas.data - self.mean

    def respond(self, name, x):
        return 1 + x @ self.a[name] + self.bend * (x @ self.b[name]) ** 2

    def gradient(self, name, x, q):
        return q @ self.a[name].T + 2 * self.bend * (q * (x @ self.b[name])) @ self.b[name].T


class Linear(Curved):
    """A ridge decoder that only tells of its gradient."""

    def __init__(self, ridge):
        self.ridge, self.accuracy = ridge, ridge.accuracy
        self.params, self.attrs = ridge.params, ridge.attrs

    def centre(self, betas):
        return self.ridge.centre(betas)

    def respond(self, name, x):
        return self.ridge.deviations(name, self.ridge.similarity(x)) + self.ridge.accuracy[name].mean

    def gradient(self, name, x, q):
        return self.ridge.pull_back(name, q)


def regions(betas):
    labels = np.arange(betas.data.shape[1]) % 4
    return make_rois("prf-visualrois", labels, {1: "V1v", 2: "V1d", 3: "V2v"}, betas)


@pytest.mark.parametrize("bend", [0.0, 0.3])
@pytest.mark.parametrize("known", [True, False])
def test_equals_the_closed_form(bend, known):
    decoder = Curved(5, bend)
    rng = np.random.default_rng(1)
    betas = make_betas(rng.standard_normal((9, 5)), np.arange(9))
    y = rng.standard_normal((9, 22))
    maps = attribution.map(decoder, betas, regions(betas), make_targets(y) if known else None, INTEGRATED)
    for name, part in COLUMNS.items():
        x, a, b = decoder.centre(betas), decoder.a[name], decoder.b[name]
        predicted = x @ a + bend * (x @ b) ** 2
        q = 2 * (y[:, part] - 1) - predicted if known else predicted / (predicted**2).sum(1, keepdims=True)
        each = x * (q @ a.T + bend * (q * (x @ b)) @ b.T)
        whole = ((y[:, part] - 1) ** 2).sum() if known else len(x)
        np.testing.assert_allclose(maps.voxel_shares[name], each.sum(0) / whole, rtol=1e-9)
        total = 1 - ((y[:, part] - 1 - predicted) ** 2).sum() / whole if known else 1.0
        np.testing.assert_allclose(maps.totals[name], total, rtol=1e-9)
        np.testing.assert_allclose(maps.voxel_shares[name].sum(), total, rtol=1e-9)


@pytest.mark.parametrize("known", [True, False])
def test_equals_the_additive_split_of_a_linear_decoder(known):
    x, y, x_test, y_test = linear_data(40, 25)
    ridge = RidgeDecoder().fit(make_betas(x), make_targets(y))
    test = make_betas(x_test, 500 + np.arange(len(x_test)))
    truth = make_targets(y_test, test.stimulus_ids) if known else None
    split = attribution.map(ridge, test, regions(test), truth, ContributionParams(method="additive"))
    integrated = attribution.map(Linear(ridge), test, regions(test), truth, INTEGRATED)
    assert integrated.kind == split.kind
    for name in COLUMNS:
        np.testing.assert_allclose(integrated.voxel_shares[name], split.voxel_shares[name], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(integrated.table.share, split.table.share, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(integrated.table.se, split.table.se, rtol=1e-5, atol=1e-9)


def test_auto_takes_what_the_decoder_allows():
    x, y, x_test, _ = linear_data(40, 25)
    ridge = RidgeDecoder().fit(make_betas(x), make_targets(y))
    test = make_betas(x_test, 500 + np.arange(len(x_test)))
    by_name = attribution.map(ridge, test, regions(test), params=ContributionParams(method="additive"))
    for decoder, exact in ((ridge, True), (Linear(ridge), False)):
        found = attribution.map(decoder, test, regions(test)).voxel_shares["c"]
        assert np.array_equal(found, by_name.voxel_shares["c"]) == exact
        np.testing.assert_allclose(found, by_name.voxel_shares["c"], rtol=1e-6, atol=1e-9)


def test_an_integral_that_does_not_settle_is_refused():
    class Jagged(Curved):
        def respond(self, name, x):
            return 1 + np.sign(np.sin(400 * x)).sum(1, keepdims=True) * np.ones(self.a[name].shape[1])

        def gradient(self, name, x, q):
            return np.zeros_like(x)

    betas = make_betas(np.random.default_rng(1).standard_normal((9, 5)), np.arange(9))
    with pytest.raises(ContributionError, match="must sum to the prediction within 1%"):
        attribution.map(Jagged(5, 0.0), betas, regions(betas), params=INTEGRATED)
