"""The base of every panel: validation before Run, progress with time left, cancel, errors, memory."""

import pytest
from napari.utils import progress
from qtpy.QtWidgets import QApplication, QCheckBox, QMainWindow

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.session import panel as panels
from napari_neuraldiffuser.widgets.session.engine import EngineError
from napari_neuraldiffuser.widgets.session.panel import Panel
from tests.support.window.viewers import settle


class Example(Panel):
    name = "example"

    def build(self):
        self.tick = QCheckBox()
        self.tick.toggled.connect(self.changed)
        self.body.addWidget(self.tick)
        self.done, self.partial = [], []

    def problems(self):
        return [] if self.tick.isChecked() else ["The box must be ticked. Tick it."]

    def start(self):
        self.run_task("decode", done=self.done.append)

    def cancelled(self, result):
        self.partial.append(result)

    def state(self):
        return {"tick": self.tick.isChecked()}

    def restore(self, values):
        self.tick.setChecked(bool(values.get("tick")))


@pytest.fixture
def panel(viewer, session, qtbot):
    made = Example(viewer)
    qtbot.addWidget(made)
    return made


def test_run_waits_for_what_is_missing(panel):
    assert not panel.run_button.isEnabled()
    assert panel.hint.text() == "The box must be ticked. Tick it."
    panel.run_button.click()
    assert panel.session.engine.calls == []
    panel.tick.setChecked(True)
    assert panel.run_button.isEnabled()
    assert panel.hint.text() == ""


def test_a_panel_closed_in_mid_run_takes_its_activity_bar_along(viewer, session, qtbot):
    before = set(progress._all_instances)
    panel = Example(viewer)
    panel.tick.setChecked(True)
    panel.run_button.click()
    session.engine.tell("decode", 3, 8, "ridge, z")
    assert {bar.desc for bar in set(progress._all_instances) - before} == {"ridge"}
    with qtbot.waitSignal(panel.destroyed):
        panel.deleteLater()
    assert set(progress._all_instances) == before


def test_a_run_from_start_to_end(panel):
    panel.tick.setChecked(True)
    panel.run_button.click()
    assert not panel.run_button.isEnabled()
    assert panel.cancel.isEnabled()
    panel.session.engine.tell("decode", 3, 8, "ridge, z")
    assert panel.message.text() == "ridge, z (3 of 8)"
    assert (panel.bar.value(), panel.bar.maximum()) == (3, 8)
    panel.session.engine.answer("decode", {"x": 1})
    assert panel.done == [{"x": 1}]
    assert panel.run_button.isEnabled()
    assert not panel.cancel.isEnabled()
    assert not panel.bar.isVisibleTo(panel)
    assert panel.activity.bar is None


def test_cancel_keeps_what_is_there(panel):
    panel.tick.setChecked(True)
    panel.run_button.click()
    panel.cancel.click()
    _, task = panel.session.engine.last("decode")
    assert panel.session.engine.sent == [{"cancel": task.number}]
    panel.session.engine.tell("decode", 4, 8, "ridge")
    assert "stopping" in panel.message.text()
    panel.session.engine.answer("decode", Cancelled({"part": 1}))
    assert panel.partial == [{"part": 1}]
    assert panel.done == []
    assert "cancelled" in panel.message.text()


def test_cancelling_twice_ends_the_process(panel):
    panel.tick.setChecked(True)
    panel.run_button.click()
    panel.cancel.click()
    panel.cancel.click()
    assert panel.session.engine.stopped == 1
    assert panel.partial == [{}]
    assert "cancelled" in panel.message.text()
    assert panel.run_button.isEnabled()


@pytest.mark.parametrize("stored", [{"tick": 10**30, "x": []}, {"boom": OverflowError}, {"boom": KeyError}])
def test_a_panel_opens_with_any_memory(viewer, session, qtbot, monkeypatch, stored):
    class Strict(Example):
        def restore(self, values):
            if "boom" in values:
                raise values["boom"]
            super().restore(values)

    monkeypatch.setattr(panels, "remembered", lambda name: stored)
    qtbot.addWidget(Strict(viewer))


@pytest.mark.parametrize(
    ("error", "details"),
    [(UserError("x must be y, got z. Do this."), ""), (EngineError("a bug", "Traceback"), "Traceback")],
)
def test_errors_stand_in_the_panel_and_in_a_notification(panel, error, details):
    from napari.utils.notifications import notification_manager

    panel.tick.setChecked(True)
    panel.run_button.click()
    panel.session.engine.answer("decode", error)
    assert panel.message.text() == str(error)
    assert notification_manager.records[-1].message == str(error)
    assert panel.details.isVisibleTo(panel) == bool(details)
    if details:
        panel.details.click()
        assert QApplication.clipboard().text() == f"{error}\n\n{details}"
    assert panel.run_button.isEnabled(), "another try is possible"


def test_other_panels_wait(panel, viewer, qtbot):
    other = Example(viewer)
    qtbot.addWidget(other)
    for one in (panel, other):
        one.tick.setChecked(True)
    panel.run_button.click()
    assert not other.run_button.isEnabled()
    assert not other.cancel.isEnabled()
    panel.session.engine.answer("decode", {})
    assert other.run_button.isEnabled()


def test_controls_are_remembered(panel, viewer, qtbot, monkeypatch):
    panel._remember.setInterval(1)
    panel.tick.setChecked(True)
    qtbot.waitUntil(lambda: not panel._remember.isActive())
    again = Example(viewer)
    qtbot.addWidget(again)
    assert again.tick.isChecked()


def test_closing_the_window_ends_the_engine(panel, session, qtbot):
    window = QMainWindow()
    window.setCentralWidget(panel)
    window.show()
    panel.tick.setChecked(True)
    panel.run_button.click()
    window.close()
    qtbot.waitUntil(lambda: session.engine.stopped == 1)


def test_a_refused_close_ends_nothing(panel, session, qtbot):
    class Asking(QMainWindow):
        def closeEvent(self, event):
            event.ignore()

    window = Asking()
    window.setCentralWidget(panel)
    window.show()
    window.close()
    settle()
    assert session.engine.stopped == 0
    window.takeCentralWidget()
