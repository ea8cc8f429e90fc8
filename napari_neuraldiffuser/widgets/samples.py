"""File > Open Sample: the simulated subject, written on first use, and a finished result, shipped with the package."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEventLoop, QObject
from qtpy.QtWidgets import QWidget

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Cancelled
from napari_neuraldiffuser.core.params import SimulationParams
from napari_neuraldiffuser.widgets.files.folders import read_nsd, read_output
from napari_neuraldiffuser.widgets.files.layer_info import LayerData
from napari_neuraldiffuser.widgets.session.activity import ActivityBar
from napari_neuraldiffuser.widgets.session.engine import Engine, Task
from napari_neuraldiffuser.widgets.session.session import WindowWatch
from napari_neuraldiffuser.widgets.session.state import cache_folder

SIMULATION = SimulationParams()
TRUTH = "nsddata/ppdata/subj01/simulation_truth.json"
"""Written last: a subject without it is incomplete."""


class SampleError(UserError):
    """A sample was not made."""


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


class Simulation(QObject):
    """Writes the simulated subject in a process of its own, while the window stays alive.

    Parameters
    ----------
    engine : Engine
    window : QWidget, optional
        Closing it ends the writing, as does the cross at the bar in napari's activity dock.
    """

    running: "Simulation | None" = None

    def __init__(self, engine: Engine, window: QWidget | None = None) -> None:
        super().__init__()
        self.engine = engine
        self.watch = WindowWatch(window) if window is not None else None
        self.loop, self.activity = QEventLoop(), ActivityBar(self.cancel)
        self.result: dict[str, Any] | Exception | None = None
        self.task: Task | None = None

    def run(self, folder: Path, params: SimulationParams) -> dict[str, Any] | Exception | None:
        """The result of the engine's call, the exception that ended it, or None where the application ended."""
        Simulation.running = self
        if self.watch is not None:
            self.watch.closed.connect(lambda: self._end(Cancelled()))
        try:
            self.task = self.engine.call("simulate", {"folder": str(folder), "params": params.to_dict()})
            self.task.told.connect(self.activity.tell)
            self.task.ended.connect(self._end)
            self.loop.exec()
        finally:
            Simulation.running = self.watch = None
            self.activity.close()
            self.engine.stop()
        return self.result

    def cancel(self) -> None:
        """End at once: a subject without its last file is written again."""
        if self.task is not None:
            self.task.cancelling = True
        self.engine.stop()

    def _end(self, result: dict[str, Any] | Exception) -> None:
        self.result = result
        self.loop.quit()


def simulate(folder: Path, params: SimulationParams, engine: Engine | None = None) -> None:
    """Write the simulated subject with progress in the activity dock; the window stays alive meanwhile.

    Raises
    ------
    SampleError
        If it was cancelled or is under way already.
    UserError
        If the folder cannot be written.
    """
    if Simulation.running is not None:
        raise SampleError("The simulated subject is being written already. Wait for its bar in the activity dock.")
    result = Simulation(engine or Engine(cache_folder() / "samples"), _show_dock()).run(folder, params)
    if result is None or isinstance(result, Cancelled):  # None: the application ends
        raise SampleError("The simulated subject was cancelled and is incomplete. Open the sample again to write it.")
    if isinstance(result, Exception):
        raise result


def _show_dock() -> QWidget | None:
    """Open the activity dock of the current window, where there is one, and return the window."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is None:
        return None
    window = viewer.window._qt_window
    dock = getattr(window, "_activity_dialog", None)
    if dock is not None:
        dock.show()
    return window
