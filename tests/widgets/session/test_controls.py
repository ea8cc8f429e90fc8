"""Controls generated from the params dataclasses give back what they show."""

from contextlib import ExitStack
from dataclasses import dataclass, fields

import pytest
from qtpy.QtWidgets import QComboBox, QLabel, QListWidget, QTableWidget, QWidget

from napari_neuraldiffuser.core.base.fields import Params, help_of, of_one_kind, param
from napari_neuraldiffuser.core.params import (
    ContributionParams,
    DecodingParams,
    DiffusionParams,
    EvaluationParams,
    GuidanceParams,
)
from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from napari_neuraldiffuser.widgets.pages.decode import DecodePanel
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from napari_neuraldiffuser.widgets.pages.report import ReportPanel
from napari_neuraldiffuser.widgets.session.controls import (
    LayerControls,
    ParamControls,
    explain_labels,
    form,
    side_by_side,
    tip,
)
from tests.support.toys import TOYS, registered

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
    known = {f.name: tip(f.metadata["help"]) for f in fields(DiffusionParams)}
    assert {name: widget.toolTip() for name, widget in made.controls.items()} == known
    assert made.params(DiffusionParams()) == DiffusionParams()


def test_every_label_says_what_its_control_does(viewer, session, qtbot):
    made = ReconstructPanel(viewer, session)
    qtbot.addWidget(made)
    for controls in made.findChildren(ParamControls):
        for name, widget in controls.controls.items():
            label = controls.layout().labelForField(widget)
            told = next(f.metadata["help"] for f in fields(controls.cls) if f.name == name)
            assert " ".join(told.split()) in " ".join(label.toolTip().split()), name
    labels = [label for label in made.findChildren(QLabel) if label.text() in ("Preset", "Device", "Run A", "Run B")]
    assert len(labels) == 4
    assert all(label.toolTip() for label in labels)


@pytest.mark.parametrize("control", [QComboBox, QListWidget, QTableWidget])
def test_a_label_says_what_an_empty_control_does(qtbot, control):
    for layout in (form, side_by_side):
        holder, label, made = QWidget(), QLabel("Target"), control(toolTip="What is mapped")
        qtbot.addWidget(holder)
        holder.setLayout(form(None, (label.text(), made)) if layout is form else side_by_side(label, made))
        explain_labels(holder)
        assert [one.toolTip() for one in holder.findChildren(QLabel)] == ["What is mapped"]


def test_no_line_of_a_tooltip_is_longer_than_a_line():
    for cls in (DiffusionParams, GuidanceParams, DecodingParams):
        for f in fields(cls):
            assert max(map(len, tip(f.metadata["help"]).splitlines())) <= 80


@pytest.mark.parametrize(
    ("cls", "field", "taken"),
    [
        (DecodingParams, "decoder", "mean"),
        (GuidanceParams, "rule", "no-pull"),
        (ContributionParams, "method", "even"),
        (EvaluationParams, "metrics", ("ssim", "brightness")),
    ],
)
def test_what_is_registered_can_be_chosen(qtbot, cls, field, taken):
    alone = ParamControls(cls, (field,))
    qtbot.addWidget(alone)
    assert alone.params(cls()) == cls()
    with ExitStack() as stack:
        stack.enter_context(registered(*TOYS[field]))
        made = ParamControls(cls, (field,))
        qtbot.addWidget(made)
        assert made.params(cls()) == cls()
        made.show_values(cls(**{field: taken}))
        assert getattr(made.params(cls()), field) == taken


def test_pages_offer_what_is_registered(viewer, session, qtbot):
    with ExitStack() as stack:
        for toy in TOYS.values():
            stack.enter_context(registered(*toy))
        pages = [page(viewer, session) for page in (DecodePanel, ReconstructPanel, ContributionPanel, ReportPanel)]
        found = {}
        for page in pages:
            qtbot.addWidget(page)
            for controls in page.findChildren(ParamControls):
                found |= {name: controls for name in TOYS if name in controls.controls}
        assert set(found) == set(TOYS)
        found["method"].controls["method"].setCurrentText("even")
        found["metrics"].controls["metrics"].ticks["brightness"].setChecked(True)
        assert session.recipe.settings.contribution.method == "even"
        assert "brightness" in session.recipe.settings.evaluation.metrics
        session.change_stage("evaluation", EvaluationParams())
        assert "brightness" not in found["metrics"].values()["metrics"]
        session.change_stage("contribution", ContributionParams())


@dataclass(frozen=True)
class KindParams(Params):
    """A kind, and fields of one kind alone."""

    kind: str = param("plain", "Kind.", choices=("plain", "deep"))
    deep_width: int = param(4, "Width.", low=1, only=("kind", ("deep",)))


def test_rows_that_do_not_matter_are_hidden_and_keep_their_values(qtbot):
    made = ParamControls(KindParams, ("kind", "deep_width"))
    qtbot.addWidget(made)
    width = made.controls["deep_width"]
    assert not made.layout().isRowVisible(width)
    made.show_values(KindParams("deep", 7))
    assert made.layout().isRowVisible(width)
    made.controls["kind"].setCurrentText("plain")
    assert not made.layout().isRowVisible(width)
    assert made.params(KindParams()) == KindParams("plain", 7)


def test_help_says_for_which_kind_a_field_matters():
    told = {f.name: help_of(f) for f in fields(KindParams)}
    assert told == {"kind": "Kind.", "deep_width": "For kind deep: Width."}


def test_no_default_is_rounded_away(qtbot):
    """A learning rate of 0.0003 in a box of three decimals would be 0, which is refused, and with it every change."""
    controls = ParamControls(DecodingParams, ("decoder", *of_one_kind(DecodingParams)))
    qtbot.addWidget(controls)
    assert controls.params(DecodingParams()) == DecodingParams()
    changed = DecodingParams(decoder="contrastive", contrastive_targets=("c", "g04"), contrastive_regression=3.0)
    controls.show_values(changed)
    assert controls.params(DecodingParams()) == changed
