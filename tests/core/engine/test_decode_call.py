"""The engine's decoder: what it gives, when it is fitted anew, and decoders that were saved."""

import json
import os
import shutil
from dataclasses import fields, replace
from io import BytesIO

import nibabel
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.decoding import DecodingError, RidgeDecoder
from napari_neuraldiffuser.core.engine import calls as study
from napari_neuraldiffuser.core.engine import decoder as study_decoder
from napari_neuraldiffuser.core.engine.calls import Study
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.params import TARGETS
from tests.support.study_cases import Log, call


def test_decode_gives_what_the_plain_calls_give(given, ready, tmp_path):
    found = call(ready, "decode", given)
    train, test = nsd.Subject(given.source.nsd_dir, "subj01").betas().split()
    networks = model_folder.load(given.models)
    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    targets = embeddings.extract(networks, subject.stimuli, train.stimulus_ids, tmp_path / "t.h5")
    decoder = RidgeDecoder().fit(train, targets)
    assert found["cached"]
    assert found["accuracy"] == {name: fit.best_r2 for name, fit in decoder.accuracy.items()}
    assert found["chosen"] == {name: fit.chosen for name, fit in decoder.accuracy.items()}
    assert found["curves"]["g02"]["r2"] == list(decoder.accuracy["g02"].r2)
    assert (found["n_train"], found["n_test"], found["n_voxels"]) == (len(train), len(test), train.n_voxels)
    decoded, plain = embeddings.Embeddings.load(found["embeddings"]), decoder.predict(test)
    for target in TARGETS:
        np.testing.assert_array_equal(decoded[target], plain[target])
    assert decoded.attrs["feature_normalisation"] == "imagenet"


def test_plot_is_a_picture_of_the_asked_size(given, ready):
    picture = Image.open(BytesIO(call(ready, "decode", given)["plot"].tobytes()))
    assert picture.format == "PNG"
    assert picture.width == 840


def test_what_decoded_targets_are_worth_is_kept(given, ready, monkeypatch):
    found = call(ready, "worth", given)
    assert [row[0] for row in found["rows"]] == list(TARGETS)
    assert all(len(row) == len(found["heads"]) for row in found["rows"])
    ceiling = [head["name"] for head in found["heads"]].index("ceiling of R²")
    assert all(row[ceiling] != "n/a" for row in found["rows"])
    said = call(ready, "decode", given)["spread"]
    assert len(said) == len(TARGETS) and said[0].startswith("spread of z")

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(RidgeDecoder, "deviations", never)
    assert call(ready, "worth", given) == found


@pytest.mark.parametrize("restarted", [False, True])
def test_nothing_is_computed_twice(given, ready, monkeypatch, restarted):
    call(ready, "decode", given)

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(RidgeDecoder, "fit", never)
    monkeypatch.setattr(RidgeDecoder, "predict", never)
    monkeypatch.setattr(embeddings, "encode", never)
    monkeypatch.setattr(nsd.Subject, "betas", never)
    if not restarted:
        monkeypatch.setattr(model_folder, "load", never)
    assert call(Study(ready.cache) if restarted else ready, "decode", given)["cached"]


def test_another_region_fits_again_without_encoding_again(given, ready, monkeypatch):
    first = call(ready, "decode", given)
    monkeypatch.setattr(embeddings, "encode", lambda *args: pytest.fail("encoded again"))
    second = call(ready, "decode", given.with_stage("betas", given.settings.betas.but(roi="V1 + V2")))
    assert not second["cached"]
    assert second["n_voxels"] < first["n_voxels"]
    assert second["decoder"] != first["decoder"]


def test_a_mask_that_was_drawn_again_is_read_again(given, ready, tmp_path):
    subject = nsd.Subject(given.source.nsd_dir, "subj01")
    path = tmp_path / "drawn.nii.gz"
    recipe = given.with_stage("betas", given.settings.betas.but(roi=str(path)))
    counts = []
    for family in ("floc-faces", "nsdgeneral"):
        labels = subject.rois(family).labels > 0
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), subject.affine), path)
        counts.append((int(labels.sum()), call(ready, "decode", recipe)["n_voxels"]))
    assert [one for one, _ in counts] == [other for _, other in counts]


