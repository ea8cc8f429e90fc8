"""The Decode panel: models, penalties, results that go stale, and decoders in files."""

import io

import numpy as np
import pytest
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtWidgets import QFileDialog

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Source, differences
from napari_neuraldiffuser.core.params import BetasParams, DecodingParams, FeatureParams, SimulationParams
from napari_neuraldiffuser.widgets.pages.decode import GONE, DecodePanel
from napari_neuraldiffuser.widgets.pages.models_form import PARTS
from napari_neuraldiffuser.widgets.session.controls import brief
from napari_neuraldiffuser.widgets.session.engine import EngineError


@pytest.fixture
def viewer(qtbot):
    """Without a window: this panel shows nothing in it."""
    return ViewerModel()


def png(width=400, height=300):
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(stream, format="png")
    return np.frombuffer(stream.getvalue(), np.uint8)


def decoded(**changes):
    return {
        "accuracy": {"z": 0.25, "c": 0.5},
        "alphas": {"z": 1000.0, "c": 1e7},
        "curves": {},
        "plot": png(),
        "test_ids": [13, 27],
        "captions": ["a ball", "a house"],
        "n_voxels": 2000,
        "n_train": 1410,
        "n_test": 60,
        "repeats_mean": 3.0,
        "notes": ["2 voxels dropped"],
        "decoder": "/d.h5",
        "embeddings": "/e.h5",
        "loaded": False,
        "cached": False,
        **changes,
    }


@pytest.fixture
def panel(viewer, session, qtbot):
    made = DecodePanel(viewer)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def ready(panel):
    panel.session.choose(Source("/nsd"))
    return panel


def run(panel, **changes):
    panel.run.click()
    panel.session.engine.answer("decode", decoded(**changes))


def model_folder(place, *left_out):
    for part in PARTS:
        if part not in left_out:
            (place / part).mkdir(parents=True)
    return place


def test_data_come_first(panel):
    assert not panel.run.isEnabled()
    assert "Data must be chosen first" in panel.hint.text()
    panel.session.choose(Source("/nsd"))
    assert panel.run.isEnabled()
    panel.session.set_described({"test_ids": []})
    assert "must have test stimuli" in panel.hint.text()


def test_a_fit_from_start_to_end(ready):
    ready.run.click()
    args, _ = ready.session.engine.last("decode")
    assert args == {"recipe": ready.session.recipe.to_dict()}
    ready.session.engine.tell("decode", 2, 8, "fitting z")
    assert "fitting z (2 of 8" in ready.message.text()
    ready.session.engine.answer("decode", decoded())
    rows = [[ready.result.table.item(r, c).text() for c in range(3)] for r in range(2)]
    assert rows == [["z", "0.250", "1000"], ["c", "0.500", "1e+07"]]
    assert ready.result.counts.text() == (
        "2,000 voxels, 1,410 training images, 60 test images seen 3 times on average. Fitted now."
    )
    assert ready.result.notes.text() == "2 voxels dropped"
    assert ready.result.isVisibleTo(ready)
    assert ready.session.decoded["n_voxels"] == 2000
    assert ready.save.isEnabled()


def test_what_came_from_a_cache_or_a_file_is_said(ready):
    run(ready, cached=True)
    assert ready.result.counts.text().endswith("From the cache.")
    run(ready, loaded=True)
    assert ready.result.counts.text().endswith("Loaded from your file.")
    run(ready, loaded=True, cached=True)
    assert ready.result.counts.text().endswith("Loaded from your file."), "where the decoder is from, not its answer"


def test_the_first_test_stimulus_is_chosen_where_none_is(ready):
    run(ready)
    assert ready.session.recipe.stimulus_ids == (13,)
    ready.session.change(stimulus_ids=(27,))
    run(ready)
    assert ready.session.recipe.stimulus_ids == (27,), "a choice stays"
    ready.session.change(stimulus_ids=(5,))
    run(ready)
    assert ready.session.recipe.stimulus_ids == (13,), "but not one of another subject"


