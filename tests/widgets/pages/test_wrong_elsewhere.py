"""What one page shows and cannot be used keeps every other page from running with what was there before it."""

import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from superqt.utils import WorkerBase

from napari_neuraldiffuser.widgets.pages.dock import PANELS
from napari_neuraldiffuser.widgets.source.roi_tree import USE
from tests.support.window.data_page import DESCRIBED, UNCHECKED, nsd_folder
from tests.support.window.decode_answers import decoded
from tests.support.window.viewers import settle


@pytest.fixture
def viewer(qtbot):
    """Without a window: nothing is shown in it."""
    return ViewerModel()


@pytest.fixture
def panels(viewer, session, qtbot, tmp_path):
    """All pages on decoded data: every Run can be pressed."""
    made = {title: panel(viewer, session) for title, panel in PANELS.items()}
    for panel in made.values():
        qtbot.addWidget(panel)
    made["Data"].form.take_folder(str(nsd_folder(tmp_path / "nsd", "subj01")))
    session.engine.answer("describe", dict(DESCRIBED))
    session.set_decoded(decoded(test_ids=[3, 7]))
    session.change(stimulus_ids=(3,))
    assert [title for title, panel in made.items() if not panel.run_button.isEnabled()] == []
    yield made
    WorkerBase.await_workers(30000)


def type_into(line, text):
    """As the keyboard does: what waits for a pause in the typing waits."""
    line.setText(text)
    line.textEdited.emit(text)


def roi(text):
    def wrong(panels):
        type_into(panels["Data"].roi.line, text)
        settle(panels["Data"].roi._typing)

    def mend(panels):
        type_into(panels["Data"].roi.line, "V1")
        settle(panels["Data"].roi._typing)

    return "Data", wrong, mend


def no_region():
    def wrong(panels):
        for item in panels["Data"].roi.tree._leaves.values():
            item.setCheckState(USE, UNCHECKED)
        settle()

    def mend(panels):
        panels["Data"].roi.tree._leaves["floc-faces", "OFA"].setCheckState(USE, Qt.CheckState.Checked)
        settle()

    return "Data", wrong, mend


def sessions():
    return (
        "Data",
        lambda panels: type_into(panels["Data"].sessions.line, "9"),
        lambda panels: type_into(panels["Data"].sessions.line, "1-2"),
    )


def folder():
    def wrong(panels):
        box = panels["Data"].form.nsd.folder
        panels["there"] = box.currentText()
        type_into(box.lineEdit(), "/no/such/folder")
        settle(box.typing)

    def mend(panels):
        type_into(panels["Data"].form.nsd.folder.lineEdit(), panels["there"])
        settle(panels["Data"].form.nsd.folder.typing)

    return "Data", wrong, mend


def models():
    def show(panels, text):
        box = panels["Decode"].models.models
        type_into(box.lineEdit(), text)
        settle(box.typing)

    return "Decode", lambda panels: show(panels, "/no/such/models"), lambda panels: show(panels, "demo")


def penalties():
    return (
        "Decode",
        lambda panels: type_into(panels["Decode"].alphas, "1 ten"),
        lambda panels: type_into(panels["Decode"].alphas, "1 10"),
    )


def selects_nothing():
    """Only the engine can tell: it counts the voxels."""

    def count(panels, answer):
        panels["Data"].roi.choose(answer[0])
        settle(panels["Data"].count._timer)
        panels["Data"].session.engine.answer("voxels", answer[1])

    from napari_neuraldiffuser.core.base.errors import UserError

    return (
        "Data",
        lambda panels: count(panels, ("V1 & FFA", UserError("ROI must select voxels, got none. Choose another."))),
        lambda panels: count(panels, ("V1", {"n_voxels": 8})),
    )


KINDS = {
    "empty": roi(""),
    "blank": roi("   "),
    "unknown region": roi("V9"),
    "half written": roi("V1 +"),
    "mask that is not there": roi("/no/such/mask.nii.gz"),
    "nothing ticked": no_region(),
    "selects nothing": selects_nothing(),
    "sessions": sessions(),
    "folder": folder(),
    "models": models(),
    "penalties": penalties(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_runs_with_what_was_there_before(panels, session, kind):
    page, wrong, mend = KINDS[kind]
    started = len([name for name in session.engine.names() if name not in ("voxels", "describe", "thumbnails")])
    wrong(panels)
    for title in set(PANELS) - {"Data" if page == "Decode" else page}:
        panel = panels[title]
        assert not panel.run_button.isEnabled(), title
        assert panel.hint.isVisibleTo(panel), title
        assert panel.hint.text() in panel.run_button.toolTip(), "the tooltip says why, too"
        assert title == page or f"(on the {page} page)" in panel.hint.text(), title
        panel.press_run()
    names = [name for name in session.engine.names() if name not in ("voxels", "describe", "thumbnails")]
    assert len(names) == started
    mend(panels)
    if session.recipe.source.given and session.described is None:
        session.engine.answer("describe", dict(DESCRIBED))
    for title in ("Decode", "Report"):
        assert panels[title].run_button.isEnabled(), (title, panels[title].hint.text())


@pytest.mark.parametrize(("typed", "runs"), [("V2", True), ("V1 - FFA", True), ("V", False), ("", False)])
def test_run_takes_the_line_as_it_stands(panels, session, qtbot, typed, runs):
    """Pressed before the pause after which a line is judged, it neither uses the former line nor a wrong one."""
    families = DESCRIBED["families"]
    session.set_described({**DESCRIBED, "families": {**families, "prf-visualrois": {"V1v": 4, "V2v": 4}}})
    data = panels["Data"]
    session.set_decoded(None)
    type_into(data.roi.line, typed)
    assert data.roi._typing.isActive()
    data.roi.line.editingFinished.emit()  # as leaving the line does, which a click on Run is
    panels["Decode"].press_run()
    assert ("decode" in session.engine.names()) == runs
    if runs:
        args, _ = session.engine.last("decode")
        assert args["recipe"]["settings"]["betas"]["roi"] == typed


def test_a_page_that_is_closed_holds_nobody_up(viewer, panels, session, qtbot):
    again = PANELS["Data"](viewer, session)
    type_into(again.sessions.line, "9")
    assert not panels["Report"].run_button.isEnabled()
    again.deleteLater()
    qtbot.waitUntil(panels["Report"].run_button.isEnabled)


def test_two_panels_of_one_page_do_not_chase_each_other(viewer, session, panels, qtbot):
    again = PANELS["Data"](viewer, session)
    qtbot.addWidget(again)
    type_into(again.sessions.line, "9")
    assert not panels["Data"].run_button.isEnabled()
    assert "(on the Data page)" in panels["Data"].hint.text()
