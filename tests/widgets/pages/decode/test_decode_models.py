"""The Decode panel: models, and what ridge regression is told."""

import shutil

import pytest
from qtpy.QtWidgets import QFileDialog

from napari_neuraldiffuser.core.networks.digest import DEMO_FOLDER
from napari_neuraldiffuser.core.params import DecodingParams, FeatureParams
from napari_neuraldiffuser.widgets.session.penalties import brief
from tests.support.model_folders import in_cache
from tests.support.window.decode_answers import model_folder


def test_models_go_to_the_recipe(ready, tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "sd")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    ready.models.browse.click()
    assert ready.session.recipe.models == str(folder)
    assert ready.models.models.recent() == [str(folder)]
    assert ready.run_button.isEnabled()


def test_a_folder_without_a_guide_asks_for_one(ready, tmp_path, monkeypatch, qtbot):
    folder, guide = model_folder(tmp_path / "sd", "image_encoder"), tmp_path / "clip"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    ready.models.browse.click()
    assert "Give the CLIP vision model as guide" in ready.hint.text()
    assert ready.session.recipe.models == "demo", "only what can be opened is taken"
    guide.mkdir()
    qtbot.keyClicks(ready.models.guide, str(guide))
    missing = f"image_encoder must have its configuration in {guide}"
    qtbot.waitUntil(lambda: missing in ready.models.problem_label.text())
    shutil.copytree(DEMO_FOLDER / "image_encoder", guide, dirs_exist_ok=True)
    ready.models.guide.textEdited.emit("")
    qtbot.waitUntil(lambda: ready.session.recipe.guide == str(guide))
    assert ready.session.recipe.models == str(folder)
    assert ready.hint.text() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/no/such/folder", "existing folder or a hub id"),
        ("", "got nothing"),
        ("a/b/c", "existing folder or a hub id"),
        ("./sd", "existing folder"),
        ("owner/not-fetched", "fetch it: hf download owner/not-fetched"),
        ("owner/fetched", ""),
        ("demo", ""),
    ],
)
def test_models_are_checked_beside_them(ready, text, message, hub_cache):
    in_cache(hub_cache, "owner/fetched", DEMO_FOLDER)
    ready.models.models.setEditText(text)
    ready.models._taken()
    if message:
        assert message in ready.models.problem_label.text()
        assert not ready.run_button.isEnabled()
        assert ready.session.recipe.models == "demo"
    else:
        assert ready.run_button.isEnabled()
        assert ready.session.recipe.models == text


def test_folders_are_taken_by_their_whole_paths(ready, tmp_path, monkeypatch):
    folder, guide = model_folder(tmp_path / "sd14", "image_encoder"), tmp_path / "here" / "clip"
    shutil.copytree(DEMO_FOLDER / "image_encoder", guide)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    ready.models.models.setEditText("~/sd14")
    ready.models.guide.setText("clip")
    ready.models._taken()
    assert (ready.session.recipe.models, ready.session.recipe.guide) == (str(folder), str(guide))
    assert ready.models.models.currentText() == "~/sd14", "what is being typed is left alone"
    assert ready.models.models.recent() == [str(folder)]
    model_folder(tmp_path / "here/own/sd", "image_encoder")
    ready.models.models.setEditText("own/sd")
    ready.models._taken()
    assert ready.session.recipe.models == str(tmp_path / "here/own/sd")


@pytest.mark.parametrize("text", ["~/sd14", "~nobody-has-this-name/sd14"])
def test_a_folder_of_a_home_is_no_hub_id(ready, tmp_path, monkeypatch, text):
    monkeypatch.setenv("HOME", str(tmp_path))
    ready.models.models.setEditText(text)
    ready.models._taken()
    assert f"an existing folder or a hub id owner/name, got {text}" in ready.models.problem_label.text()
    assert ready.session.recipe.models == "demo"


def test_a_folder_that_lacks_parts_names_them(ready, tmp_path):
    ready.models.models.setEditText(str(model_folder(tmp_path / "sd", "unet", "vae")))
    ready.models._taken()
    assert "missing: vae, unet." in ready.hint.text()


def test_params_go_both_ways(ready):
    ready.kind.controls["cv_targets"].setValue(64)
    ready.features.controls["feature_normalisation"].setCurrentText("clip")
    settings = ready.session.recipe.settings
    assert settings.decoding == DecodingParams(cv_targets=64)
    assert settings.features == FeatureParams(feature_normalisation="clip")
    ready.session.change_stage("decoding", DecodingParams(alphas=(0.1, 5.0), align="none"))
    assert ready.alphas.text() == "0.1 5"
    assert ready.decoding.controls["align"].currentText() == "none"


@pytest.mark.parametrize(("text", "alphas"), [("1 10", (1.0, 10.0)), ("1e3,2e4", (1e3, 2e4)), (" 5 ,  7 ", (5.0, 7.0))])
def test_penalties_are_numbers(ready, text, alphas):
    ready.alphas.setText(text)
    ready.alphas.textEdited.emit(text)
    assert ready.session.recipe.settings.decoding.alphas == alphas
    assert ready.alphas.text() == text, "what is being typed is left alone"


@pytest.mark.parametrize("text", ["", "ten", "1 -1", "0", "inf", "1;2"])
def test_wrong_penalties_stop_the_run(ready, text):
    ready.alphas.setText(text)
    ready.alphas.textEdited.emit(text)
    assert "alphas must be" in ready.hint.text()
    assert not ready.run_button.isEnabled()
    assert ready.session.recipe.settings.decoding == DecodingParams()


@pytest.mark.parametrize("number", [1.0, 10.0, 1e3, 1e7, 0.1, 1 / 3, 1e-12, 12345.678])
def test_numbers_are_written_briefly_and_read_back_exactly(number):
    assert float(brief(number)) == number
    assert len(brief(number)) <= len(repr(number))
