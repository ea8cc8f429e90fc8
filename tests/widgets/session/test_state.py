"""Presets and the Preferences page."""

import json

import pytest

from napari_neuraldiffuser.core.params import PRESETS, DiffusionParams, GuidanceParams
from napari_neuraldiffuser.widgets.session import state
from tests.support import ROOT

DIFFUSION = DiffusionParams(n_steps=7, cfg_scale=1.5)
GUIDANCE = GuidanceParams(layers=("g04",), layer_weights=(0.5,), normalise="rms")


@pytest.mark.parametrize("name", PRESETS)
def test_the_projects_presets(name):
    diffusion, guidance = state.params_of_preset(name)
    assert diffusion == DiffusionParams(**PRESETS[name]["diffusion"])
    assert guidance == GuidanceParams(**PRESETS[name]["guidance"])


def test_an_own_preset_is_kept_and_deleted():
    state.save_preset("mine", DIFFUSION, GUIDANCE)
    assert list(state.presets()) == [*PRESETS, "mine"]
    assert state.params_of_preset("mine") == (DIFFUSION, GUIDANCE)
    state.delete_preset("mine")
    assert list(state.presets()) == list(PRESETS)


@pytest.mark.parametrize("name", ["", "  ", "demo"])
def test_a_preset_needs_a_name_of_its_own(name):
    with pytest.raises(state.PresetError, match="must be new and not empty"):
        state.save_preset(name, DIFFUSION, GUIDANCE)


def test_the_projects_presets_cannot_be_deleted():
    with pytest.raises(state.PresetError, match="must be one of your own"):
        state.delete_preset("demo")
    with pytest.raises(state.PresetError, match="must be one of"):
        state.params_of_preset("nobody's")


@pytest.mark.parametrize("stored", ['{"old": {"guidance": {"gone": 1}}}', '{"old": 3}', "[1]", "not json"])
def test_stored_presets_that_no_longer_work_are_left_out(stored):
    state.config_folder().mkdir(parents=True)
    (state.config_folder() / "presets.json").write_text(stored)
    assert list(state.presets()) == list(PRESETS)


def test_panels_remember_apart_from_each_other():
    state.remember("a", {"x": 1})
    state.remember("b", {"x": 2})
    assert state.remembered("a") == {"x": 1}
    assert state.remembered("c") == {}


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    state.remember("a", {"x": 1})
    assert state.remembered("a") == {}


def test_the_defaults_are_those_of_the_preferences_page():
    import yaml

    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    page = manifest["contributions"]["configurations"]["general"]["properties"]
    assert {name: one["default"] for name, one in page.items()} == state.DEFAULTS
    assert page["preset"]["enum"] == [state.FOR_MODELS, *PRESETS]


def test_stored_presets_are_plain_json():
    state.save_preset("mine", DIFFUSION, GUIDANCE)
    stored = json.loads((state.config_folder() / "presets.json").read_text())
    assert stored["mine"]["guidance"]["layers"] == ["g04"]
