"""The Reconstruct panel: pictures beside the brain, scripts of a result, keys, and what is remembered."""

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtWidgets import QApplication

from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import PRESETS
from napari_neuraldiffuser.widgets.files.layer_info import KEY, about
from napari_neuraldiffuser.widgets.files.layers import PICTURES, TITLES
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from napari_neuraldiffuser.widgets.run.compare import BEFORE
from napari_neuraldiffuser.widgets.run.gallery import SIDE
from napari_neuraldiffuser.widgets.session.keys import Shortcut, window_of
from napari_neuraldiffuser.widgets.session.session import Session
from tests.support.window.reconstruct_run import BLUE, DECODED, GREEN, RED, begin, preview, runs, whole_run
from tests.support.window.viewers import settle


def arms(viewer):
    return [viewer.layers[name] for name in ("unguided", "guided")]


def test_pictures_beside_the_brain_are_made_once_and_then_changed(ready, session, viewer, anatomy, qtbot):
    assert ready.beside.isChecked()
    assert ready.beside.isEnabled()
    ready.run_button.click()
    begin(session)
    assert len(viewer.layers) <= 2  # one at a time
    qtbot.waitUntil(lambda: len(viewer.layers) == 6)
    assert [layer.name for layer in viewer.layers] == [anatomy.name, *PICTURES, TITLES]
    assert viewer.layers.selection.active.name == anatomy.name
    guided = viewer.layers["guided"]
    assert not (guided.data == RED).all()
    preview(session, "guided", RED)
    assert viewer.layers["guided"] == guided
    assert (guided.data == RED).all()
    assert (viewer.layers["seen"].data == GREEN).all()
    assert guided.extent.world[0][1] > anatomy.extent.world[1][2]  # right of the brain
    # as large as the one that stands for an arm that is still to come, which has other pixels
    sides = [
        np.ptp(layer.extent.world, axis=0) * layer.data.shape[0] / (layer.data.shape[0] - 1) for layer in arms(viewer)
    ]
    np.testing.assert_allclose(sides, sides[0][0])
    assert {str(unit) for unit in guided.units} == {"millimeter"}

    viewer.layers.remove(guided)  # by the user: comes back with the next image
    preview(session, "guided", BLUE, done=4)
    qtbot.waitUntil(lambda: len(viewer.layers) == 6)
    assert (viewer.layers["guided"].data == BLUE).all()
    ready.beside.setChecked(False)
    assert [layer.name for layer in viewer.layers] == [anatomy.name]
    ready.beside.setChecked(True)
    qtbot.waitUntil(lambda: len(viewer.layers) == 6)
    assert (viewer.layers["guided"].data == BLUE).all()


def test_without_anatomy_there_is_nothing_beside_it(ready, session, viewer, qtbot):
    assert not ready.beside.isEnabled()
    assert "anatomy layer" in ready.beside.toolTip()
    ready.run_button.click()
    whole_run(session)
    assert len(viewer.layers) == 0
    viewer.add_image(np.zeros((5, 30, 20)), metadata={KEY: about("anatomy")})
    qtbot.waitUntil(lambda: len(viewer.layers) == 6)


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
    viewer.add_image(np.zeros((5, 30, 20)), metadata={KEY: about("anatomy")})
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