def test_the_plot_is_as_wide_as_the_panel_and_never_larger_than_it_is(ready, qtbot):
    ready.resize(300, 900)
    ready.show()
    run(ready)
    plot = ready.result.plot
    qtbot.waitUntil(lambda: plot.pixmap().width() == plot.width())
    assert plot.height() == pytest.approx(plot.width() * 0.75, abs=1.5)
    ready.resize(700, 900)
    qtbot.waitUntil(lambda: plot.pixmap().width() == 400)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: s.change_stage("betas", BetasParams(roi="V1")), "the ROI changed"),
        (lambda s: s.change_stage("betas", BetasParams(roi="V1", sessions="1")), "the ROI and the sessions changed"),
        (lambda s: s.change_stage("betas", BetasParams(zscore=False)), "the preparation of the betas changed"),
        (lambda s: s.change(models="/other"), "the models changed"),
        (lambda s: s.change_stage("features", FeatureParams(feature_normalisation="clip")), "the features changed"),
        (lambda s: s.change_stage("decoding", DecodingParams(seed=1)), "the ridge regression changed"),
        (lambda s: s.choose(Source("/nsd", "subj02")), "the data changed"),
    ],
)
def test_a_result_that_does_not_fit_any_more_is_greyed_with_the_reason(ready, change, what):
    run(ready)
    before = ready.session.recipe
    change(ready.session)
    assert ready.session.decoded is None
    assert ready.stale.text() == f"Decode again: {what} since."
    assert ready.stale.isVisibleTo(ready)
    assert not ready.result.table.isEnabled()
    assert not ready.save.isEnabled()
    # back to what it was: the result fits again, without another run
    ready.session._take(before)
    assert ready.session.decoded["n_voxels"] == 2000
    assert not ready.stale.isVisibleTo(ready)
    assert ready.result.table.isEnabled()


def test_guidance_does_not_touch_the_decoder(ready):
    run(ready)
    diffusion = ready.session.recipe.settings.diffusion
    ready.session.change_stage("diffusion", diffusion.but(seed=9))
    assert ready.session.decoded is not None
    assert not ready.stale.isVisibleTo(ready)


def test_a_change_during_the_fit_makes_its_result_stale(ready):
    ready.run.click()
    ready.session.change_stage("betas", BetasParams(roi="V1"))
    ready.session.engine.answer("decode", decoded())
    assert ready.session.decoded is None
    assert "the ROI changed" in ready.stale.text()
    assert ready.session.recipe.stimulus_ids == ()


def test_a_new_result_takes_the_place_of_a_stale_one(ready):
    run(ready)
    ready.session.change_stage("betas", BetasParams(roi="V1"))
    run(ready, n_voxels=248)
    assert ready.result.counts.text().startswith("248 voxels")
    assert ready.result.table.isEnabled()
    assert not ready.stale.isVisibleTo(ready)


def test_errors_and_cancels(ready):
    ready.run.click()
    ready.session.engine.answer("decode", UserError("Model folder must exist. Check it."))
    assert ready.message.text() == "Model folder must exist. Check it."
    assert ready.run.isEnabled()
    ready.run.click()
    ready.cancel.click()
    ready.session.engine.answer("decode", Cancelled())
    assert "cancelled" in ready.message.text()
    assert ready.session.decoded is None


# models


def test_models_go_to_the_recipe(ready, tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "sd")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    ready.models.browse.click()
    assert ready.session.recipe.models == str(folder)
    assert ready.models.recent() == [str(folder)]
    assert ready.run.isEnabled()


def test_a_folder_without_a_guide_asks_for_one(ready, tmp_path, monkeypatch, qtbot):
    folder, guide = model_folder(tmp_path / "sd", "image_encoder"), tmp_path / "clip"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    ready.models.browse.click()
    assert "Give a CLIP vision model as guide" in ready.hint.text()
    assert ready.session.recipe.models == "demo", "only what can be opened is taken"
    guide.mkdir()
    qtbot.keyClicks(ready.models.guide, str(guide))
    qtbot.waitUntil(lambda: "Guide must be a CLIP folder" in ready.models.problem_label.text())
    (guide / "config.json").touch()
    ready.models.guide.textEdited.emit("")
    qtbot.waitUntil(lambda: ready.session.recipe.guide == str(guide), timeout=5000)
    assert ready.session.recipe.models == str(folder)
    assert ready.hint.text() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/no/such/folder", "existing folder or a hub id"),
        ("", "got nothing"),
        ("a/b/c", "existing folder or a hub id"),
        ("./sd", "existing folder"),
        ("CompVis/stable-diffusion-v1-4", ""),
        ("demo", ""),
    ],
)
def test_models_are_checked_beside_them(ready, text, message):
    ready.models.models.setEditText(text)
    ready.models._taken()
    if message:
        assert message in ready.models.problem_label.text()
        assert not ready.run.isEnabled()
        assert ready.session.recipe.models == "demo"
    else:
        assert ready.run.isEnabled()
        assert ready.session.recipe.models == text


def test_folders_are_taken_by_their_whole_paths(ready, tmp_path, monkeypatch):
    folder, guide = model_folder(tmp_path / "sd14"), tmp_path / "here" / "clip"
    guide.mkdir(parents=True)
    (guide / "config.json").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    ready.models.models.setEditText("~/sd14")
    ready.models.guide.setText("clip")
    ready.models._taken()
    assert (ready.session.recipe.models, ready.session.recipe.guide) == (str(folder), str(guide))
    assert ready.models.models.currentText() == "~/sd14", "what is being typed is left alone"
    assert ready.models.recent() == [str(folder)]
    model_folder(tmp_path / "here/own/sd")
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
    assert "must have vae, unet" in ready.hint.text()


