"""The Reconstruct panel: pictures beside the brain, scripts of a result, keys, and what is remembered."""

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtWidgets import QApplication

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import PRESETS
from napari_neuraldiffuser.widgets.files import view
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from napari_neuraldiffuser.widgets.run.compare import BEFORE
from napari_neuraldiffuser.widgets.run.gallery import SIDE
from napari_neuraldiffuser.widgets.session.keys import Shortcut, window_of
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.views import docked
from napari_neuraldiffuser.widgets.views.pictures import BLANK, PictureStrip
from tests.support.window.reconstruct_run import (
    BLUE,
    DECODED,
    GREEN,
    RED,
    begin,
    finish_arm,
    pixels,
    preview,
    runs,
    whole_run,
)
from tests.support.window.viewers import settle


def shown(strip):
    """Picture name to the colour of its middle, as the cell on the screen has it."""
    return {
        name: pixels(cell.picture.pixmap())[30, 30].tolist()
        for name, cell in strip.cells.items()
        if not cell.isHidden()
    }


def test_pictures_are_changed_with_every_preview(ready, session, viewer):
    ready.run_button.click()
    begin(session)
    strip = ready.beside_brain.strip
    assert len(viewer.layers) == 0
    dark = BLANK[0, 0].tolist()
    assert shown(strip) == {"seen": GREEN.tolist(), "start": BLUE.tolist(), "unguided": dark, "guided": dark}
    preview(session, "guided", RED)
    assert shown(strip)["guided"] == RED.tolist()
    preview(session, "guided", BLUE, done=4)
    assert shown(strip)["guided"] == BLUE.tolist()
    assert "step 4 of 18" in strip.cells["guided"].text.text()
    finish_arm(session, "guided", RED)
    assert "0.15" in strip.cells["guided"].text.text()  # the mean PixCorr of its repeats


def test_a_run_without_an_arm_has_no_place_for_it(ready, session):
    ready.run_button.click()
    begin(session, arms=("unguided",))
    assert set(shown(ready.beside_brain.strip)) == {"seen", "start", "unguided"}


def test_the_arrows_turn_panel_and_pictures(ready, session):
    ready.run_button.click()
    begin(session, stimuli=(3, 7))
    strip = ready.beside_brain.strip
    assert strip.position.text() == "stimulus 3 (1 of 2)"
    strip.on.click()
    assert (strip.stimulus, ready.view.stimulus) == (7, 7)
    strip.on.click()
    assert (strip.stimulus, ready.view.stimulus) == (3, 3)


@pytest.mark.window
def test_a_strip_that_the_user_closed_stays_closed(ready, session, viewer):
    ready.run_button.click()
    begin(session)
    first = PictureStrip.of(viewer)
    assert first is ready.beside_brain.strip
    viewer.window.remove_dock_widget(first)
    preview(session, "guided", RED)
    assert not ready.beside.isChecked()
    assert docked.find(viewer, PictureStrip) is None
    ready.beside.setChecked(True)
    assert shown(PictureStrip.of(viewer))["guided"] == RED.tolist()
    ready.beside.setChecked(False)
    assert PictureStrip.of(viewer).parent().isHidden()


@pytest.mark.window
@pytest.mark.parametrize("convention", view.CONVENTIONS)
def test_no_view_of_the_brain_mirrors_pictures(ready, session, viewer, anatomy, convention):
    chequered = np.zeros((64, 64, 3), np.uint8)
    chequered[:, :32] = RED  # left half
    ready.run_button.click()
    begin(session)
    strip = PictureStrip.of(viewer)
    strip.show_pictures({"seen": chequered}, 3)
    view.AnatomicalView.of(viewer).choose(convention)
    for plane in view.PLANES:
        view.show_plane(viewer, plane)
        drawn = pixels(strip.cells["seen"].picture.pixmap())
        assert (drawn[:, 5] == RED).all(), plane
        assert not (drawn[:, -5]).any(), plane
        assert strip.cells["seen"].title.text() == "seen"


def test_scripts_go_to_the_clipboard_and_the_folder_opens(ready, session, monkeypatch):
    opened = []
    from napari_neuraldiffuser.widgets.run import view as run_view

    monkeypatch.setattr(run_view.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) or True)
    assert not ready.view.results.python.isEnabled()
    ready.run_button.click()
    whole_run(session)
    ready.view.results.python.click()
    assert QApplication.clipboard().text() == "print(1)"
    ready.view.results.nipype.click()
    assert QApplication.clipboard().text() == "import nipype"
    assert "Nipype" in ready.message.text()
    ready.view.results.provenance.click()
    assert opened == ["/runs/1"]


@pytest.mark.window
def test_a_panel_that_was_closed_leaves_nothing_behind(viewer, session, qtbot):
    session.choose(Source(nsd_dir="/nsd"))
    panel = ReconstructPanel(viewer)
    session.set_described({"test_ids": [3, 7]})
    qtbot.waitUntil(lambda: "thumbnails" in session.engine.names())
    kept = panel.live, panel.form.picker, panel.view  # Python's halves outlive Qt's
    panel.deleteLater()
    qtbot.waitUntil(lambda: not isalive(panel))
    images = np.zeros((2, 8, 8, 3), np.uint8)
    session.engine.answer("thumbnails", {"images": images, "captions": ["", ""]})
    session.change(stimulus_ids=(7,), device="cuda:0")
    session.set_decoded(DECODED)
    for shortcut in window_of(viewer).findChildren(Shortcut):
        shortcut.activated.emit()
    assert runs(session) == 0
    del kept


def test_everything_is_remembered(viewer, session, qtbot):
    session.choose(Source(nsd_dir="/nsd"))
    panel = ReconstructPanel(viewer)
    panel.live.tick.setChecked(True)
    panel.every.setValue(5)
    panel.view.gallery.size.setValue(200)
    panel.view.compare.choose(BEFORE)
    panel.beside.setChecked(False)
    panel.form.controls.more.expand(animate=False)
    panel.form.arms["unguided"].setChecked(False)
    panel.form.controls.groups[0].controls["guidance_scale"].setValue(11)
    state = panel.state()
    panel._store()
    session.save()
    settle()

    again = Session(viewer, type(session.engine)())
    other = ReconstructPanel(viewer, again)
    assert other.state() == state
    assert again.recipe.arms == ("guided",)
    assert not other.form.arms["unguided"].isChecked()
    assert other.form.controls.groups[0].controls["guidance_scale"].value() == 11
    other.reset()
    assert other.state() == {**state, "live": False, "preview_every": 2, "side": SIDE, "before": False} | {
        "beside": True,
        "more": False,
    }
    assert again.recipe.settings.guidance.guidance_scale == PRESETS["demo"]["guidance"]["guidance_scale"]
    assert again.recipe.arms == Recipe().arms
    other.restore({"live": "x", "preview_every": None, "side": [], "preset": 3, "more": 1, "beside": {}})
    again.close()
