"""Components of targets against scikit-learn's, and voxel encoders against ridge fitted without the left-out fold."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from napari_neuraldiffuser.core.decoding import DecodingError
from napari_neuraldiffuser.core.decoding.network import basis, encoder
from tests.support.small_network import bent_data


def of_small(bottleneck=22, width=30, n=50):
    _, targets = bent_data(n)
    rows = basis.unique_rows(targets, targets.stimulus_ids)
    return targets, rows, basis.fit_basis([(targets, rows)], ("z", "c", "g02"), bottleneck, width, 0)


def test_components_are_principal_ones():
    targets, rows, found = of_small(bottleneck=3)
    for name in ("z", "c", "g02"):
        y = targets[name].reshape(50, -1)
        reference = PCA(3).fit(y)
        np.testing.assert_allclose(found.targets[name].mean, reference.mean_, rtol=1e-5)
        dots = np.abs(found.targets[name].components @ reference.components_.T)
        np.testing.assert_allclose(dots, np.eye(3), atol=1e-3)
        scores = basis.project(found.targets[name], targets, name, rows)
        np.testing.assert_allclose(scores.energy, np.square(y - y.mean(0)).sum(1), rtol=1e-4)


def test_all_components_give_the_targets_back():
    """The latent loses nothing where it is wide enough, and its coordinates have unit variance and no correlation."""
    targets, rows, found = of_small()
    scores = {name: basis.project(one, targets, name, rows).scores for name, one in found.targets.items()}
    latents = found.latents(scores)
    np.testing.assert_allclose(latents.T @ latents / 50, np.eye(latents.shape[1]), atol=2e-3)
    for name, one in found.targets.items():
        again = latents @ found.loadings[name].T @ one.components + one.mean
        np.testing.assert_allclose(again, targets[name].reshape(50, -1), atol=2e-3)


def test_few_stimuli_are_drawn_from_each_subject(monkeypatch):
    monkeypatch.setattr(basis, "STIMULI", 20)
    pool = [(t, basis.unique_rows(t, t.stimulus_ids)) for _, t in (bent_data(30), bent_data(30, stimuli=1))]
    drawn = basis._drawn(pool, np.random.default_rng(0))
    assert [len(rows.stored) for _, rows in drawn] == [10, 10]
    assert basis.fit_basis(pool, ("c",), 4, 4, 0).targets["c"].components.shape == (4, 6)


def test_constant_targets_have_no_components():
    targets, rows, _ = of_small()
    targets.c[:] = 5.0
    assert basis.fit_basis([(targets, rows)], ("z", "c"), 4, 4, 0).targets["c"].components.shape == (0, 6)
    with pytest.raises(DecodingError, match="must vary between stimuli"):
        basis.fit_basis([(targets, rows)], ("c",), 4, 4, 0)


def test_left_out_latents_are_those_of_ridge_without_the_fold():
    rng = np.random.default_rng(0)
    x, y, ids = rng.standard_normal((40, 15)), rng.standard_normal((40, 6)), np.arange(40) // 2
    y[:, :3] += x[:, :3] * 3
    folds = encoder.fold_rows(ids, 5, rng)
    found = encoder.fit_encoder(x, y, folds, (1.0, 100.0, 1e4))
    assert len(set(found.encoder.alphas)) > 1
    for rows in folds:
        # all rows of a stimulus are in one fold
        assert set(ids[rows]).isdisjoint(set(np.delete(ids, rows)))
        # centring by all rows is exact in neither: the intercept is refitted without the fold
        for k, alpha in enumerate(found.encoder.alphas):
            rest = np.delete(np.arange(40), rows)
            expected = Ridge(alpha=alpha).fit(x[rest], y[rest, k]).predict(x[rows])
            np.testing.assert_allclose(found.left_out[rows, k], expected, atol=2e-4)
    whole = [Ridge(alpha=a).fit(x, y[:, k]).predict(x[:7]) for k, a in enumerate(found.encoder.alphas)]
    np.testing.assert_allclose(found.encoder(x[:7]), np.stack(whole, 1), atol=2e-4)


def test_penalty_of_each_latent_is_that_which_predicts_folds_best():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 10))
    y = np.stack([x @ rng.standard_normal(10), rng.standard_normal(60)], 1)
    found = encoder.fit_encoder(x, y, encoder.fold_rows(np.arange(60), 6, rng), (0.1, 1e5))
    assert found.encoder.alphas.tolist() == [0.1, 1e5]


def test_noisier_encoders_never_saw_what_they_predict(monkeypatch):
    monkeypatch.setattr(encoder, "FEWEST", 10)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((64, 8)), rng.standard_normal((64, 3))
    found = list(encoder.noisier(x, y, np.arange(64), 4, (1.0, 10.0), rng))
    assert [int(np.isfinite(one[:, 0]).sum()) for one in found] == [32, 48]
