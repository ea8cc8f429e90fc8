"""The Data panel: which voxels, as ticks and as an expression."""

import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.widgets.source.roi_tree import USE, WITHOUT
from tests.support.window.data_page import CHECKED, DESCRIBED, PARTLY, UNCHECKED, betas, leaf, tick
from tests.support.window.viewers import settle


def test_the_default_is_ticked(opened):
    assert opened.roi.expression == "nsdgeneral"
    assert leaf(opened, "nsdgeneral", "nsdgeneral").checkState(USE) == CHECKED
    assert opened.roi.tree.marks() == {("nsdgeneral", "nsdgeneral"): "with"}
    assert opened.roi.tree.topLevelItem(0).text(1) == "12"


def test_ticks_become_an_expression(opened, qtbot):
    tick(opened, qtbot, leaf(opened, "nsdgeneral", "nsdgeneral"), state=UNCHECKED)
    assert "must have a region" in opened.roi.error.text()
    assert "The ROI must be mended above" in opened.hint.text()
    assert betas(opened).roi == "nsdgeneral", "kept until there is another"
    family = opened.roi.tree.topLevelItem(2)
    seen = []
    opened.session.recipe_changed.connect(seen.append)
    tick(opened, qtbot, family)
    assert (opened.roi.expression, betas(opened).roi) == ("prf-visualrois", "prf-visualrois")
    assert len(seen) == 1, "one click, one change"
    tick(opened, qtbot, leaf(opened, "prf-visualrois", "hV4"), state=UNCHECKED)
    assert betas(opened).roi == "V1"
    assert family.checkState(USE) == PARTLY
    tick(opened, qtbot, leaf(opened, "floc-faces", "FFA-2"), WITHOUT)
    assert betas(opened).roi == "V1 - FFA-2"


def test_a_region_is_used_or_left_out_but_not_both(opened, qtbot):
    item = leaf(opened, "floc-faces", "OFA")
    tick(opened, qtbot, item)
    tick(opened, qtbot, item, WITHOUT)
    assert item.checkState(USE) == UNCHECKED
    assert betas(opened).roi == "nsdgeneral - OFA"
    tick(opened, qtbot, item)
    assert betas(opened).roi == "OFA + nsdgeneral"
    tick(opened, qtbot, opened.roi.tree.topLevelItem(0), WITHOUT)
    assert betas(opened).roi == "nsdgeneral - floc-faces"
    assert opened.roi.tree.topLevelItem(0).checkState(USE) == UNCHECKED


@pytest.mark.parametrize(
    ("expression", "ticked", "left_out"),
    [
        ("V1 + hV4", {"V1v", "V1d", "hV4"}, set()),
        ("nsdgeneral - FFA", {"nsdgeneral"}, {"FFA-1", "FFA-2"}),
        ("floc-faces - OFA", {"FFA-1", "FFA-2"}, {"OFA"}),
    ],
)
def test_a_typed_expression_becomes_ticks(opened, expression, ticked, left_out):
    opened.roi.line.setText(expression)
    opened.roi.line.editingFinished.emit()
    marks = opened.roi.tree.marks()
    assert {region for (_, region), mark in marks.items() if mark == "with"} == ticked
    assert {region for (_, region), mark in marks.items() if mark == "without"} == left_out
    assert betas(opened).roi == expression


def test_what_ticks_cannot_show_is_kept(opened):
    opened.roi.line.setText("nsdgeneral & V1")
    opened.roi.line.editingFinished.emit()
    assert betas(opened).roi == "nsdgeneral & V1"
    assert not opened.roi.tree.isEnabled()
    assert "cannot be shown as ticks" in opened.roi.note.text()
    opened.roi.quick["early"].click()
    assert opened.roi.tree.isEnabled()
    assert betas(opened).roi == "V1"


def test_a_wrong_expression_is_said_and_not_taken(opened):
    opened.roi.line.setText("nsdgenerl")
    opened.roi.line.editingFinished.emit()
    assert "Did you mean nsdgeneral?" in opened.roi.error.text()
    assert betas(opened).roi == "nsdgeneral"
    opened.roi.line.setText("V1")
    opened.roi.line.editingFinished.emit()
    assert not opened.roi.error.isVisibleTo(opened)
    assert betas(opened).roi == "V1"


def test_quick_sets_are_those_that_exist(opened):
    opened.roi.quick["early"].click()
    opened.roi.quick["faces"].click()
    assert betas(opened).roi == "V1 - FFA - OFA"
    opened.roi.quick["faces"].click()
    assert betas(opened).roi == "V1 - FFA - OFA", "once is enough"
    opened.roi.quick["all"].click()
    assert betas(opened).roi == "nsdgeneral"
    opened.session.set_described({**DESCRIBED, "families": {"nsdgeneral": {"nsdgeneral": 3}}})
    assert not opened.roi.quick["early"].isVisibleTo(opened)
    assert not opened.roi.quick["faces"].isVisibleTo(opened)
    assert opened.roi.quick["all"].isVisibleTo(opened)


def test_a_region_that_the_next_subject_lacks_is_replaced(opened):
    opened.roi.choose("V1")
    opened.session.set_described({**DESCRIBED, "families": {"nsdgeneral": {"nsdgeneral": 3}}})
    assert betas(opened).roi == "nsdgeneral"
    assert "roi: nsdgeneral in place of V1" in opened.facts.text()


def test_voxels_are_counted_once_the_choice_rests(opened, qtbot):
    engine = opened.session.engine
    for expression in ("V1", "hV4", "V1 + hV4"):
        opened.roi.choose(expression)
    qtbot.waitUntil(lambda: "voxels" in engine.names())
    assert engine.names().count("voxels") == 1
    args, task = engine.last("voxels")
    assert args["recipe"]["settings"]["betas"]["roi"] == "V1 + hV4"
    opened.roi.choose("hV4")
    qtbot.waitUntil(lambda: engine.names().count("voxels") == 2)
    task.end({"n_voxels": 999})
    assert "999" not in opened.count.text(), "the answer to a former question"
    engine.answer("voxels", {"n_voxels": 2})
    assert opened.count.text() == "2 voxels selected"
    opened.session.change_stage("betas", betas(opened).but(sessions="1-2"))
    settle(opened.count._timer)
    assert engine.names().count("voxels") == 2, "sessions do not matter to them"
    opened.roi.choose("V1")
    qtbot.waitUntil(lambda: engine.names().count("voxels") == 3)
    engine.answer("voxels", UserError("ROI V1 must have voxels above 0, got none."))
    assert "got none" in opened.count.text()
