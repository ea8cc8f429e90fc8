"""Controls generated from the params dataclasses give back what they show."""

from dataclasses import fields

import pytest

from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams
from napari_neuraldiffuser.widgets.session.controls import LayerControls, ParamControls

GUIDANCE = ("guidance_scale", "guidance_strength", "layers", "x0_estimate", "x0_blend", "normalise")
OTHER = GuidanceParams(
    guidance_scale=2.5,
    guidance_strength=0.4,
    layers=("g04", "g12"),
    layer_weights=(0.5, 3.0),
    x0_estimate="published",
    x0_blend=False,
    normalise="rms",
)


@pytest.fixture
def controls(qtbot):
    made = ParamControls(GuidanceParams, GUIDANCE)
    qtbot.addWidget(made)
    return made


def test_defaults_and_others_come_back(controls):
    assert controls.params(GuidanceParams()) == GuidanceParams()
    controls.show_values(OTHER)
    assert controls.params(GuidanceParams()) == OTHER


def test_one_signal_for_one_change(controls, qtbot):
    said = []
    controls.changed.connect(lambda: said.append(controls.values()))
    controls.show_values(OTHER)
    assert len(said) == 1
    controls.show_values(OTHER)
    assert len(said) == 1
    controls.controls["guidance_scale"].setValue(7)
    assert said[-1]["guidance_scale"] == 7


def test_numbers_stay_within_their_limits(controls):
    controls.controls["guidance_strength"].setValue(7)
    assert controls.values()["guidance_strength"] == 1.0


def test_no_layer_is_a_problem_with_a_text(controls):
    layers = controls.controls["layers"]
    assert isinstance(layers, LayerControls)
    for tick, weight in layers.rows.values():
        tick.setChecked(False)
        assert not weight.isEnabled()
    assert "must be distinct and not empty" in controls.problem(GuidanceParams())
    layers.rows["g06"][0].setChecked(True)
    assert controls.problem(GuidanceParams()) == ""
    assert controls.params(GuidanceParams()).layers == ("g06",)


def test_every_control_says_what_it_is(qtbot):
    names = tuple(f.name for f in fields(DiffusionParams))
    made = ParamControls(DiffusionParams, names)
    qtbot.addWidget(made)
    known = {f.name: f.metadata["help"] for f in fields(DiffusionParams)}
    assert {name: widget.toolTip() for name, widget in made.controls.items()} == known
    assert made.params(DiffusionParams()) == DiffusionParams()
