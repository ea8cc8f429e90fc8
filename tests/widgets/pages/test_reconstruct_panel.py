"""The Reconstruct panel: from controls to a recipe, and from the engine's events to pixels on the screen."""

import hashlib

import numpy as np
import pytest
from qtpy.compat import isalive
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams
from napari_neuraldiffuser.widgets.files.layer_info import KEY, about
from napari_neuraldiffuser.widgets.files.layers import PICTURES, TITLES
from napari_neuraldiffuser.widgets.pages.reconstruct import KEYS, ReconstructPanel
from napari_neuraldiffuser.widgets.run.form import REST
from napari_neuraldiffuser.widgets.run.gallery import SIDE
from napari_neuraldiffuser.widgets.session.engine import Engine, EngineError
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.state import params_of_preset, presets
from tests.support.window.viewers import dock
from tests.widgets.run.test_gallery import BLUE, GREEN, RED, colour, image

PATIENCE = 120_000  # ms
RESULT = {"folder": "/runs/1", "python": "print(1)", "nipype": "import nipype", "complete": True, "scores": []}
DECODED = {"test_ids": [3, 7, 9], "captions": ["a red ball", "a house", "a field"]}


@pytest.fixture
def panel(viewer, session, qtbot):
    session.choose(Source(nsd_dir="/nsd"))
    made = ReconstructPanel(viewer)
    dock(viewer, made, qtbot)
    return made


@pytest.fixture
def ready(panel, session):
    """Decoded, and stimulus 3 chosen."""
    session.set_decoded(DECODED)
    return panel


@pytest.fixture
def anatomy(viewer):
    affine = np.diag([4.0, 3.0, 2.0, 1.0])
    return viewer.add_image(np.zeros((5, 30, 20)), affine=affine, units=("mm",) * 3, metadata={KEY: about("anatomy")})


def begin(session, stimuli=(3,), arms=("guided", "unguided")):
    n = len(stimuli)
    given = {"seen": np.stack([image(GREEN)] * n), "start": np.stack([image(BLUE)] * n)}
    about_run = {"stimulus_ids": list(stimuli), "arms": list(arms), "repeats": 2, "n_steps": 18}
    session.engine.show("reconstruct", "begin", {**about_run, **given})


def preview(session, arm, shade, done=2, n=1):
    images = np.broadcast_to(shade, (n, 2, 64, 64, 3)).copy()
    step = {"arm": arm, "done": done, "total": 18, "timestep": 500, "loss": None, "seconds_per_step": 0.1}
    session.engine.show("reconstruct", "step", step)
    session.engine.tell("reconstruct", done, 36, f"{arm}, step {done} of 18")
    session.engine.show("reconstruct", "preview", {"arm": arm, "done": done, "total": 18, "images": images})


def finish_arm(session, arm, shade, n=1, **more):
    images = np.broadcast_to(shade, (n, 2, 64, 64, 3)).copy()
    scores = [{"stim": 3, "rep": r, "arm": arm, "pixcorr": 0.1 * r, "ssim": 0.5} for r in (1, 2)]
    losses = [[[2.0, 1.0]] * 2] * n if arm == "guided" else [[[]] * 2] * n
    about_arm = {"arm": arm, "losses": losses, "scores": scores, "cached": False, **more}
    session.engine.show("reconstruct", "arm", {**about_arm, "images": images})


def whole_run(session, shade=RED):
    begin(session)
    finish_arm(session, "guided", shade)
    finish_arm(session, "unguided", shade)
    session.engine.answer("reconstruct", RESULT)


def first(panel, row="guided"):
    return colour(panel.view.gallery.rows[row].cells[0])


def runs(session):
    return session.engine.names().count("reconstruct")


# validation


def test_problems_before_a_run(viewer, session):
    session.choose(Source())
    panel = ReconstructPanel(viewer)
    assert "Data must be chosen" in panel.hint.text()
    session.choose(Source(nsd_dir="/nsd"))
    assert "A stimulus must be chosen" in panel.hint.text()
    session.change(stimulus_ids=(3,))
    assert panel.problems() == []
    assert panel.run.isEnabled()
    for tick in panel.form.arms.values():
        tick.setChecked(False)
    assert "An arm must be ticked" in panel.hint.text()
    assert not panel.run.isEnabled()


