"""The Decode panel: results, when they go stale, and what is remembered."""

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Source, differences
from napari_neuraldiffuser.core.params import BetasParams, DecodingParams, FeatureParams
from napari_neuraldiffuser.widgets.pages.decode import DecodePanel
from napari_neuraldiffuser.widgets.session import session as sessions
from tests.support.window.decode_answers import decoded, model_folder, run
from tests.support.window.fake_engine import FakeEngine


def test_data_come_first(panel):
    assert not panel.run_button.isEnabled()
    assert "Data must be chosen first" in panel.hint.text()
    panel.session.choose(Source("/nsd"))
    assert panel.run_button.isEnabled()
    panel.session.set_described({"test_ids": []})
    assert "must have test stimuli" in panel.hint.text()


def test_a_fit_from_start_to_end(ready):
    ready.run_button.click()
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


def test_what_decoded_targets_are_worth(ready):
    assert not ready.judge.isEnabled() and not ready.worth.isVisibleTo(ready)
    run(ready, spread=["spread of z multiplied by 1.60, per column"])
    assert "spread of z multiplied by 1.60, per column" in ready.result.notes.text()
    ready.judge.click()
    args, _ = ready.session.engine.last("worth")
    assert args == {"recipe": ready.session.recipe.to_dict()}
    heads = [{"name": "target", "tip": "which"}, {"name": "R²", "tip": "share of variance"}]
    worth = {"heads": heads, "rows": [["z", "0.310 ± 0.010"], ["c", "n/a"]], "notes": ["c: at chance"]}
    ready.session.engine.answer("worth", worth)
    assert ready.worth.isVisibleTo(ready)
    assert [ready.worth.table.item(r, 1).text() for r in range(2)] == ["0.310 ± 0.010", "n/a"]
    assert ready.worth.table.horizontalHeaderItem(1).toolTip() == "share of variance"
    assert ready.worth.notes.text() == "c: at chance."
    # of another decoder it says nothing
    ready.session.change_stage("decoding", DecodingParams(cv_targets=7))
    assert not ready.worth.isVisibleTo(ready)


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
        (lambda s: s.change_stage("decoding", DecodingParams(seed=1)), "the decoder's parameters changed"),
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
    ready.run_button.click()
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
    ready.run_button.click()
    ready.session.engine.answer("decode", UserError("Model folder must exist. Check it."))
    assert ready.message.text() == "Model folder must exist. Check it."
    assert ready.run_button.isEnabled()
    ready.run_button.click()
    ready.cancel.click()
    ready.session.engine.answer("decode", Cancelled())
    assert "cancelled" in ready.message.text()
    assert ready.session.decoded is None


def test_the_next_session_has_the_same_choices(ready, viewer, qtbot, tmp_path):
    folder = model_folder(tmp_path / "sd")
    ready.models.models.setEditText(str(folder))
    ready.models._taken()
    ready.session.change_stage("decoding", DecodingParams(alphas=(3.0,), align="none"))
    ready.more.expand(animate=False)
    ready._store()
    ready.session.save()

    later = sessions.Session(viewer, FakeEngine())
    panel = DecodePanel(viewer, later)
    qtbot.addWidget(panel)
    assert panel.models.values == (str(folder), "")
    assert panel.models.models.recent() == [str(folder)]
    assert panel.alphas.text() == "3"
    assert panel.decoding.controls["align"].currentText() == "none"
    assert panel.more.isExpanded()
    later.close()


@pytest.mark.parametrize("values", [{}, {"recent": None, "more": 3}, {"recent": [1, None]}])
def test_whatever_was_remembered_a_panel_opens(panel, values):
    panel.restore(values)
    assert panel.models.models.recent() == []


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