def test_the_parts_are_those_that_core_opens():
    import ast
    from pathlib import Path

    import napari_neuraldiffuser

    tree = ast.parse(
        (Path(napari_neuraldiffuser.__file__).parent / "core/networks/models.py").read_text(encoding="utf-8")
    )
    named = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    assert ast.literal_eval(named["PARTS"]) == PARTS


# ridge regression


def test_params_go_both_ways(ready):
    ready.decoding.controls["cv_targets"].setValue(64)
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
    assert not ready.run.isEnabled()
    assert ready.session.recipe.settings.decoding == DecodingParams()


@pytest.mark.parametrize("number", [1.0, 10.0, 1e3, 1e7, 0.1, 1 / 3, 1e-12, 12345.678])
def test_numbers_are_written_briefly_and_read_back_exactly(number):
    assert float(brief(number)) == number
    assert len(brief(number)) <= len(repr(number))


# files


def test_save(ready, monkeypatch, tmp_path):
    run(ready)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mine"), ""))
    ready.save.click()
    args, _ = ready.session.engine.last("save_decoder")
    assert args == {"recipe": ready.session.recipe.to_dict(), "path": str(tmp_path / "mine.h5")}
    ready.session.engine.answer("save_decoder", {"path": args["path"]})
    assert ready.message.text() == f"saved as {tmp_path / 'mine.h5'}"


def test_load_decodes_with_the_file_until_another_is_fitted(ready, monkeypatch):
    run(ready)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("/mine.h5", ""))
    ready.load.click()
    args, _ = ready.session.engine.last("load_decoder")
    assert args["path"] == "/mine.h5"
    ready.session.engine.answer("load_decoder", {"decoder": "/mine.h5", "accuracy": {}})
    assert ready.session.decoded is None
    assert ready.session.engine.names()[-1] == "decode", "and shows what it does at once"
    ready.session.engine.answer("decode", decoded(loaded=True, n_voxels=7))
    assert ready.result.counts.text().startswith("7 voxels")
    assert ready.forget.isVisibleTo(ready)
    ready.session.change_stage("betas", BetasParams(roi="V1"))
    assert not ready.forget.isVisibleTo(ready), "it is for the other voxels"
    ready.session.change_stage("betas", BetasParams())
    ready.forget.click()
    args, _ = ready.session.engine.last("load_decoder")
    assert args["path"] == ""
    ready.session.engine.answer("load_decoder", {"decoder": "", "accuracy": {}})
    ready.session.engine.answer("decode", decoded())
    assert not ready.forget.isVisibleTo(ready)


def test_a_panel_that_opens_later_can_leave_the_loaded_decoder(ready, viewer, qtbot):
    run(ready, loaded=True)
    later = DecodePanel(viewer)
    qtbot.addWidget(later)
    assert later.forget.isVisibleTo(later)
    later.forget.click()
    assert later.session.engine.last("load_decoder")[0]["path"] == ""


def test_a_loaded_decoder_is_gone_with_the_engine(ready):
    run(ready, loaded=True)
    before = ready.session.recipe
    ready.session.engine.died.emit()
    assert ready.session.decoded is None
    assert ready.stale.text() == GONE
    assert ready.stale.isVisibleTo(ready)
    assert not ready.result.table.isEnabled()
    assert not ready.forget.isVisibleTo(ready)
    ready.session.change_stage("betas", BetasParams(roi="V1"))
    ready.session._take(before)
    assert ready.session.decoded is None, "and does not come back with the choices"
    run(ready)
    assert not ready.stale.isVisibleTo(ready)


def test_a_loaded_decoder_is_gone_while_other_voxels_are_chosen(ready):
    run(ready, loaded=True)
    before = ready.session.recipe
    ready.session.change_stage("betas", BetasParams(roi="V1"))
    ready.session.engine.died.emit()
    ready.session._take(before)
    assert ready.session.decoded is None
    assert ready.stale.text() == GONE


def test_an_engine_that_dies_before_the_loaded_decoder_decoded(ready):
    ready._load("/mine.h5")
    ready.session.engine.answer("load_decoder", {"decoder": "/mine.h5", "accuracy": {}})
    ready.session.engine.died.emit()
    ready.session.engine.answer("decode", EngineError("The computing process ended.", ""))
    assert ready.stale.text() == GONE
    assert not ready.forget.isVisibleTo(ready)


def test_a_fitted_decoder_outlives_the_engine(ready):
    run(ready)
    ready.session.engine.died.emit()
    assert ready.session.decoded is not None, "it is on the disk"
    assert not ready.stale.isVisibleTo(ready)


