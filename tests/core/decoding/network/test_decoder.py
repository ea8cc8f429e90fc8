"""NetworkDecoder: what it learns, keeps and refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core import decoding
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.decoding.decoder import DifferentiableDecoder
from napari_neuraldiffuser.core.decoding.network import decoder as network_decoder
from napari_neuraldiffuser.core.decoding.network import train as training
from napari_neuraldiffuser.core.decoding.network.pretrain import pretrain
from tests.support.small_network import SMALL, bent_data
from tests.support.stand_ins import make_betas

NAMES = ("z", "c", "g02")
PRETRAINED = SMALL.but(network_epochs=25, network_rate=3e-3, network_dropout=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network pretrained on two subjects."""
    out = tmp_path_factory.mktemp("pretrained")
    subjects = [bent_data(300, subject=k, stimuli=k) for k in (1, 2)]
    return pretrain(subjects, out, PRETRAINED)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """The same with stimuli dealt out at random."""
    rng = np.random.default_rng(0)
    subjects = [bent_data(300, subject=k, stimuli=k) for k in (1, 2)]
    dealt = [(replace(b, stimulus_ids=rng.permutation(b.stimulus_ids)), t) for b, t in subjects]
    return pretrain(dealt, tmp_path_factory.mktemp("shuffled"), PRETRAINED)


def errors(embeddings, targets):
    """Mean squared error of each target over its variance."""
    true = targets.subset(embeddings.stimulus_ids)
    return {n: np.square(embeddings[n] - true[n]).sum() / np.square(true[n] - true[n].mean(0)).sum() for n in NAMES}


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in NAMES)


def test_it_learns_what_no_linear_decoder_can(folder):
    """From few stimuli, with what other subjects' taught: better than ridge and than the mean, for every target."""
    train, test, targets = bent_data(60, subject=3, stimuli=3, n_test=200)
    ridge = errors(RidgeDecoder(SMALL).fit(train, targets).predict(test), targets)
    for backbone in ("frozen", "tuned"):
        params = SMALL.but(network_pretrained=str(folder), network_backbone=backbone)
        found = errors(decoding.new(params).fit(train, targets).predict(test), targets)
        assert all(found[name] < ridge[name] - 0.02 < 0.9 for name in NAMES), (backbone, found, ridge)


def test_shuffled_pretraining_teaches_nothing(folder, shuffled):
    found = []
    train, test, targets = bent_data(60, subject=3, stimuli=3, n_test=200)
    for where in (folder, shuffled):
        params = SMALL.but(network_pretrained=str(where), network_backbone="frozen")
        found.append(errors(decoding.new(params).fit(train, targets).predict(test), targets))
    assert all(found[0][name] < found[1][name] for name in NAMES)


