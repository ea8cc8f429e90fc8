"""The Reconstruct panel runs by itself, once, after a parameter changed."""

import pytest

from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.run.form import REST
from tests.support.window.reconstruct_run import BLUE, RED, RESULT, begin, first, preview, runs, whole_run
from tests.support.window.viewers import settle


@pytest.fixture
def lively(ready, session, monkeypatch):
    ready.live.timer.setInterval(30)
    ready.live.tick.setChecked(True)
    return ready


def test_live_runs_once_after_a_burst_of_changes(lively, session, qtbot):
    kappa = lively.form.controls.groups[0].controls["guidance_scale"]
    assert REST == 600
    for value in (6, 7, 8):
        kappa.setValue(value)
    assert runs(session) == 0
    qtbot.waitUntil(lambda: runs(session) == 1)
    assert session.engine.last("reconstruct")[0]["recipe"]["settings"]["guidance"]["guidance_scale"] == 8
    settle(lively.live.timer)
    assert runs(session) == 1


def test_live_cancels_the_former_run_and_runs_once(lively, session, qtbot):
    kappa = lively.form.controls.groups[0].controls["guidance_scale"]
    kappa.setValue(6)
    qtbot.waitUntil(lambda: runs(session) == 1)
    begin(session)
    preview(session, "guided", RED)
    for value in (7, 8):
        kappa.setValue(value)
        settle(lively.live.timer)
    _, task = session.engine.last("reconstruct")
    assert session.engine.sent == [{"cancel": task.number}]  # once: twice would end the engine
    assert session.engine.stopped == 0
    session.engine.answer("reconstruct", Cancelled({**RESULT, "complete": False}))
    qtbot.waitUntil(lambda: runs(session) == 2)
    settle(lively.live.timer)
    assert runs(session) == 2
    assert session.engine.last("reconstruct")[0]["recipe"]["settings"]["guidance"]["guidance_scale"] == 8
    whole_run(session, BLUE)
    assert lively.view.box.count() == 1  # the dropped run is no part of the history
    assert first(lively) == BLUE.tolist()


def test_live_goes_on_when_the_dropped_run_finished_all_the_same(lively, session, qtbot):
    finished = []
    session.run_finished.connect(finished.append)
    kappa = lively.form.controls.groups[0].controls["guidance_scale"]
    kappa.setValue(6)
    qtbot.waitUntil(lambda: runs(session) == 1)
    begin(session)
    kappa.setValue(7)
    qtbot.waitUntil(lambda: bool(session.engine.sent))
    session.engine.answer("reconstruct", RESULT)
    qtbot.waitUntil(lambda: runs(session) == 2)
    assert not finished


def test_cancel_by_the_user_ends_live_until_the_next_change(lively, session, qtbot):
    kappa = lively.form.controls.groups[0].controls["guidance_scale"]
    kappa.setValue(6)
    qtbot.waitUntil(lambda: runs(session) == 1)
    begin(session)
    preview(session, "guided", RED)
    kappa.setValue(7)
    qtbot.waitUntil(lambda: bool(session.engine.sent))
    lively.cancel.click()
    assert session.engine.stopped == 0
    session.engine.answer("reconstruct", Cancelled())
    settle(lively.live.timer)
    assert runs(session) == 1
    kappa.setValue(8)
    qtbot.waitUntil(lambda: runs(session) == 2)


def test_live_waits_for_other_panels_and_for_data_that_are_decoded(lively, session, qtbot):
    session.call("contribution")
    lively.form.controls.groups[0].controls["guidance_scale"].setValue(6)
    settle(lively.live.timer)
    assert runs(session) == 0
    assert not session.engine.sent  # what others run is not cancelled
    session.engine.answer("contribution", {})
    qtbot.waitUntil(lambda: runs(session) == 1)
    session.engine.answer("reconstruct", RESULT)
    session.change_stage("betas", session.recipe.settings.betas.but(roi="V1"))
    settle(lively.live.timer)
    assert session.engine.names().count("decode") == 0


def test_live_is_off_at_first(ready, session, qtbot):
    ready.form.controls.groups[0].controls["guidance_scale"].setValue(6)
    settle(ready.live.timer)
    assert runs(session) == 0