def test_no_layer_ticked_is_said_and_does_not_reach_the_recipe(ready, session):
    before = session.recipe.settings.guidance
    rows = layers(ready).rows
    for tick, _ in rows.values():
        tick.setChecked(False)
    assert "layers must be distinct and not empty" in ready.hint.text()
    assert "Tick a layer" in ready.hint.text()
    assert session.recipe.settings.guidance.layers == ("g12",) != before.layers  # the last that could be
    session.change(stimulus_ids=(7,))
    assert not ready.run.isEnabled()
    rows["g02"][0].setChecked(True)
    assert session.recipe.settings.guidance.layers == ("g02",)
    assert ready.run.isEnabled()


def layers(panel):
    return next(g.controls["layers"] for g in panel.form.controls.groups if "layers" in g.controls)


def test_kappa_zero_is_a_warning_only(ready, session):
    assert ready.form.caution.isHidden()
    session.change_stage("guidance", session.recipe.settings.guidance.but(guidance_scale=0.0))
    assert not ready.form.caution.isHidden()
    assert ready.run.isEnabled()
    ready.form.arms["guided"].setChecked(False)
    assert ready.form.caution.isHidden()
    assert session.recipe.arms == ("unguided",)


# parameters


def test_every_parameter_has_one_control_with_a_tooltip(ready):
    names = [name for group in ready.form.controls.groups for name in group.controls]
    known = set(DiffusionParams().to_dict()) | set(GuidanceParams().to_dict())
    assert sorted(names) == sorted(known - {"layer_weights", "rule"})
    tips = [widget.toolTip() for group in ready.form.controls.groups for widget in group.controls.values()]
    assert sum(not tip for tip in tips) <= 1  # the layers have one each
    assert all(tick.toolTip() and weight.toolTip() for tick, weight in layers(ready).rows.values())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_shown_and_reach_the_recipe(ready, session, name):
    ready.form.preset.picked.emit(*params_of_preset(name))
    assert ready.form.controls.params() == params_of_preset(name)
    assert (session.recipe.settings.diffusion, session.recipe.settings.guidance) == params_of_preset(name)
    assert ready.form.preset.name == name
    assert not ready.form.preset.modified


def test_own_presets(ready, session, monkeypatch):
    row, kappa = ready.form.preset, ready.form.controls.groups[0].controls["guidance_scale"]
    assert row.mark.isHidden()
    assert not row.delete.isEnabled()
    kappa.setValue(7.0)
    assert row.modified
    assert not row.mark.isHidden()
    said = []
    monkeypatch.setattr(QMessageBox, "warning", lambda *args: said.append(args[-1]))
    row.save_as("demo")
    assert "must be new" in said[0]
    row.save_as(" strong ")
    assert row.name == "strong"
    assert row.mark.isHidden()
    assert row.delete.isEnabled()
    assert params_of_preset("strong")[1].guidance_scale == 7.0

    kappa.setValue(9.0)
    row.reset.click()
    assert kappa.value() == 7.0
    assert session.recipe.settings.guidance.guidance_scale == 7.0
    row.delete_own()
    assert "strong" not in presets()
    assert kappa.value() == 7.0
    assert row.modified


def test_reset_of_the_preset_also_mends_layers_that_cannot_be(ready):
    for tick, _ in layers(ready).rows.values():
        tick.setChecked(False)
    assert ready.form.preset.reset.isEnabled()
    ready.form.preset.reset.click()
    assert all(tick.isChecked() for tick, _ in layers(ready).rows.values())
    assert ready.problems() == []


def test_a_device_that_is_not_there_becomes_the_cpu_loudly(viewer, session, qtbot):
    session.change(device="cuda:1")
    panel = ReconstructPanel(viewer)
    qtbot.addWidget(panel)
    assert "devices" not in session.engine.names()  # asked when it is first seen
    panel.show()
    assert session.engine.names().count("devices") == 1
    assert not session.busy
    assert panel.form.device.box.currentData() == "cuda:1"
    known = [{"name": "cpu", "label": "CPU"}, {"name": "cuda:0", "label": "GPU 0"}]
    session.engine.answer("devices", {"devices": known, "backend": "reference"})
    assert session.recipe.device == "cpu"
    assert panel.form.device.box.currentText() == "CPU"
    assert "must be one of cpu, cuda:0, got cuda:1" in panel.form.device.warning.text()
    assert not panel.form.device.warning.isHidden()
    session.change(device="cuda")  # as the Preferences call it
    assert session.recipe.device == "cuda:0"
    assert panel.form.device.warning.isHidden()


# running


