"""The Reconstruct panel: parameters taken back from a run, marks of what is out of date, and the κ strip."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Recipe
from tests.support.window.reconstruct_run import BLUE, DECODED, GREEN, RED, colour, image, whole_run


def kappa(panel):
    return panel.form.controls.groups[0].controls["guidance_scale"]


def test_the_parameters_of_a_run_come_back_into_the_form(ready, session):
    ready.run_button.click()
    whole_run(session)
    first = session.recipe
    kappa(ready).setValue(40)
    ready.form.arms["unguided"].setChecked(False)
    ready.view.use.click()
    assert session.recipe == first
    assert kappa(ready).value() == 2.5
    assert "has the parameters of the run" in ready.message.text()
    assert "other choices" not in ready.message.text()


def test_data_that_a_run_had_are_named_and_left_alone(ready, session):
    ready.run_button.click()
    whole_run(session)
    kappa(ready).setValue(40)
    session.change_stage("betas", session.recipe.settings.betas.but(roi="V1"))
    ready.view.use.click()
    assert kappa(ready).value() == 2.5
    assert session.recipe.settings.betas.roi == "V1"
    assert "other choices of the ROI" in ready.message.text()


def test_pictures_are_marked_as_soon_as_a_parameter_changes(ready, session):
    ready.run_button.click()
    whole_run(session)
    heading = ready.view.gallery.rows["guided"].heading
    assert "OUT OF DATE" not in heading.text()
    kappa(ready).setValue(40)
    assert "OUT OF DATE: κ 2.5 → 40" in heading.text()
    kappa(ready).setValue(2.5)
    assert "OUT OF DATE" not in heading.text()
    session.set_decoded({**DECODED, "decoder": "/a.h5"})
    ready.run_button.click()
    whole_run(session)
    session.set_decoded({**DECODED, "decoder": "/another.h5"})
    assert "OUT OF DATE: the decoder" in ready.view.gallery.rows["given"].heading.text()


def test_the_pictures_below_the_brain_are_marked_too(ready, session, viewer):
    ready.run_button.click()
    whole_run(session)
    title = ready.beside_brain.strip.cells["guided"].title
    assert title.text() == "guided"
    kappa(ready).setValue(40)
    assert title.text() == "guided  OUT OF DATE"
    assert "κ 2.5 → 40" in title.toolTip()
    assert ready.beside_brain.strip.cells["unguided"].title.text() == "unguided"
    ready.view.use.click()
    assert title.text() == "guided"


# the strip


def strength(session, value, shade, ruined=""):
    rows = [{"stim": 3, "rep": r, "arm": "guided", "pixcorr": value / 10 + r / 10} for r in (1, 2)]
    images = np.broadcast_to(shade, (2, 64, 64, 3)).copy()
    payload = {"kappa": value, "scores": rows, "cached": False, "ruined": ruined, "images": images}
    session.engine.show("strip", "strength", payload)


def begin_strip(panel, session, factors="0 1 3"):
    panel.strip.line.setText(factors)
    panel.strip.run_button.click()
    args, _ = session.engine.last("strip")
    begin = {"stimulus": 3, "kappas": args["strengths"], "seen": image(GREEN), "start": image(BLUE)}
    session.engine.show("strip", "begin", begin)
    return args


def test_a_strip_shows_a_column_for_every_strength(ready, session):
    args = begin_strip(ready, session)
    assert args["strengths"] == [0.0, 2.5, 7.5]
    assert Recipe.from_dict(args["recipe"]) == session.recipe
    assert not ready.run_button.isEnabled()
    strength(session, 0.0, GREEN)
    strength(session, 2.5, RED)
    strength(session, 7.5, BLUE, ruined="PixCorr is 0.1 with guidance and 0.5 without")
    session.engine.tell("strip", 3, 9, "κ 7.5, step 3 of 9")
    assert ready.message.text() == "κ 7.5, step 3 of 9"
    session.engine.answer("strip", {"strengths": []})
    columns = list(ready.strip.columns.values())
    assert [column.heading.text() for column in columns] == ["κ 0, unguided", "κ 2.5", "κ 7.5"]
    assert [colour(column.pictures.itemAt(0).widget()) for column in columns] == [
        shade.tolist() for shade in (GREEN, RED, BLUE)
    ]
    assert columns[1].scores.text() == "PixCorr 0.40"
    assert [column.warning.text() for column in columns] == ["", "", "ruins the image"]
    assert "0.5 without" in columns[2].warning.toolTip()
    columns[2].use.click()
    assert kappa(ready).value() == 7.5


def test_a_cancelled_strip_keeps_its_columns(ready, session):
    begin_strip(ready, session)
    strength(session, 0.0, GREEN)
    ready.cancel.click()
    session.engine.answer("strip", Cancelled({"strengths": []}))
    assert ready.strip.columns[0.0].scores.text().startswith("PixCorr")
    assert ready.strip.columns[2.5].scores.text() == "not computed"
    assert ready.strip.run_button.isEnabled()


def test_an_error_of_a_strip_is_said(ready, session):
    begin_strip(ready, session)
    session.engine.answer("strip", UserError("stimuli must be test stimuli, got 3. Choose others."))
    assert "Choose others" in ready.message.text()
    assert ready.strip.columns[2.5].scores.text() == "not computed"


@pytest.mark.parametrize("text", ["", "0", "a", "-1 2", "1 nan", "inf"])
def test_multiples_that_cannot_be_are_said_while_they_are_typed(ready, text):
    ready.strip.line.setText(text)
    assert "must be numbers" in ready.strip.problem.text()
    assert not ready.strip.run_button.isEnabled()
    ready.strip.line.setText("0,5 2" if text == "a" else "0.5, 2")
    assert ready.strip.run_button.isEnabled()


def test_a_strip_needs_a_strength_and_what_a_run_needs(ready, session):
    kappa(ready).setValue(0)
    assert "κ must be above 0" in ready.strip.problem.text() or "must be numbers" in ready.strip.problem.text()
    assert not ready.strip.run_button.isEnabled()
    kappa(ready).setValue(2.5)
    assert ready.strip.run_button.isEnabled()
    session.change(stimulus_ids=())
    assert not ready.strip.run_button.isEnabled()
