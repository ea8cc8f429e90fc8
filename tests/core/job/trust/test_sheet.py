"""The sheet of small runs, those that lack something, and the full one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_neuraldiffuser.core import decoding, nsd, reconstruct
from napari_neuraldiffuser.core.base.files import read_json, write_json
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import silent
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation import evaluate
from napari_neuraldiffuser.core.job.controls import Baselines
from napari_neuraldiffuser.core.job.images import write_png
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.job.scores import score_arms
from napari_neuraldiffuser.core.job.trust import decoded
from napari_neuraldiffuser.core.job.trust.parts import TrustParts
from napari_neuraldiffuser.core.job.trust.sheet import write_trust
from napari_neuraldiffuser.core.networks import embeddings, models
from napari_neuraldiffuser.core.outputs.report.trust import trust_values
from napari_neuraldiffuser.core.params import DecodingParams, DiffusionParams, EvaluationParams, FeatureParams, Settings


@pytest.fixture(scope="module")
def known(inputs, tmp_path_factory):
    """A subject, small models, and true targets of some training images and of four test images."""
    subject, networks = nsd.Subject(inputs.source.nsd_dir, "subj01"), models.load(inputs.models)
    trials, folder = subject.trials, tmp_path_factory.mktemp("trust")
    test = np.unique(trials[trials.shared].stimulus_id)[:4]
    train = np.unique(trials[~trials.shared].stimulus_id)[:9]
    for name, ids in (("train", train), ("test", test)):
        embeddings.extract(networks, subject.stimuli, ids, folder / f"{name}.h5", FeatureParams()).close()
    return SimpleNamespace(subject=subject, networks=networks, folder=folder, test=test, train=train)


def finished(known, out, n, repeats, **more):
    """Scored pictures of both arms of `n` stimuli; "decoded" are the true targets of the first training images."""
    ids, places = known.test[:n], Derivatives(out, "subj01")
    rng = np.random.default_rng(0)
    for arm in ARMS:
        for stimulus in ids:
            for repeat in range(1, repeats + 1):
                picture = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
                write_png(places.image(int(stimulus), repeat, arm), picture)
    stored = embeddings.Embeddings.load(known.folder / "train.h5").subset(known.train[:n][::-1])
    replace(stored, stimulus_ids=ids).save(out / "decoded.h5")
    metrics = ("pixcorr", "twoway_features", "repeat_pixcorr", "repeat_identification")
    judged = EvaluationParams(size=32, metrics=metrics)
    settings = Settings(diffusion=DiffusionParams(repeats=repeats), evaluation=judged)
    baselines = Baselines(out / "decoded.h5", known.train)
    score_arms(places, known.subject.stimuli, known.networks, ids, settings, silent, baselines)
    files = {"train_targets": known.folder / "train.h5", "targets": known.folder / "test.h5", **more}
    return TrustParts(
        places, known.subject.stimuli, ids, known.networks, settings, out / "decoded.h5", known.train, **files
    )


def test_the_best_training_image_is_scored_as_if_it_were_the_reconstruction(known, tmp_path):
    parts = finished(known, tmp_path, 4, 2)
    trust = write_trust(parts, silent)
    assert trust["retrieved"] == known.train[:4][::-1].tolist(), "decoded features are those of these images"
    rows = {row["name"]: row for row in trust["rows"]}
    pictures = {"retrieval": known.subject.stimuli[trust["retrieved"]]}
    seen, own = known.subject.stimuli[known.test], EvaluationParams(size=32, metrics=("pixcorr",))
    for name, images in pictures.items():
        expected = evaluate(images, seen, params=own).values["pixcorr"].mean()
        assert rows[name]["scores"]["pixcorr"]["mean"] == pytest.approx(expected, abs=1e-6)
    assert [part["n"] for part in trust["nearness"]["parts"]] == [2, 1, 1]
    assert trust["decoding"] == [] and read_json(parts.places.summary)["trust"] == trust
    shown = trust_values(read_json(parts.places.summary))
    assert len(shown["rows"]) == 5 + 3 + 1 and shown["chart"].startswith("data:image/png")


def test_one_stimulus_and_one_repeat_have_a_sheet_that_says_what_is_missing(known, tmp_path):
    trust = write_trust(finished(known, tmp_path, 1, 1), silent)
    assert {row["name"] for row in trust["rows"]} == {"mean", "retrieval", "start", "unguided"}
    assert trust["best"] == {} and trust["nearness"]["far_minus_near"] == {}
    assert "1 test stimulus with 1 repeat each" in trust["paragraph"]
    assert "the best of several repeats, as there is one" in trust["left_out"]


def test_without_targets_the_sheet_has_what_needs_none(known, tmp_path):
    parts = finished(known, tmp_path, 2, 2, train_targets=None, targets=tmp_path / "none.h5")
    trust = write_trust(parts, silent)
    assert {row["name"] for row in trust["rows"]} == {"other", "mean", "start", "unguided"}
    assert trust["retrieved"] == [] and trust["best"] == {} and trust["nearness"] == {} and trust["directions"] == []
    assert len(trust["left_out"]) == 2 and "Not compared: the best training image" in trust["paragraph"]
    assert trust_values(read_json(parts.places.summary))["nearness"] == []


def test_none_takes_the_sheet_out(known, tmp_path):
    parts = finished(known, tmp_path, 2, 1)
    write_json(parts.places.summary, {**read_json(parts.places.summary), "trust": {"paragraph": "old"}})
    off = replace(parts, settings=replace(parts.settings, evaluation=parts.settings.evaluation.but(trust="none")))
    assert write_trust(off, silent) == {}
    assert "trust" not in read_json(parts.places.summary)
    assert trust_values(read_json(parts.places.summary)) == {}, "as in folders of before"


# the full sheet


@pytest.fixture
def full(known, tmp_path):
    """Parts of a full sheet of four stimuli, three of which have further pictures, and betas that know the targets."""
    train = np.unique(known.subject.trials[~known.subject.trials.shared].stimulus_id)[:24]
    path = tmp_path / "more.h5"
    embeddings.extract(known.networks, known.subject.stimuli, train, path, FeatureParams()).close()
    parts = finished(known, tmp_path, 4, 1, train_targets=path)
    judged = parts.settings.evaluation.but(trust="full", trust_stimuli=3)
    short = parts.settings.diffusion.but(n_steps=3, strength=0.7)
    rng = np.random.default_rng(0)
    seen = [embeddings.Embeddings.load(p) for p in (path, known.folder / "test.h5")]
    mixing = rng.normal(size=(seen[0].z[0].size, 30))
    voxels = [one.z.reshape(len(one), -1) @ mixing for one in seen]
    betas = tuple(
        nsd.Betas(v.astype(np.float32), one.stimulus_ids, np.full(len(v), shared), np.ones(len(v), int))
        for v, one, shared in zip(voxels, seen, (False, True), strict=True)
    )
    settings = replace(parts.settings, evaluation=judged, diffusion=short)
    records = Records(tmp_path / "stages")
    records.folder.mkdir()
    return replace(parts, settings=settings, train_ids=train, betas=betas, records=records), seen, betas


def test_true_targets_and_the_prior_go_through_the_generator(full, known, monkeypatch):
    parts, seen, _ = full
    trust = write_trust(parts, silent)
    rows = {row["name"]: row for row in trust["rows"]}
    assert list(rows) == ["other", "prior", "mean", "retrieval", "start", "unguided", "oracle"]
    once, ids = parts.settings.diffusion, known.test[:3]
    true = seen[1].subset(ids)
    mean = replace(
        true, z=np.repeat(seen[0].z.mean(0)[None], 3, axis=0), c=np.repeat(seen[0].c.mean(0)[None], 3, axis=0), g={}
    )
    off = parts.settings.guidance.but(guidance_scale=0.0)
    own = EvaluationParams(size=32, metrics=("pixcorr",))
    for name, plan in {
        "oracle": (true, once, parts.settings.guidance),
        "prior": (mean, once.but(strength=1.0), off),
    }.items():
        images = reconstruct(plan[0], known.networks, *plan[1:]).images
        expected = evaluate(images, known.subject.stimuli[ids], params=own).values["pixcorr"]
        assert rows[name]["n"] == 3
        assert rows[name]["scores"]["pixcorr"]["mean"] == pytest.approx(expected.mean(), abs=1e-3)
    assert trust["left_out"] == ["the best of several repeats, as there is one"]

    def never(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr("napari_neuraldiffuser.core.job.trust.diffused.reconstruct_batch", never)
    monkeypatch.setattr("napari_neuraldiffuser.core.job.trust.decoded.bottleneck", never)
    assert write_trust(parts, silent) == trust


def test_few_numbers_of_the_voxels_decode_as_ridge_on_components_does(full):
    parts, seen, betas = full
    with embeddings.TargetFile(parts.train_targets) as training:
        found = decoded.judge(parts, training, [], silent)
    curve = {(row["target"], row["numbers"]): row for row in found["bottleneck"]["rows"]}
    assert found["bottleneck"]["numbers"] == [1, 5, 10] and len(curve) == 3 * 8
    x, mean = betas[0].data, betas[0].data.mean(0)
    axes = np.linalg.svd(x - mean, full_matrices=False)[2][:5]
    own = [replace(b, data=((b.data - mean) @ axes.T).astype(np.float32)) for b in betas]
    ridge = decoding.new(DecodingParams(align="none")).fit(own[0], seen[0]).predict(own[1], align="none")
    ours, true = (v.z.reshape(4, -1) - seen[0].z.reshape(24, -1).mean(0) for v in (ridge, seen[1]))
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(ours, true, strict=True)])
    assert curve["z", 5]["pattern_r"]["mean"] == pytest.approx(expected, abs=0.02)
    assert found["bottleneck"]["all"]["z"]["mean"] > curve["z", 1]["pattern_r"]["mean"]
    assert sum(found["clusters"]["sizes"]) == 24
    assert all(row["inside"]["n"] == row["outside"]["n"] == 24 for row in found["clusters"]["targets"])


def test_without_betas_the_full_sheet_says_so(full):
    trust = write_trust(replace(full[0], betas=None), silent)
    assert "bottleneck" not in trust and any("betas" in text for text in trust["left_out"])