def test_run_decodes_first_and_goes_on_by_itself(panel, session):
    session.change(stimulus_ids=(7,))
    finished = []
    session.run_finished.connect(finished.append)
    panel.run.click()
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
    assert panel.run.isEnabled()


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
    ready.run.click()
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
    ready.run.click()
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
    ready.run.click()
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
    ready.run.click()
    begin(session)
    preview(session, "guided", RED, done=3)
    session.engine.answer("reconstruct", error)
    assert ready.message.text() == str(error)
    assert first(ready) == RED.tolist()
    assert "partial: step 3 of 18" in ready.view.gallery.rows["guided"].heading.text()
    assert ready.run.isEnabled()
    assert not finished
    ready.run.click()
    whole_run(session, BLUE)
    assert first(ready) == BLUE.tolist()


def test_history_says_what_changed(ready, session):
    ready.run.click()
    whole_run(session, GREEN)
    ready.form.controls.groups[0].controls["guidance_scale"].setValue(10)
    ready.run.click()
    whole_run(session, RED)
    assert ready.view.box.count() == 2
    assert ready.view.box.currentText().endswith("stimulus 3: κ 5 → 10")
    ready.view.before.setChecked(True)
    assert first(ready) == RED.tolist()
    assert first(ready, "before, guided") == GREEN.tolist()


def test_another_stimulus_shows_its_own_run_or_what_to_do(ready, session):
    ready.run.click()
    whole_run(session)
    session.change(stimulus_ids=(7,))
    assert "No run of stimulus 7" in ready.view.gallery.empty.text()
    session.change(stimulus_ids=(3,))
    assert first(ready) == RED.tolist()


def test_a_run_of_several_stimuli_can_be_leafed_through(ready, session):
    session.change(stimulus_ids=(3, 7))
    ready.run.click()
    begin(session, (3, 7))
    images = np.stack([np.stack([image(RED)] * 2), np.stack([image(BLUE)] * 2)])
    session.engine.show("reconstruct", "preview", {"arm": "guided", "done": 1, "total": 18, "images": images})
    assert first(ready) == RED.tolist()
    ready.view.gallery.on.click()
    assert first(ready) == BLUE.tolist()
    assert ready.view.gallery.place.text() == "stimulus 7 (2 of 2)"


# live


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
    qtbot.wait(120)
    assert runs(session) == 1


def test_live_cancels_the_former_run_and_runs_once(lively, session, qtbot):
    kappa = lively.form.controls.groups[0].controls["guidance_scale"]
    kappa.setValue(6)
    qtbot.waitUntil(lambda: runs(session) == 1)
    begin(session)
    preview(session, "guided", RED)
    for value in (7, 8):
        kappa.setValue(value)
        qtbot.wait(100)
    _, task = session.engine.last("reconstruct")
    assert session.engine.sent == [{"cancel": task.number}]  # once: twice would end the engine
    assert session.engine.stopped == 0
    session.engine.answer("reconstruct", Cancelled({**RESULT, "complete": False}))
    qtbot.waitUntil(lambda: runs(session) == 2)
    qtbot.wait(120)
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
    qtbot.wait(150)
    assert runs(session) == 1
    kappa.setValue(8)
    qtbot.waitUntil(lambda: runs(session) == 2)


def test_live_waits_for_other_panels_and_for_data_that_are_decoded(lively, session, qtbot):
    session.call("contribution")
    lively.form.controls.groups[0].controls["guidance_scale"].setValue(6)
    qtbot.wait(120)
    assert runs(session) == 0
    assert not session.engine.sent  # what others run is not cancelled
    session.engine.answer("contribution", {})
    qtbot.waitUntil(lambda: runs(session) == 1)
    session.engine.answer("reconstruct", RESULT)
    session.change_stage("betas", session.recipe.settings.betas.but(roi="V1"))
    qtbot.wait(120)
    assert session.engine.names().count("decode") == 0


def test_live_is_off_at_first(ready, session, qtbot):
    ready.live.timer.setInterval(10)
    ready.form.controls.groups[0].controls["guidance_scale"].setValue(6)
    qtbot.wait(80)
    assert runs(session) == 0


# beside the brain


def arms(viewer):
    return [viewer.layers[name] for name in ("unguided", "guided")]


def test_pictures_beside_the_brain_are_made_once_and_then_changed(ready, session, viewer, anatomy, qtbot):
    assert ready.beside.isChecked()
    assert ready.beside.isEnabled()
    ready.run.click()
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
    ready.run.click()
    whole_run(session)
    assert len(viewer.layers) == 0
    viewer.add_image(np.zeros((5, 30, 20)), metadata={KEY: about("anatomy")})
    qtbot.waitUntil(lambda: len(viewer.layers) == 6)


# the result, keys, memory