@pytest.mark.parametrize("prior", ["none", "used"])
@pytest.mark.parametrize("encoder", ["ridge", "tuned"])
@pytest.mark.parametrize("basis", ["fixed", "trained"])
def test_saved_and_loaded_it_gives_the_same_bits(tmp_path, prior, encoder, basis):
    train, test, targets = bent_data(40, n_test=9)
    params = SMALL.but(network_prior=prior, network_encoder=encoder, network_basis=basis, align="train")
    decoder = decoding.new(params).fit(train, targets)
    decoder.save(tmp_path / "d.h5")
    again = decoding.load(tmp_path / "d.h5")
    assert same(decoder.predict(test), again.predict(test))
    assert again.params == params and again.attrs["network"] == "trained on this subject alone"
    for a, b in zip(decoder.arrays(), again.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(again.stimulus_ids, train.stimulus_ids)
    assert {name: fit.r2 for name, fit in again.accuracy.items()} == {n: f.r2 for n, f in decoder.accuracy.items()}


@pytest.mark.parametrize("prior", ["none", "used"])
def test_prediction_does_not_depend_on_its_batch(prior):
    train, test, targets = bent_data(40, n_test=37)
    decoder = decoding.new(SMALL.but(network_prior=prior)).fit(train, targets)
    whole = decoder.predict(test)
    alone = decoder.predict(make_betas(test.data[-3:], test.stimulus_ids[-3:]))
    for name in NAMES:
        np.testing.assert_allclose(alone[name], whole[name][-3:], rtol=1e-4, atol=1e-5)
    assert same(whole, decoder.predict(test))


def test_the_same_seed_gives_the_same_decoder():
    train, test, targets = bent_data(40, n_test=5)
    first, second = (decoding.new(SMALL.but(network_encoder="tuned")).fit(train, targets).predict(test) for _ in "ab")
    other = decoding.new(SMALL.but(network_encoder="tuned", seed=1)).fit(train, targets).predict(test)
    assert same(first, second) and not same(first, other)


def test_frozen_backbone_and_heads_stay(shuffled):
    """From a network that has something to learn."""
    train, _, targets = bent_data(300, subject=3, stimuli=3, n_test=5)
    params = SMALL.but(network_pretrained=str(shuffled), network_encoder="tuned", network_rate=3e-3)
    before = training_weights(shuffled)
    frozen = decoding.new(params.but(network_backbone="frozen")).fit(train, targets)
    tuned = decoding.new(params.but(network_backbone="tuned", network_epochs=12, network_dropout=0.0)).fit(
        train, targets
    )
    for name, values in frozen.network.state_dict().items():
        assert torch.equal(values, before[name]), name
    assert len(frozen.accuracy["c"].r2) > 1
    best = tuned.accuracy["c"].chosen
    changed = any(not torch.equal(v, before[name]) for name, v in tuned.network.state_dict().items())
    assert best > 0 and changed


def training_weights(folder):
    from napari_neuraldiffuser.core.decoding.network.folder import Pretrained

    return Pretrained.load(folder).network.state_dict()


def test_the_best_pass_is_kept(monkeypatch):
    """Held-out R² that falls, rises to its best and falls again: training ends, and the best weights are back."""
    train, _, targets = bent_data(40, n_test=5)
    seen, values = [], iter([0.1, 0.0, 0.3, 0.2, 0.1, 0.0, 0.9])

    def judged(self):
        seen.append({n: p.detach().clone() for n, p in self.model.named_parameters()})
        return dict.fromkeys(self.data.names, next(values))

    monkeypatch.setattr(training._Training, "_evaluate", judged)
    decoder = decoding.new(SMALL.but(network_epochs=6, network_patience=3)).fit(train, targets)
    fit = decoder.accuracy["c"]
    assert fit.r2 == (0.1, 0.0, 0.3, 0.2, 0.1, 0.0) and fit.chosen == 2 and fit.axis == "epoch" and fit.best_r2 == 0.3
    for name, values in decoder.network.named_parameters():
        assert torch.equal(values, seen[2][f"network.{name}"]), name


def test_gradient_is_that_of_its_response():
    train, test, targets = bent_data(40, n_test=4)
    decoder = decoding.new(SMALL.but(network_epochs=2)).fit(train, targets)
    assert isinstance(decoder, DifferentiableDecoder)
    x, rng = decoder.centre(test), np.random.default_rng(0)
    for name in NAMES:
        q = rng.standard_normal(decoder.respond(name, x).shape).astype(np.float32)
        along = rng.standard_normal(x.shape).astype(np.float32)
        ends = [(decoder.respond(name, x + s * along).astype(float) * q).sum(1) for s in (0.02, -0.02)]
        found = (decoder.gradient(name, x, q) * along).sum(1)
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / 0.04, rtol=0.02, atol=0.02)


def test_some_targets_and_constant_ones(tmp_path):
    train, test, targets = bent_data(40, n_test=4)
    some = decoding.new(SMALL).fit(train, targets, names=("g02",))
    some.save(tmp_path / "g02.h5")
    decoding.new(SMALL).fit(train, targets, names=("z",)).save(tmp_path / "z.h5")
    with pytest.raises(DecodingError, match="must be of a kind that fits every target on its own, got network"):
        decoding.join_decoders([tmp_path / "z.h5", tmp_path / "g02.h5"], tmp_path / "all.h5")
    assert some.names == ("g02",)
    with pytest.raises(DecodingError, match="must have z and c"):
        some.predict(test)
    with pytest.raises(DecodingError, match=r"must be among .* got \['g99'\]"):
        decoding.new(SMALL).fit(train, targets, names=("g99",))
    targets.c[:] = 7.0
    decoder = decoding.new(SMALL).fit(train, targets)
    assert decoder.accuracy["c"].constant and np.all(decoder.predict(test).c == 7.0)
    assert np.all(decoder.gradient("c", decoder.centre(test), np.ones((4, 6), np.float32)) == 0)


@pytest.mark.parametrize("prior", ["none", "used"])
def test_all_that_predicts_is_brought_to_the_device(prior, monkeypatch):
    """The meta device, as a GPU would, refuses to meet arrays on the CPU; what it gives back has no values."""
    train, test, targets = bent_data(60, n_test=12)
    decoder = decoding.new(SMALL.but(network_prior=prior, network_epochs=2)).fit(train, targets)
    x, back = decoder.centre(test), []
    expected = decoder.predict(test)

    def copied(values):
        back.append(values.device.type)
        return torch.zeros(values.shape)

    monkeypatch.setattr(network_decoder, "device_here", lambda kind: "meta")
    monkeypatch.setattr(torch.Tensor, "cpu", copied)
    found = decoder.predict(test)
    assert all(found[name].shape == expected[name].shape for name in NAMES)
    assert decoder.gradient("c", x, expected.c.reshape(12, -1)).shape == x.shape
    assert set(back) == {"meta"} and len(back) >= len(NAMES) + 1