def test_betas_on_disk_are_the_betas(given, tmp_path):
    params = given.settings.betas.but(average_repeats=False, roi="V1")
    betas = nsd.Subject(given.source.nsd_dir, "subj01", params).betas()
    nsd.save_betas(betas, tmp_path / "betas.h5")
    found = nsd.load_betas(tmp_path / "betas.h5")
    for f in fields(betas):
        one, other = getattr(betas, f.name), getattr(found, f.name)
        np.testing.assert_array_equal(one, other, strict=isinstance(one, np.ndarray))
        assert type(one) is type(other), f.name


def test_a_session_that_was_written_again_is_read_again(given, ready, tmp_path):
    own = shutil.copytree(given.source.nsd_dir, tmp_path / "nsd")
    given = given.but(source=replace(given.source, nsd_dir=str(own)))
    (session,) = nsd.Subject(own, "subj01").layout.sessions().values()
    call(ready, "decode", given)
    about = session.stat()
    os.utime(session, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    log = Log()
    # the same values: the decoder is known again
    assert call(Study(ready.cache), "decode", given, log)["cached"]
    assert (1, 1, "reading betas") in [(t["done"], t["total"], t["what"]) for t in log.of("told")]


def test_what_another_machine_computed_is_computed_again(given, ready, monkeypatch):
    assert call(ready, "decode", given)["cached"]
    monkeypatch.setattr(study_decoder, "machine", lambda models: ["another GPU"])
    monkeypatch.setattr(RidgeDecoder, "fit", lambda *a, **k: pytest.fail("fitted"))
    with pytest.raises(pytest.fail.Exception, match="fitted"):
        call(ready, "decode", given)


def test_a_guide_that_was_written_again_is_opened_again(given, tmp_path):
    recipe = given.but(models=str(tmp_path / "models"), guide=str(tmp_path / "guide"))
    shutil.copytree(given.models, recipe.models)
    shutil.move(f"{recipe.models}/image_encoder", recipe.guide)
    warm = Study(tmp_path / "cache").warm
    first = warm.models(recipe, Log().events)
    assert warm.models(recipe, Log().events) is first
    (tmp_path / "guide/note.txt").write_text("other")
    assert warm.models(recipe, Log().events).digest != first.digest


def test_a_saved_decoder_is_used_once_loaded(given, ready, tmp_path, monkeypatch):
    path = tmp_path / "mine.h5"
    strong = given.with_stage("decoding", given.settings.decoding.but(alphas=(1e7,)))
    call(ready, "save_decoder", strong, path=str(path))
    wanted = call(ready, "decode", strong)["accuracy"]
    other = Study(tmp_path / "other")
    other.call("load_decoder", {"recipe": given.to_dict(), "path": str(path)}, Log().events)
    monkeypatch.setattr(RidgeDecoder, "fit", lambda *a, **k: pytest.fail("fitted"))
    found = call(other, "decode", given)
    assert found["loaded"]
    assert found["decoder"] == str(path)
    assert found["accuracy"] == wanted != call(ready, "decode", given)["accuracy"]
    assert call(other, "reconstruct", given)["provenance"]["decoder"] == {
        **dict.fromkeys(("features", "decoding")),
        "digest": json.loads(study.Path(found["embeddings"]).with_suffix(".json").read_text())["decoder_digest"],
        "loaded": True,
        "path": str(path),
    }
    features = given.settings.features.but(feature_normalisation="clip")
    maps = {call(other, "contribution", r)["folder"] for r in (given, given.with_stage("features", features))}
    assert len(maps) == 2, "the decoder is the same, the targets of the maps are not"
    with pytest.raises(UserError, match="Press Fit anew"):
        call(other, "report", given, out_dir=str(tmp_path / "out"), n_stimuli=2)
    other.call("load_decoder", {"recipe": given.to_dict(), "path": ""}, Log().events)
    with pytest.raises(pytest.fail.Exception, match="fitted"):
        call(other, "decode", given)


@pytest.mark.slow
def test_a_decoder_of_other_voxels_or_models_is_refused(given, ready, tmp_path):
    path = tmp_path / "mine.h5"
    call(ready, "save_decoder", given, path=str(path))
    with pytest.raises(DecodingError, match="voxels"):
        call(ready, "load_decoder", given.with_stage("betas", given.settings.betas.but(roi="V1")), path=str(path))
    other = shutil.copytree(given.models, tmp_path / "models")
    (other / "unet" / "note.txt").write_text("other")
    with pytest.raises(DecodingError, match="other models"):
        call(ready, "load_decoder", given.but(models=str(other)), path=str(path))
    with pytest.raises(DecodingError, match="must be a decoder file"):
        call(ready, "load_decoder", given, path=str(tmp_path / "nothing.h5"))