def test_scripts_go_to_the_clipboard_and_the_folder_opens(ready, session, monkeypatch):
    opened = []
    from napari_neuraldiffuser.widgets.run import view as run_view

    monkeypatch.setattr(run_view.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()) or True)
    assert not ready.view.results.python.isEnabled()
    ready.run.click()
    whole_run(session)
    ready.view.results.python.click()
    assert QApplication.clipboard().text() == "print(1)"
    ready.view.results.nipype.click()
    assert QApplication.clipboard().text() == "import nipype"
    assert "Nipype" in ready.message.text()
    ready.view.results.provenance.click()
    assert opened == ["/runs/1"]


@pytest.mark.window
def test_keys_are_free_in_napari_and_act(ready, session, viewer):
    from app_model.types import KeyBinding
    from napari._app_model import get_app_model
    from napari.utils.shortcuts import default_shortcuts

    own = {KeyBinding.from_str(key.replace("Control", "Ctrl").replace("-", "+")) for key in KEYS}
    taken = {KeyBinding.from_str(str(key)) for keys in default_shortcuts.values() for key in keys}
    menus = {rule.keybinding for rule in get_app_model().keybindings}
    assert len(menus) > 10
    assert not own & taken
    assert not own & menus
    bound = viewer.keymap
    press = {str(key): call for key, call in bound.items()}
    press["Ctrl+Alt+Right"](viewer)
    assert session.recipe.stimulus_ids == (7,)
    press["Ctrl+Alt+Left"](viewer)
    assert session.recipe.stimulus_ids == (3,)
    press["Ctrl+Alt+R"](viewer)
    press["Ctrl+Alt+R"](viewer)  # runs already
    assert runs(session) == 1
    press["Ctrl+Alt+C"](viewer)
    assert session.engine.sent


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
    for key, press in viewer.keymap.items():
        if str(key) in ("Ctrl+Alt+R", "Ctrl+Alt+C", "Ctrl+Alt+Right"):
            press(viewer)
    assert runs(session) == 0
    del kept


def test_everything_is_remembered(viewer, session, qtbot):
    session.choose(Source(nsd_dir="/nsd"))
    panel = ReconstructPanel(viewer)
    panel.live.tick.setChecked(True)
    panel.every.setValue(5)
    panel.view.gallery.size.setValue(200)
    panel.view.before.setChecked(True)
    panel.beside.setChecked(False)
    panel.form.controls.more.expand(animate=False)
    panel.form.arms["unguided"].setChecked(False)
    panel.form.controls.groups[0].controls["guidance_scale"].setValue(11)
    state = panel.state()
    panel._store()
    session.save()
    qtbot.wait(10)

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


# the real engine


def test_with_the_engine(viewer, files, tmp_path, qtbot):
    from napari_neuraldiffuser.widgets.session import session as sessions

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


# data that change


def test_another_subject_that_saw_the_same_stimulus_has_no_run_yet(ready, session, anatomy, qtbot):
    ready.run.click()
    whole_run(session)
    assert ready.view.run is not None
    qtbot.waitUntil(lambda: "guided" in ready.viewer.layers)
    session.choose(Source(nsd_dir="/nsd", subject="subj02"))
    assert ready.view.run is None
    session.set_decoded(DECODED)
    session.change(stimulus_ids=(3,))
    assert ready.view.run is None
    assert not ready.view.results.python.isEnabled()
    assert "guided" not in ready.viewer.layers
    session.choose(Source(nsd_dir="/nsd"))
    session.set_decoded(DECODED)
    session.change(stimulus_ids=(3,))
    assert ready.view.run is not None, "the run of the first subject is still there"


def test_a_stimulus_that_the_sessions_do_not_show_is_not_replaced_in_silence(panel, session):
    session.set_described({"test_ids": [3, 7, 9, 11]})
    session.change(stimulus_ids=(11,))
    panel.run.click()
    assert session.engine.names()[-1] == "decode"
    session.engine.answer("decode", DECODED)
    assert session.recipe.stimulus_ids != (11,)
    assert runs(session) == 0
    assert "another one is chosen now" in panel.message.text()


def test_a_stimulus_that_is_chosen_meanwhile_is_shown_at_the_end(ready, session):
    ready.run.click()
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
    ready.run.click()
    whole_run(session)
    qtbot.waitUntil(lambda: TITLES in viewer.layers)
    viewer.window.remove_dock_widget(ready)
    again = ReconstructPanel(viewer)
    viewer.window.add_dock_widget(again)
    again.run.click()
    whole_run(session, shade=BLUE)
    qtbot.wait(50)
    names = [layer.name for layer in viewer.layers]
    assert sorted(names) == sorted(set(names))
    assert (viewer.layers["guided"].data == BLUE).all()
