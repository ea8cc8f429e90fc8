"""The Decode panel: decoders in files, with the real engine too."""

from qtpy.QtWidgets import QFileDialog

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import BetasParams, DecodingParams
from napari_neuraldiffuser.widgets.pages.decode import GONE, DecodePanel
from napari_neuraldiffuser.widgets.session.engine import EngineError
from tests.support.window.decode_answers import decoded, run


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


def test_a_real_decoder_is_fitted_saved_loaded_and_reused(viewer, qtbot, nsd_dir, model_dir, tmp_path, monkeypatch):
    """With the real engine on a simulated subject and small models."""
    panel = DecodePanel(viewer)
    qtbot.addWidget(panel)

    def finish():
        qtbot.waitUntil(lambda: panel.task is None, timeout=300000)

    try:
        panel.session.choose(Source(str(nsd_dir)))
        panel.session.change_stage("decoding", DecodingParams(alphas=(10.0, 1e4), cv_targets=32))
        panel.models.models.setEditText(str(model_dir))
        panel.models._taken()
        panel.run_button.click()
        finish()
        found = panel.session.decoded
        assert panel.message.text() == ""
        assert len(found["test_ids"]) == 8
        assert panel.result.table.rowCount() == 8
        assert panel.result.plot.whole.width() > 300
        assert panel.session.recipe.stimulus_ids == (found["test_ids"][0],)
        panel.run_button.click()
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
