"""The Reconstruct panel: from the engine's events to pixels on the screen."""

import hashlib

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import DiffusionParams
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from napari_neuraldiffuser.widgets.run.compare import BEFORE
from napari_neuraldiffuser.widgets.session import session as sessions
from napari_neuraldiffuser.widgets.session.engine import Engine, EngineError
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.views import docked
from napari_neuraldiffuser.widgets.views.pictures import PictureStrip
from tests.support.window.reconstruct_run import (
    BLUE,
    DECODED,
    GREEN,
    RED,
    RESULT,
    begin,
    finish_arm,
    first,
    image,
    preview,
    runs,
    whole_run,
)

PATIENCE = 120_000  # ms


def test_run_decodes_first_and_goes_on_by_itself(panel, session):
    session.change(stimulus_ids=(7,))
    finished = []
    session.run_finished.connect(finished.append)
    panel.run_button.click()
    assert session.engine.names()[-1] == "decode"
    session.engine.tell("decode", 2, 8, "fitting, g04")
    assert "fitting" in panel.message.text()
    session.engine.answer("decode", DECODED)
    assert session.decoded is DECODED
    args, _ = session.engine.last("reconstruct")
    assert Recipe.from_dict(args["recipe"]) == session.recipe
    assert args["recipe"]["stimulus_ids"] == [7]
    assert args["preview_every"] == 2
    begin(session, (7,))
    session.engine.answer("reconstruct", RESULT)
    assert finished == [RESULT]
    assert panel.message.text().startswith("finished in")
    assert panel.run_button.isEnabled()


def test_data_that_changed_during_decoding_are_decoded_again(panel, session):
    session.change(stimulus_ids=(7,))
    panel.start()
    session.change_stage("betas", session.recipe.settings.betas.but(roi="V1"))
    session.engine.answer("decode", DECODED)
    assert session.decoded is None
    assert runs(session) == 0
    assert session.engine.names().count("decode") == 2
    assert session.engine.last("decode")[0]["recipe"]["settings"]["betas"]["roi"] == "V1"


def test_previews_change_the_pixels_on_the_screen(ready, session):
    ready.run_button.click()
    begin(session)
    assert first(ready, "given") == GREEN.tolist()
    assert ready.view.gallery.rows["guided"].isHidden()
    preview(session, "guided", RED, done=2)
    assert first(ready) == RED.tolist()
    assert "step 2 of 18" in ready.view.gallery.rows["guided"].heading.text()
    preview(session, "guided", BLUE, done=4)
    assert first(ready) == BLUE.tolist()
    assert ready.message.text().startswith("guided, step 4 of 18")
    assert "(" not in ready.message.text()
    finish_arm(session, "guided", GREEN)
    assert first(ready) == GREEN.tolist()
    assert "PixCorr 0.15, SSIM 0.50" in ready.view.gallery.rows["guided"].heading.text()
    assert ready.view.table.item(0, 1).text() == "0.150 ± 0.071"
    assert ready.view.curve.values == [2.0, 1.0]


def test_cancel_keeps_and_marks_the_images_so_far(ready, session):
    ready.run_button.click()
    begin(session)
    preview(session, "guided", RED, done=7)
    ready.cancel.click()
    finish_arm(session, "guided", BLUE, complete=False)
    session.engine.answer("reconstruct", Cancelled({**RESULT, "complete": False}))
    assert first(ready) == BLUE.tolist()
    assert "partial: step 7 of 18" in ready.view.gallery.rows["guided"].heading.text()
    assert "(partial)" in ready.view.box.currentText()
    assert ready.view.results.python.isEnabled()
    assert "kept" in ready.message.text()
    assert len(session.engine.sent) == 1


def test_a_cancel_that_ended_the_engine_keeps_the_preview(ready, session):
    ready.run_button.click()
    begin(session)
    preview(session, "guided", RED, done=7)
    ready.cancel.click()
    ready.cancel.click()
    assert session.engine.stopped == 1
    session.engine.answer("reconstruct", Cancelled())
    assert first(ready) == RED.tolist()
    assert "partial" in ready.view.gallery.rows["guided"].heading.text()
    assert not ready.view.results.python.isEnabled()


@pytest.mark.parametrize("error", [UserError("cpu must have memory, got none."), EngineError("gone", "log")])
def test_partial_images_stay_after_an_error(ready, session, error):
    finished = []
    session.run_finished.connect(finished.append)
    ready.run_button.click()
    begin(session)
    preview(session, "guided", RED, done=3)
    session.engine.answer("reconstruct", error)
    assert ready.message.text() == str(error)
    assert first(ready) == RED.tolist()
    assert "partial: step 3 of 18" in ready.view.gallery.rows["guided"].heading.text()
    assert ready.run_button.isEnabled()
    assert not finished
    ready.run_button.click()
    whole_run(session, BLUE)
    assert first(ready) == BLUE.tolist()


def test_history_says_what_changed(ready, session):
    ready.run_button.click()
    whole_run(session, GREEN)
    ready.form.controls.groups[0].controls["guidance_scale"].setValue(10)
    ready.run_button.click()
    whole_run(session, RED)
    assert ready.view.box.count() == 2
    assert ready.view.box.currentText().endswith("stimulus 3: κ 2.5 → 10")
    ready.view.compare.choose(BEFORE)
    assert first(ready) == RED.tolist()
    assert first(ready, "B, guided") == GREEN.tolist()


def test_another_stimulus_shows_its_own_run_or_what_to_do(ready, session):
    ready.run_button.click()
    whole_run(session)
    session.change(stimulus_ids=(7,))
    assert "No run of stimulus 7" in ready.view.gallery.empty.text()
    session.change(stimulus_ids=(3,))
    assert first(ready) == RED.tolist()


