"""A napari in a real window of a virtual display: how a test starts one, and how its process drives the plugin."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT

SCREEN = "-screen 0 1600x1000x24"
PLUGIN = "napari-neuraldiffuser"
BEGAN = time.monotonic()
MISSING = "a real window needs a virtual display: xvfb-run is missing. Run: sudo apt-get install -y xvfb xauth"


def has_display() -> bool:
    """Whether a virtual display can be started."""
    return shutil.which("xvfb-run") is not None


def play(story: str, home: Path, timeout: float, *arguments: str) -> tuple[dict[str, dict[str, Any]], int, str]:
    """Run a module beside this one in a window; what it told by step, its exit status, and its standard error."""
    env = {**os.environ, "QT_QPA_PLATFORM": "xcb", "PYTHONPATH": str(ROOT)}
    env |= {"XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "cache")}
    command = ["xvfb-run", "-a", "-s", SCREEN, sys.executable, "-m", f"tests.support.window.{story}", *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {one.pop("step"): one for one in told}, done.returncode, done.stderr


def tell(step: str, **facts: Any) -> None:
    """Say that a step was reached, and what was found there."""
    print(json.dumps({"step": step, "after": round(time.monotonic() - BEGAN, 1), **facts}), flush=True)


def small_sample() -> None:
    """Make the sample "simulated subject" a small one in this process."""
    from napari_neuraldiffuser.core.params import SimulationParams
    from napari_neuraldiffuser.widgets import samples

    samples.SIMULATION = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)


class Window:
    """A viewer, and the plugin's dock once it is open."""

    def __init__(self) -> None:
        import napari

        self.viewer = napari.Viewer()
        self.viewer.window.resize(1500, 950)
        self.dock: Any = None
        self.settle(0.5)

    def open_dock(self) -> None:
        """As the Plugins menu does."""
        _, self.dock = self.viewer.window.add_plugin_dock_widget(PLUGIN, "NeuralDiffuser")
        self.panels = self.dock.panels
        self.session = self.panels["Data"].session

    def wait(self, ready: Callable[[], Any], what: str, seconds: float = 240.0) -> float:
        """Run the event loop until `ready`; returns the seconds that it took."""
        from qtpy.QtCore import QEventLoop, QTimer

        began, loop, timer = time.monotonic(), QEventLoop(), QTimer(interval=5)

        def look() -> None:
            if ready() or time.monotonic() - began > seconds:
                loop.quit()

        timer.timeout.connect(look)
        timer.start()
        loop.exec()
        timer.stop()
        assert ready(), f"{what}: not within {seconds:.0f} s; panels say {self.messages()}, errors {errors()}"
        return time.monotonic() - began

    def settle(self, seconds: float) -> None:
        """Let the window draw itself and quiet calls end."""
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > until, "time", seconds + 60)

    def messages(self) -> list[str]:
        """What the panels say, by their hint and message lines."""
        panels = self.panels.values() if self.dock is not None else ()
        return [label.text() for panel in panels for label in (panel.hint, panel.message) if label.text()]

    def ready(self, page: str) -> Any:
        """Bring a panel to the front and wait until its Run button can be pressed."""
        self.dock.show_page(page)
        panel = self.panels[page]
        self.wait(panel.run_button.isEnabled, f"Run of {page}")
        return panel

    def press_run(self, page: str) -> Any:
        """Press Run of a panel with the mouse; returns the panel."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        panel = self.ready(page)
        QTest.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
        assert panel.task is not None, f"Run of {page} was pressed, but nothing runs: {self.messages()}"
        return panel

    def run(self, page: str) -> Any:
        """Press Run and wait for the end."""
        panel = self.press_run(page)
        self.wait(lambda: panel.task is None and not self.session.busy, page)
        return panel

    # the canvas

    @property
    def canvas(self) -> Any:
        """The vispy canvas."""
        return self.viewer.window._qt_viewer.canvas

    def shot(self) -> np.ndarray:
        """What the canvas shows, (H, W, 3) int."""
        self.settle(0.3)
        return self.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)

    def pixel(self, world: np.ndarray) -> tuple[int, int]:
        """Canvas pixel (x, y) of a world point (S, A, R) in the slice that is shown."""
        shown = list(self.viewer.dims.displayed)

        def at(x: float, y: float) -> np.ndarray:
            return np.array(self.canvas._map_canvas2world((x, y), self.canvas.view))[shown]

        origin = at(0, 0)
        steps = np.column_stack([at(100, 0) - origin, at(0, 100) - origin]) / 100
        x, y = np.linalg.solve(steps, np.asarray(world)[shown] - origin)
        return round(x), round(y)

    def click(self, world: np.ndarray) -> None:
        """A real click on the canvas."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        x, y = self.pixel(world)
        native = self.canvas.native
        assert native.rect().contains(x, y), f"pixel {x}, {y} must be on the canvas, which is {native.rect()}"
        QTest.mouseMove(native, QPoint(x, y))
        QTest.mouseClick(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(x, y))
        self.settle(0.2)


@contextmanager
def told_events(session: Any) -> Iterator[list[tuple[float, str, dict[str, Any]]]]:
    """Every event of the runs that start meanwhile: time, name, payload."""
    found: list[tuple[float, str, dict[str, Any]]] = []

    def listen(busy: bool) -> None:
        if busy:
            session.task.event.connect(lambda name, payload: found.append((time.monotonic(), name, payload)))

    session.busy_changed.connect(listen)
    try:
        yield found
    finally:
        session.busy_changed.disconnect(listen)


def errors() -> list[str]:
    """Errors that napari was told of, exceptions in slots among them."""
    from napari.utils.notifications import NotificationSeverity, notification_manager

    severe = (NotificationSeverity.ERROR,)
    return [str(record.message) for record in notification_manager.records if record.severity in severe]


def gone(pid: int) -> bool:
    """Whether a child of this process has ended; an ended child that nobody waited for counts as gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"