def test_one_that_was_fitted_on_a_gpu_predicts_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train, test, targets = bent_data(60, n_test=12)
    decoder = decoding.new(SMALL.but(network_epochs=2)).fit(train, targets)
    expected = decoder.predict(test)
    decoder.params = decoder.params.but(decoder_device="cuda")
    decoder.save(tmp_path / "decoder.h5")
    assert same(decoding.load(tmp_path / "decoder.h5").predict(test), expected)


def test_the_smallest_part_held_out_still_gives_a_spread():
    train, test, targets = bent_data(40, n_test=5)
    decoder = decoding.new(SMALL.but(network_held_out=0.01, align="train")).fit(train, targets)
    assert np.isfinite(decoder.predict(test).c).all()


def test_what_the_prior_draws_is_not_said_to_be_aligned():
    train, test, targets = bent_data(40, n_test=5)
    decoder = decoding.new(SMALL.but(network_prior="used", align="train", align_form="group")).fit(train, targets)
    said = dict(zip(decoder.names, decoder.predict(test).attrs["spread"].splitlines(), strict=True))
    assert said["c"] == "spread of c as the prior draws it" and "multiplied" in said["z"]


@pytest.mark.parametrize("kind", ["network", "contrastive"])
def test_a_missing_device_is_told_before_anything_is_computed(kind, monkeypatch):
    def computed(*args, **kwargs):
        raise AssertionError("it began to compute")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(network_decoder.fitting, "check_stimuli", computed)
    monkeypatch.setattr("napari_neuraldiffuser.core.decoding.contrastive.decoder.checked_training", computed)
    train, _, targets = bent_data(40, n_test=5)
    with pytest.raises(DecodingError, match="got cuda and no CUDA device"):
        decoding.new(SMALL.but(decoder=kind, decoder_device="cuda")).fit(train, targets)


def test_aligned_z_has_the_training_spread():
    train, test, targets = bent_data(150, n_test=400, noise=4.0)
    decoder = decoding.new(SMALL.but(network_held_out=0.4)).fit(train, targets)
    plain, wide = (decoder.predict(test, align=how).z.reshape(400, -1).std(0) for how in ("none", "train"))
    true = targets.subset(test.stimulus_ids).z.reshape(400, -1).std(0)
    assert np.abs(wide / true - 1).mean() < 0.2 < np.abs(plain / true - 1).mean()


def test_what_does_not_fit_is_refused(folder, tmp_path):
    train, test, targets = bent_data(40, subject=3, stimuli=3, n_test=5)
    decoder = decoding.new(SMALL).fit(train, targets)
    with pytest.raises(DecodingError, match="must have the decoder's 40 voxels, got 39"):
        decoder.predict(make_betas(test.data[:, :-1]))
    with pytest.raises(DecodingError, match="must be fitted"):
        decoding.new(SMALL).predict(test)
    with pytest.raises(DecodingError, match="must be fitted to be saved"):
        decoding.new(SMALL).save(tmp_path / "none.h5")
    with pytest.raises(DecodingError, match="at least 10 different training stimuli"):
        decoding.new(SMALL).fit(make_betas(train.data[:9], train.stimulus_ids[:9]), targets)
    pretrained = SMALL.but(network_pretrained=str(folder))
    others = replace(targets, attrs=targets.attrs | {"model_digest": "other"})
    with pytest.raises(DecodingError, match="must have the model_digest of the pretrained network, m, got other"):
        decoding.new(pretrained).fit(train, others)
    smaller = replace(targets, c=targets.c[:, :1])
    with pytest.raises(DecodingError, match=r"with c of shape \(2, 3\), got \(1, 3\)"):
        decoding.new(pretrained).fit(train, smaller)
    with pytest.raises(DecodingError, match="must be the folder of a network"):
        decoding.new(SMALL.but(network_pretrained=str(tmp_path))).fit(train, targets)
    if not torch.cuda.is_available():
        with pytest.raises(DecodingError, match="got cuda and no CUDA device"):
            decoding.new(SMALL.but(decoder_device="cuda")).fit(train, targets)


def test_a_loss_that_is_not_finite_ends_the_training():
    train, _, targets = bent_data(40, n_test=5)
    train.data[::2] *= 1e22
    with pytest.raises(DecodingError, match=r"loss and gradient must be finite, got .* in pass 1\. Lower network_rate"):
        decoding.new(SMALL.but(network_encoder="tuned", network_rate=1.0)).fit(train, targets)
