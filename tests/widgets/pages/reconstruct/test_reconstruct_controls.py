"""The Reconstruct panel: from controls to a recipe."""

import pytest
from qtpy.QtWidgets import QMessageBox

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams, TuneParams
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from napari_neuraldiffuser.widgets.session.state import FOR_MODELS, params_of_preset, preferences, presets
from tests.support.window.reconstruct_run import layers


def test_problems_before_a_run(viewer, session):
    session.choose(Source())
    panel = ReconstructPanel(viewer)
    assert "Data must be chosen" in panel.hint.text()
    session.choose(Source(nsd_dir="/nsd"))
    assert "A stimulus must be chosen" in panel.hint.text()
    session.change(stimulus_ids=(3,))
    assert panel.problems() == []
    assert panel.run_button.isEnabled()
    for tick in panel.form.arms.values():
        tick.setChecked(False)
    assert "An arm must be ticked" in panel.hint.text()
    assert not panel.run_button.isEnabled()


def test_no_layer_ticked_is_said_and_does_not_reach_the_recipe(ready, session):
    before = session.recipe.settings.guidance
    rows = layers(ready).rows
    for tick, _ in rows.values():
        tick.setChecked(False)
    assert "layers must be distinct and not empty" in ready.hint.text()
    assert "Tick a layer" in ready.hint.text()
    assert session.recipe.settings.guidance.layers == ("g12",) != before.layers  # the last that could be
    session.change(stimulus_ids=(7,))
    assert not ready.run_button.isEnabled()
    rows["g02"][0].setChecked(True)
    assert session.recipe.settings.guidance.layers == ("g02",)
    assert ready.run_button.isEnabled()


def test_kappa_zero_is_a_warning_only(ready, session):
    assert ready.form.caution.isHidden()
    session.change_stage("guidance", session.recipe.settings.guidance.but(guidance_scale=0.0))
    assert not ready.form.caution.isHidden()
    assert ready.run_button.isEnabled()
    ready.form.arms["guided"].setChecked(False)
    assert ready.form.caution.isHidden()
    assert session.recipe.arms == ("unguided",)


def test_every_parameter_has_one_control_with_a_tooltip(ready):
    names = [name for group in ready.form.controls.groups for name in group.controls]
    known = set(DiffusionParams().to_dict()) | set(GuidanceParams().to_dict())
    assert sorted(names) == sorted(known - {"layer_weights"})
    tips = [widget.toolTip() for group in ready.form.controls.groups for widget in group.controls.values()]
    assert sum(not tip for tip in tips) <= 1  # the layers have one each
    assert all(tick.toolTip() and weight.toolTip() for tick, weight in layers(ready).rows.values())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_shown_and_reach_the_recipe(ready, session, name):
    ready.form.preset._pick(name)
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


@pytest.mark.parametrize(
    ("preset", "change"), [("demo", {"seed": 77}), ("published", {"n_steps": 31}), ("neuraldiffuser", {"repeats": 4})]
)
def test_a_changed_parameter_leaves_the_preset_that_it_began_from(viewer, session, qtbot, preset, change):
    first = ReconstructPanel(viewer)
    qtbot.addWidget(first)
    first.form.preset._pick(preset)
    assert first.form.preset.name == preset and not first.form.preset.modified
    first._remember.stop()
    session.change(settings=changed(session, **change))
    assert first._remember.isActive(), "a changed parameter is worth remembering"
    first._store()
    again = ReconstructPanel(viewer)
    qtbot.addWidget(again)
    assert again.form.preset.name == preset and again.form.preset.modified
    again.form.preset.reset.click()
    settings = session.recipe.settings
    assert (settings.diffusion, settings.guidance) == params_of_preset(preset)


def test_a_first_window_begins_from_the_preferred_preset(viewer, session, qtbot):
    session.change(settings=changed(session, seed=5))
    made = ReconstructPanel(viewer)
    qtbot.addWidget(made)
    assert made.form.preset.name == preferences()["preset"] and made.form.preset.modified


def changed(session, **values):
    recipe = session.recipe
    return recipe.with_stage("diffusion", recipe.settings.diffusion.but(**values)).settings


def test_tune_asks_first_and_its_choice_is_put_into_the_form(ready, session, monkeypatch):
    asked = []

    def answer(parent, title, text):
        asked.append(text)
        return QMessageBox.StandardButton.Yes if len(asked) > 1 else QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    ready.tune.click()
    assert "tune" not in session.engine.names(), "a search takes long, and nobody said yes"
    ready.tune.click()
    assert "up to" in asked[0] and "images" in asked[0]
    args, _ = session.engine.last("tune")
    assert args["recipe"] == session.recipe.to_dict() and args["params"] == TuneParams().to_dict()
    assert ready.cancel.isEnabled() and not ready.tune.isEnabled()
    repeats = session.recipe.settings.diffusion.repeats
    chosen = {"diffusion": {"n_steps": 12}, "guidance": {"guidance_scale": 2.5}, "note": "κ 2.5: PixCorr +0.050"}
    session.engine.answer("tune", {**chosen, "page": "/p.html"})
    settings = session.recipe.settings
    assert (settings.diffusion.n_steps, settings.diffusion.repeats) == (12, repeats)
    assert settings.guidance == GuidanceParams(guidance_scale=2.5)
    assert "κ 2.5: PixCorr +0.050" in ready.message.text()


def test_settings_chosen_for_models_follow_other_models(ready, session, tmp_path):
    row = ready.form.preset
    row._pick(FOR_MODELS)
    assert row.name == FOR_MODELS and not row.modified
    assert (session.recipe.settings.diffusion, session.recipe.settings.guidance) == params_of_preset("demo")
    session.change(models=str(tmp_path))
    assert session.recipe.settings.guidance == GuidanceParams() and not row.modified
    assert "nothing was chosen for these models" in row.box.toolTip()
    session.change(settings=changed(session, seed=3))
    session.change(models="demo")
    assert session.recipe.settings.diffusion.seed == 3, "what the user changed stays"
    assert row.modified
