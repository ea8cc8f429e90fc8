"""File > Open Sample: the simulated subject, written on first use, and a finished result, shipped with the package."""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QEventLoop, QObject
from qtpy.QtWidgets import QLabel, QProgressBar, QWidget

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.params import SimulationParams
from napari_neuraldiffuser.widgets.files.folders import read_nsd, read_output
from napari_neuraldiffuser.widgets.files.layer_info import LayerData
from napari_neuraldiffuser.widgets.session.activity import ActivityBar, StageText
from napari_neuraldiffuser.widgets.session.controls import button, stacked
from napari_neuraldiffuser.widgets.session.engine import STARTING, Engine, Task
from napari_neuraldiffuser.widgets.session.keys import window_of
from napari_neuraldiffuser.widgets.session.session import WindowWatch
from napari_neuraldiffuser.widgets.session.state import cache_folder
from napari_neuraldiffuser.widgets.session.theme import Follower

if TYPE_CHECKING:
    import napari

SIMULATION = SimulationParams()
TRUTH = "nsddata/ppdata/subj01/simulation_truth.json"
"""Written last: a subject without it is incomplete."""
WRITING = (
    "The simulated subject is written to the cache folder, once, which takes a minute or two; then it opens. "
    "Everything else can be used meanwhile."
)
LEAST_HEIGHT = 150
"""Pixels, below another dock."""
CANCELLED = "The simulated subject was cancelled and is incomplete. Open the sample again to write it."


class SampleError(UserError):
    """A sample was not made."""


class SampleCancelled(SampleError):
    """The user did not want to wait for it."""


def result_folder() -> Path:
    """The shipped output folder of a run on the simulated subject."""
    return Path(str(resources.files("napari_neuraldiffuser"))) / "sample_result"


def finished_result() -> list[LayerData]:
    """Anatomy, regions, contribution maps and pictures of the shipped run."""
    return read_output(result_folder())


def simulated_subject() -> list[LayerData]:
    """Anatomy and regions of the simulated subject, which is written to the cache folder unless it is there.

    Raises
    ------
    SampleError
        If writing was cancelled, or is under way already.
    """
    folder = cache_folder() / "simulated"
    if not is_written(folder, SIMULATION):
        simulate(folder, SIMULATION)
    return read_nsd(folder)


def is_written(folder: Path, params: SimulationParams) -> bool:
    """Whether the first simulated subject of these parameters is complete in `folder`."""
    try:
        known = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
        return known["params"] == json.loads(json.dumps(params.but(n_subjects=1).to_dict()))
    except (OSError, ValueError, KeyError, TypeError):
        return False


class SimulationPanel(QWidget):
    """A bar, what is being done, and Cancel, in a dock of the window for as long as the subject is written.

    Parameters
    ----------
    viewer : napari.Viewer
    cancel : callable
        Called by the button.
    """

    def __init__(self, viewer: "napari.Viewer", cancel: Callable[[], object]) -> None:
        super().__init__()
        self.viewer = viewer
        self.message, self.bar = QLabel("", wordWrap=True), QProgressBar(maximum=0)
        self.stage = StageText(self)
        self.stage.said.connect(self.message.setText)
        self.cancel = button("Cancel", "Ends at once; what is incomplete is written again the next time", cancel)
        stacked(self, QLabel(WRITING, wordWrap=True), self.bar, self.message, self.cancel).addStretch(1)
        self.setMinimumHeight(LEAST_HEIGHT)
        Follower(self, viewer)
        viewer.window.add_dock_widget(self, name="Simulated subject", area="right").raise_()
        self.stage.start(STARTING)

    def tell(self, done: int, total: int, what: str) -> None:
        """Show progress."""
        self.bar.setMaximum(total)
        self.bar.setValue(done)
        self.stage.tell(done, total, what)

    def close_dock(self) -> None:
        """Take the dock away."""
        if isalive(self):  # the window may be closed, and this with it
            self.stage.stop()
            self.viewer.window.remove_dock_widget(self)
            self.deleteLater()


class Simulation(QObject):
    """Writes the simulated subject in a process of its own, while the window stays alive.

    Parameters
    ----------
    engine : Engine
    viewer : napari.Viewer, optional
        Its window shows a panel meanwhile.  Closing the window ends the writing, as does Cancel, or the cross at the
        bar in napari's activity dock.
    """

    running: "Simulation | None" = None

    def __init__(self, engine: Engine, viewer: "napari.Viewer | None" = None) -> None:
        super().__init__()
        self.engine, self.viewer = engine, viewer
        window = window_of(viewer) if viewer is not None else None
        self.watch = WindowWatch(window) if window is not None else None
        self.panel: SimulationPanel | None = None
        self.loop, self.activity = QEventLoop(), ActivityBar(self.cancel)
        self.result: dict[str, Any] | Exception | None = None
        self.task: Task | None = None

    def run(self, folder: Path, params: SimulationParams) -> dict[str, Any] | Exception | None:
        """The result of the engine's call, the exception that ended it, or None where the application ended."""
        Simulation.running = self
        if self.watch is not None:
            self.watch.closed.connect(lambda: self._end(Cancelled()))
            self.panel = SimulationPanel(self.viewer, self.cancel)
        try:
            self.task = self.engine.call("simulate", {"folder": str(folder), "params": params.to_dict()})
            self.task.told.connect(self._tell)
            self.task.ended.connect(self._end)
            self.loop.exec()
        finally:
            Simulation.running = self.watch = None
            self.activity.close()
            if self.panel is not None:
                self.panel.close_dock()
            self.engine.stop()
        return self.result

    def _tell(self, done: int, total: int, what: str) -> None:
        if self.panel is not None and isalive(self.panel):
            self.panel.tell(done, total, what)
        self.activity.tell(done, total, what)

    def cancel(self) -> None:
        """End at once: a subject without its last file is written again."""
        if self.task is not None:
            self.task.cancelling = True
        self.engine.stop()

    def _end(self, result: dict[str, Any] | Exception) -> None:
        self.result = result
        self.loop.quit()


def simulate(folder: Path, params: SimulationParams, engine: Engine | None = None) -> None:
    """Write the simulated subject with progress in a panel of the window, which stays alive meanwhile.

    Raises
    ------
    SampleCancelled
        If the user cancelled it.
    SampleError
        If it is under way already.
    UserError
        If the folder cannot be written.
    """
    from napari import current_viewer

    if Simulation.running is not None:
        raise SampleError("The simulated subject is being written already. Wait for its bar, or press Cancel below it.")
    result = Simulation(engine or Engine(cache_folder() / "samples"), current_viewer()).run(folder, params)
    if result is None or isinstance(result, Cancelled):  # None: the application ends
        raise SampleCancelled(CANCELLED)
    if isinstance(result, Exception):
        raise result