def test_a_file_that_does_not_fit_changes_nothing(ready, monkeypatch):
    run(ready)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("/mine.h5", ""))
    ready.load.click()
    ready.session.engine.answer("load_decoder", UserError("/mine.h5 must be a decoder of demo, got another."))
    assert "must be a decoder of demo" in ready.message.text()
    assert ready.session.decoded is not None
    assert not ready.forget.isVisibleTo(ready)


def test_a_closed_dialog_does_nothing(ready, monkeypatch):
    run(ready)
    for name in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(QFileDialog, name, lambda *_: ("", ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    for button in (ready.load, ready.save, ready.models.browse, ready.models.browse_guide):
        button.click()
    assert ready.session.engine.names() == ["decode"]
    assert ready.session.recipe.models == "demo"


# memory


def test_the_next_session_has_the_same_choices(ready, viewer, qtbot, tmp_path):
    folder = model_folder(tmp_path / "sd")
    ready.models.models.setEditText(str(folder))
    ready.models._taken()
    ready.session.change_stage("decoding", DecodingParams(alphas=(3.0,), align="none"))
    ready.more.expand(animate=False)
    ready._store()
    ready.session.save()
    from napari_neuraldiffuser.widgets.session import session as sessions
    from tests.support.window.fake_engine import FakeEngine

    panel = DecodePanel(viewer, sessions.Session(viewer, FakeEngine()))
    qtbot.addWidget(panel)
    assert panel.models.values == (str(folder), "")
    assert panel.models.recent() == [str(folder)]
    assert panel.alphas.text() == "3"
    assert panel.decoding.controls["align"].currentText() == "none"
    assert panel.more.isExpanded()


@pytest.mark.parametrize("values", [{}, {"recent": None, "more": 3}, {"recent": [1, None]}])
def test_whatever_was_remembered_a_panel_opens(panel, values):
    panel.restore(values)
    assert panel.models.recent() == []


def test_reset(ready):
    ready.session.change(models="owner/name", guide="owner/clip")
    ready.session.change_stage("decoding", DecodingParams(seed=4))
    ready.alphas.setText("nonsense")
    ready.reset()
    assert ready.models.values == ("demo", "")
    assert ready.session.recipe.settings.decoding == DecodingParams()
    assert ready.alphas.alphas() == DecodingParams().alphas
    assert ready.session.recipe.source == Source("/nsd"), "the data stay"


def test_a_panel_that_opens_later_shows_what_was_decoded(ready, viewer, qtbot):
    run(ready)
    later = DecodePanel(viewer)
    qtbot.addWidget(later)
    assert later.result.counts.text() == ready.result.counts.text()
    assert later.save.isEnabled()


def test_differences_in_words(session):
    recipe = session.recipe
    assert differences(recipe, recipe) == ""
    other = recipe.but(models="x", guide="y").with_stage("betas", BetasParams(roi="V1", sessions="1"))
    assert differences(recipe, other) == "the ROI, the sessions and the models"


def test_a_real_decoder_is_fitted_saved_loaded_and_reused(viewer, qtbot, tmp_path, monkeypatch):
    """With the real engine on a simulated subject and small models."""
    from napari_neuraldiffuser.core.nsd import simulate
    from tests.support.small_models import save_small_models

    simulate.write_subjects(tmp_path / "nsd", SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32))
    save_small_models(tmp_path / "models")
    panel = DecodePanel(viewer)
    qtbot.addWidget(panel)

    def finish():
        qtbot.waitUntil(lambda: panel.task is None, timeout=300000)

    try:
        panel.session.choose(Source(str(tmp_path / "nsd")))
        panel.session.change_stage("decoding", DecodingParams(alphas=(10.0, 1e4), cv_targets=32))
        panel.models.models.setEditText(str(tmp_path / "models"))
        panel.models._taken()
        panel.run.click()
        finish()
        found = panel.session.decoded
        assert panel.message.text() == ""
        assert len(found["test_ids"]) == 8
        assert panel.result.table.rowCount() == 8
        assert panel.result.plot.whole.width() > 300
        assert panel.session.recipe.stimulus_ids == (found["test_ids"][0],)
        panel.run.click()
        finish()
        assert panel.result.counts.text().endswith("From the cache.")
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mine.h5"), ""))
        panel.save.click()
        finish()
        assert (tmp_path / "mine.h5").is_file()
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "mine.h5"), ""))
        panel.load.click()
        finish()
        assert panel.session.decoded["decoder"] == str(tmp_path / "mine.h5")
        assert panel.session.decoded["loaded"]
        panel.session.change_stage("betas", BetasParams(roi="V1"))
        panel.load.click()
        finish()
        assert "voxels" in panel.message.text(), "a decoder of other voxels is refused"
        assert panel.session.decoded is None
    finally:
        panel.session.close()
