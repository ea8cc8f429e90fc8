"""The base of every panel: a run row, progress with time left, one place for messages, and a memory."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QApplication, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.widgets.session import keys
from napari_neuraldiffuser.widgets.session.activity import ActivityBar, StageText
from napari_neuraldiffuser.widgets.session.controls import Notice, add, explain_labels, side_by_side
from napari_neuraldiffuser.widgets.session.engine import Task, error_text
from napari_neuraldiffuser.widgets.session.keys import with_key
from napari_neuraldiffuser.widgets.session.session import Session
from napari_neuraldiffuser.widgets.session.state import remember, remembered
from napari_neuraldiffuser.widgets.session.theme import ERROR, Follower, set_tone
from napari_neuraldiffuser.widgets.session.worker import ThreadTask

if TYPE_CHECKING:
    import napari


REMEMBER_AFTER = 500
"""Milliseconds of quiet after which changed controls are stored."""


class Panel(QWidget):
    """A dock widget over the session of its viewer.

    A panel builds its controls into `self.body`, says in `problems` why it cannot run yet, and starts calls of the
    engine with `run_task`.

    Parameters
    ----------
    viewer : napari.Viewer
    session : Session, optional
        Of the viewer where None.
    """

    name = "panel"
    """Under which `state` is stored."""
    title = "Panel"
    """Of the page, as its tab and messages have it."""
    run_text = "Run"
    preferred: tuple[str, ...] = ()
    """Preferences that `state` has, by the same name; the recipe's are the session's."""
    run_tip = ""
    """What Run does."""

    def __init__(self, viewer: "napari.viewer.Viewer", session: Session | None = None) -> None:
        super().__init__()
        self.viewer = viewer
        self.session = session or Session.of(viewer)
        self.task: Task | ThreadTask | None = None
        self.activity = activity = ActivityBar()
        self.destroyed.connect(lambda: activity.close())
        self.stage = StageText(self)
        self.stage.said.connect(self.say)
        self._remember = QTimer(self, singleShot=True, interval=REMEMBER_AFTER, timeout=self._store)
        self.body = QVBoxLayout()
        self._build_frame()
        Follower(self, viewer)
        keys.bind(viewer, {"run": press_run_seen, "cancel": stop_running})
        self.build()
        explain_labels(self)
        stored = remembered(self.name)
        if stored:
            self._restore(stored)
        self._take_preferred(self.session.preferred)
        self.session.preferences_changed.connect(self._take_preferred)
        self.session.busy_changed.connect(self.revalidate)
        self.session.wrong_changed.connect(self.revalidate)
        self.destroyed.connect(partial(self.session.tell_wrong, id(self), self.title, ""))
        self.revalidate()

    # what a panel adds

    def build(self) -> None:
        """Add the controls to `self.body`."""

    def start(self) -> None:
        """Do what the Run button is for."""

    def problems(self) -> list[str]:
        """Why it cannot run yet, each with its remedy; Run is enabled when there is none."""
        return []

    def wrong(self) -> str:
        """What the controls show that the recipe cannot hold, so that other pages do not run either; or nothing."""
        return ""

    def state(self) -> dict[str, Any]:
        """JSON values to remember between sessions."""
        return {}

    def restore(self, values: dict[str, Any]) -> None:
        """Show what `state` gave in another session; must take anything."""

    def reset(self) -> None:
        """Show the defaults again."""
        self.restore({})

    # the frame

    def _build_frame(self) -> None:
        layout = QVBoxLayout(self)
        layout.addLayout(self.body)
        self.run_button = QPushButton(self.run_text, clicked=self.press_run)
        tip = "Stops after the present step and keeps what is there; twice ends it at once"
        tip = with_key(tip, "cancel")
        self.cancel = QPushButton("Cancel", enabled=False, toolTip=tip, clicked=self.stop)
        self.hint = Notice()
        self.bar = QProgressBar(visible=False)
        self.message = QLabel("", wordWrap=True)
        tip = "Copies the traceback or the engine's log, for a bug report"
        self.details = QPushButton("Copy details", visible=False, toolTip=tip, clicked=self._copy_details)
        run_row = side_by_side(self.run_button, self.cancel, wide=0)
        add(layout, run_row, self.hint, self.bar, self.message, self.details)

    def showEvent(self, event: QShowEvent) -> None:
        """From here on the panel knows its window, as Qt shows it."""
        super().showEvent(event)
        self.session.follow(self.window())

    def revalidate(self, *_: Any) -> None:
        """Say under the Run button why it cannot run, or enable it."""
        running = self.task is not None
        self.session.tell_wrong(id(self), self.title, self.wrong())
        problems = [] if running else list(dict.fromkeys([*self.problems(), *self.elsewhere()]))
        self.hint.show_text("\n".join(problems))
        self.run_button.setToolTip("\n".join(problems) or with_key(self.run_tip, "run"))
        self.run_button.setEnabled(not problems and not running and not self.session.busy)
        self.cancel.setEnabled(running)

    def elsewhere(self) -> list[str]:
        """What other pages show that cannot be used."""
        return self.session.wrong_elsewhere(id(self))

    def changed(self, *_: Any) -> None:
        """Connect every control to this: validates, and stores the controls after a while."""
        self.revalidate()
        self._remember.start()

    def _restore(self, stored: dict[str, Any]) -> None:
        """A memory of another version, or a damaged one, must not keep the panel from opening."""
        try:
            self.restore(stored)
        except (TypeError, ValueError, OverflowError, AttributeError, KeyError):
            self.reset()

    def _take_preferred(self, changed: dict[str, Any]) -> None:
        """A preference wins over what was remembered before it changed, and is remembered from now on."""
        own = {name: changed[name] for name in self.preferred if name in changed}
        if own:
            self.restore({**self.state(), **own})
            self._store()
            for name in own:
                self.session.preferred.pop(name, None)

    def _store(self) -> None:
        remember(self.name, self.state())

    # running

    def press_run(self) -> None:
        """Do what the Run button does, if it can be pressed with what is being typed."""
        keys.finish_typing()
        if self.run_button.isEnabled():
            self.start()

    def run_task(
        self,
        call: str,
        args: dict[str, Any] | None = None,
        done: Callable[[dict[str, Any]], None] | None = None,
        event: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> Task:
        """Start a call that the user waits for; `done` gets its result, `event` what it shows in between."""
        task = self.session.call(call, args)
        if event is not None:
            task.event.connect(event)
        self.watch(task, done)
        return task

    def watch(self, task: Task | ThreadTask, done: Callable[[Any], None] | None = None) -> None:
        """Show the progress of a task until it ends; `done` gets its result."""
        self._done, self.task = done, task
        self.stage.start("starting")
        task.told.connect(self._told)
        task.ended.connect(self._ended)
        self.bar.setRange(0, 0)
        self.bar.setVisible(True)
        self.revalidate()

    def stop(self) -> None:
        """Ask the call to stop; the second time end it at once."""
        if self.task is not None:
            self.stage.stop()
            self.say("stopping after this step; Cancel again ends it at once")
            self.task.cancel()

    def _told(self, done: int, total: int, what: str) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        if self.task is not None and not self.task.cancelling:
            self.stage.tell(done, total, what)
        self.activity.tell(done, total, what.split(",")[0])
        if self.task is None:
            self.activity.close()  # the end was among the events that a new bar processes

    def _ended(self, result: Any) -> None:
        self.task = None
        self.stage.stop()
        self.activity.close()
        self.bar.setVisible(False)
        self.say("")
        if isinstance(result, Cancelled):
            self.say("cancelled; what is complete is kept")
            self.cancelled(result.result)
        elif isinstance(result, Exception):
            self.fail(result)
        elif self._done is not None:
            self._done(result)
        self.revalidate()

    def cancelled(self, result: dict[str, Any]) -> None:
        """Show what a cancelled call had until then; `result` is empty where there is nothing."""

    # messages

    def say(self, text: str) -> None:
        """One line of state; clears an error."""
        set_tone(self.message, "")
        self.message.setText(text)
        self.details.setVisible(False)

    def fail(self, error: Exception) -> None:
        """Say what went wrong in the panel and as a notification."""
        from napari.utils.notifications import show_error

        text = error_text(error)
        set_tone(self.message, ERROR)
        self.message.setText(text)
        self._details = getattr(error, "details", "")
        self.details.setVisible(bool(self._details))
        show_error(text)

    def _copy_details(self) -> None:
        QApplication.clipboard().setText(f"{self.message.text()}\n\n{self._details}")


def press_run_seen(viewer: "napari.Viewer") -> None:
    """Press Run of the panel that is worked in, or else of the one that is seen."""
    for panel in panels_of(viewer)[:1]:
        panel.press_run()


def stop_running(viewer: "napari.Viewer") -> None:
    """Cancel what the panels of a viewer wait for."""
    for panel in panels_of(viewer, seen=False):
        if panel.task is not None:
            panel.stop()


def panels_of(viewer: "napari.Viewer", seen: bool = True) -> list[Panel]:
    """The panels of a viewer's window, those that are seen or all: the one with the focus first."""
    window = keys.window_of(viewer)
    found = [panel for panel in window.findChildren(Panel) if panel.isVisible() or not seen] if window else []
    focus = QApplication.focusWidget()
    return sorted(found, key=lambda panel: focus is None or not panel.isAncestorOf(focus))