def test_a_run_of_several_stimuli_can_be_leafed_through(ready, session):
    session.change(stimulus_ids=(3, 7))
    ready.run_button.click()
    begin(session, (3, 7))
    images = np.stack([np.stack([image(RED)] * 2), np.stack([image(BLUE)] * 2)])
    session.engine.show("reconstruct", "preview", {"arm": "guided", "done": 1, "total": 18, "images": images})
    assert first(ready) == RED.tolist()
    ready.view.gallery.on.click()
    assert first(ready) == BLUE.tolist()
    assert ready.view.gallery.position.text() == "stimulus 7 (2 of 2)"


def test_with_the_engine(viewer, files, tmp_path, qtbot):

    session = Session(viewer, Engine(tmp_path / "cache"))
    sessions._SESSIONS[hash(viewer)] = session
    try:
        check_run(ReconstructPanel(viewer, session), session, files, qtbot)
    finally:
        session.close()
        qtbot.waitUntil(lambda: session.engine.process is None, timeout=PATIENCE)


def check_run(panel, session, files, qtbot):
    session.choose(Source(nsd_dir=str(files / "nsd")))
    diffusion = DiffusionParams(n_steps=8, repeats=2, cfg_scale=3.0)
    settings = session.recipe.settings
    session.change(models=str(files / "models"), settings=type(settings)(diffusion=diffusion))
    session.call("describe", {"source": session.recipe.source.to_dict()}, quiet=True).ended.connect(
        session.set_described
    )
    qtbot.waitUntil(lambda: bool(session.recipe.stimulus_ids), timeout=PATIENCE)
    panel.every.setValue(1)
    with qtbot.waitSignal(session.run_finished, timeout=PATIENCE):
        panel.start()
    run = panel.view.run
    assert run.complete
    assert run.images["guided"].shape[:2] == (1, 2)
    assert {row["arm"] for row in run.scores} == {"guided", "unguided"}
    assert panel.view.table.rowCount() >= 3
    panel.view.results.python.click()
    compile(QApplication.clipboard().text(), "script", "exec")
    panel.view.results.nipype.click()
    assert "nipype" in QApplication.clipboard().text()
    assert panel.form.picker.model.icons

    session.change_stage("diffusion", diffusion.but(n_steps=400))
    panel.start()
    assert panel.view.run is run
    qtbot.waitUntil(lambda: panel.view.run is not run and "guided" in panel.view.run.images, timeout=PATIENCE)
    panel.cancel.click()
    qtbot.waitUntil(lambda: panel.task is None, timeout=PATIENCE)
    part = panel.view.run
    assert 0 < part.steps["guided"][0] < part.steps["guided"][1] == 300
    assert part.tag("guided").startswith("partial: step")
    assert part.result["complete"] is False
    assert panel.view.results.python.isEnabled()
    # the picture is what the engine kept of it, not the last preview
    kept = next(row for row in part.result["provenance"]["images"] if row["arm"] == "guided" and row["rep"] == 1)
    assert hashlib.sha256(np.ascontiguousarray(part.images["guided"][0, 0])).hexdigest() == kept["sha256"]


def test_another_subject_that_saw_the_same_stimulus_has_no_run_yet(ready, session):
    ready.run_button.click()
    whole_run(session)
    assert ready.view.run is not None
    strip = ready.beside_brain.strip
    assert "guided" in strip.images
    session.choose(Source(nsd_dir="/nsd", subject="subj02"))
    assert ready.view.run is None
    session.set_decoded(DECODED)
    session.change(stimulus_ids=(3,))
    assert ready.view.run is None
    assert not ready.view.results.python.isEnabled()
    assert not strip.images
    session.choose(Source(nsd_dir="/nsd"))
    session.set_decoded(DECODED)
    session.change(stimulus_ids=(3,))
    assert ready.view.run is not None, "the run of the first subject is still there"


def test_a_stimulus_that_the_sessions_do_not_show_is_not_replaced_in_silence(panel, session):
    session.set_described({"test_ids": [3, 7, 9, 11]})
    session.change(stimulus_ids=(11,))
    panel.run_button.click()
    assert session.engine.names()[-1] == "decode"
    session.engine.answer("decode", DECODED)
    assert session.recipe.stimulus_ids != (11,)
    assert runs(session) == 0
    assert "another one is chosen now" in panel.message.text()


def test_a_stimulus_that_is_chosen_meanwhile_is_shown_at_the_end(ready, session):
    ready.run_button.click()
    begin(session)
    session.change(stimulus_ids=(7,))
    assert ready.view.stimulus == 3
    finish_arm(session, "guided", RED)
    finish_arm(session, "unguided", RED)
    session.engine.answer("reconstruct", RESULT)
    assert ready.view.run is None
    assert "No run of stimulus 7" in ready.view.gallery.empty.text()


@pytest.mark.window
def test_a_reopened_panel_takes_the_pictures_that_are_there(ready, session, anatomy, viewer, qtbot):
    ready.run_button.click()
    whole_run(session)
    viewer.window.remove_dock_widget(ready)
    again = ReconstructPanel(viewer)
    viewer.window.add_dock_widget(again)
    again.run_button.click()
    whole_run(session, shade=BLUE)
    strip = docked.find(viewer, PictureStrip)
    assert again.beside_brain.strip is strip
    assert (strip.images["guided"] == BLUE).all()


def test_images_that_cannot_be_written_end_no_run(ready, session):
    ready.run_button.click()
    ready.view.failed.emit(UserError("Images must be saved to a folder that can be written."))
    assert "must be saved" in ready.message.text() and ready.message.property("tone") == "error"
    assert ready.current is not None and ready.task is not None
