"""What blocks the window while the plugin works: `python -m tests.support.window.responsive_story`, in a real window.

A timer ticks every 5 ms.  Of each gap between two ticks it is known how long it took, for how much of it the window's
thread computed, and both without drawing: a virtual display has no graphics card, so that drawing the window takes a
processor tens of milliseconds, whatever the plugin does.  Another process that only sleeps says how long the system
made it wait for a processor at the same time.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, Qt, QTimer

from tests.support.window.real_window import PLUGIN, Window, errors, small_sample, tell

MEASURES = ("wall", "busy", "own_wall", "own_busy", "plugin_wall", "plugin_busy")
TICK = 5
"""Milliseconds."""
SLEEPER = """
import select, sys, time
worst = 0.0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    began = time.monotonic()
    time.sleep(0.005)
    worst = max(worst, time.monotonic() - began - 0.005)
print(worst)
"""


class Drawing:
    """Seconds that the main window spent drawing, on the clock and of its thread; made before the window."""

    EVENTS = (QEvent.Type.UpdateRequest, QEvent.Type.Paint)

    def __init__(self) -> None:
        from napari._qt.qt_main_window import _QtMainWindow

        self.spent, original = np.zeros(2), _QtMainWindow.event

        def event(window: Any, event: QEvent) -> bool:
            if event.type() not in self.EVENTS:
                return original(window, event)
            began = clocks()
            try:
                return original(window, event)
            finally:
                self.spent += clocks() - began

        _QtMainWindow.event = event


class NaparisOwn:
    """Seconds of the window's thread inside napari's own making, adding and fitting of layers, docks and overlays.

    What the plugin does when napari tells it of a layer counts as the plugin's.
    """

    def __init__(self) -> None:
        from napari._qt.qt_main_window import Window as NapariWindow
        from napari._vispy.canvas import VispyCanvas
        from napari.components.layerlist import LayerList
        from napari.components.viewer_model import ViewerModel
        from napari.layers import Layer
        from napari.utils.events import EventEmitter
        from napari.utils.events.containers import EventedDict

        self.spent, self._whose = np.zeros(2), ["plugin"]
        made = [
            (LayerList, "insert"),
            (LayerList, "__delitem__"),
            (type(Layer), "__call__"),
            (ViewerModel, "reset_view"),
        ]
        made += [(VispyCanvas, f"_update_{of}_overlays") for of in ("viewer", "layer")]
        for cls, name in [*made, (NapariWindow, "add_dock_widget"), (EventedDict, "__setitem__")]:
            self._count(cls, name, lambda *args: "napari")
        self._count(EventEmitter, "_invoke_callback", whose)

    def _count(self, cls: type, name: str, owner: Callable[..., str]) -> None:
        original = getattr(cls, name)

        @wraps(original)  # what napari connects is asked how many arguments it takes
        def call(*args: Any, **options: Any) -> Any:
            former, now = self._whose[-1], owner(*args) or self._whose[-1]
            if former == now:
                return original(*args, **options)
            self._whose.append(now)
            began = clocks()
            try:
                return original(*args, **options)
            finally:
                self._whose.pop()
                self.spent += (clocks() - began) * (1 if now == "napari" else -1)

        setattr(cls, name, call)


def whose(emitter: Any, callback: Any, *rest: Any) -> str:
    """Whom a listener of napari's events belongs to; nothing where that cannot be said."""
    return "plugin" if str(getattr(callback, "__module__", "")).startswith("napari_neuraldiffuser") else ""


def clocks() -> np.ndarray:
    """Seconds on the clock, and of this thread."""
    return np.array([time.monotonic(), time.thread_time()])


class Ticker:
    """Gaps between the ticks of a timer: clock, thread, both without drawing, and both without what is napari's own."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing, self.napari, self.gaps = drawing, NaparisOwn(), []
        self.timer = QTimer(interval=TICK, timerType=Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)

    def _now(self) -> np.ndarray:
        now = clocks()
        own = now - self.drawing.spent
        return np.concatenate([now, own, own - self.napari.spent])

    def start(self) -> None:
        """Forget what was, and tick."""
        self.gaps, self.last = [], self._now()
        self.timer.start()

    def _tick(self) -> None:
        now = self._now()
        self.gaps.append(now - self.last)
        self.last = now

    def stop(self) -> dict[str, Any]:
        """The longest gap by each measure."""
        self._tick()
        self.timer.stop()
        longest = np.max(self.gaps, axis=0).tolist()
        return {"ticks": len(self.gaps), **dict(zip(MEASURES, longest, strict=True))}


@contextmanager
def sleeper() -> Iterator[dict[str, float]]:
    """Another process that sleeps: `worst` is its longest oversleep in seconds."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=pipe, stdout=pipe, text=True)
    oversleep: dict[str, float] = {}
    process.stdout.readline()
    try:
        yield oversleep
    finally:
        oversleep["worst"] = float(process.communicate("\n", timeout=30)[0])


def measured(ticker: Ticker, name: str, act: Callable[[], Any]) -> None:
    """Tell what the window's thread and the sleeping process went through."""
    with sleeper() as other:
        ticker.start()
        act()
        longest = ticker.stop()
    tell(name, **longest, control=other["worst"])


def main() -> None:
    """Dock, layers, first decoding, decoding again, and two reconstructions with a preview for every step."""
    from napari.utils.notifications import notification_manager

    small_sample()
    with notification_manager:
        ticker = Ticker(Drawing())  # before there is a window
        window = Window()
        open_dock(window)
        measured(ticker, "open result", lambda: open_result(window))
        window.viewer.layers.clear()
        window.settle(1.0)
        measured(ticker, "show layers", lambda: show_layers(window))
        window.panels["Reconstruct"].beside.setChecked(False)
        for page in window.panels:
            window.dock.show_page(page)
            window.settle(0.5)
        measured(ticker, "decode", lambda: run(window, "Decode"))
        window.panels["Reconstruct"].every.setValue(1)
        window.settle(1.0)
        window.ready("Decode")
        measured(ticker, "decode again", lambda: run(window, "Decode"))
        for name, seed, beside in (("reconstruct", 100, False), ("reconstruct beside", 200, True)):
            prepare(window, seed, beside)
            measured(ticker, name, lambda: run(window, "Reconstruct"))
        assert not errors(), errors()
        tell("modules", heavy=[name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
        window.viewer.close()
        window.settle(0.2)


def open_dock(window: Window) -> None:
    """Until it is drawn."""
    from qtpy.QtWidgets import QApplication

    before, wall, busy = set(sys.modules), time.monotonic(), time.thread_time()
    window.open_dock()
    QApplication.processEvents()
    imported = sorted(set(sys.modules) - before)
    tell("dock", wall=time.monotonic() - wall, busy=time.thread_time() - busy, imported=imported)
    window.settle(1.0)


def open_result(window: Window) -> None:
    """As the File menu does: from inside the event loop."""
    QTimer.singleShot(0, lambda: window.viewer.open_sample(PLUGIN, "finished_result"))
    contribution = window.panels["Contribution"]
    window.wait(lambda: contribution.maps is not None and contribution.overlay.shown, "the finished result")
    window.wait(lambda: not contribution.arriving, "all of it")
    window.settle(2.0)


def show_layers(window: Window) -> None:
    """Write the sample, and add its layers: napari's own time."""
    window.viewer.open_sample(PLUGIN, "simulated_subject")
    window.wait(lambda: window.session.described is not None, "description")
    window.settle(1.0)


def run(window: Window, page: str) -> None:
    """Press Run, wait, and let everybody take up the result."""
    window.run(page)
    window.settle(0.5)


def prepare(window: Window, seed: int, beside: bool) -> None:
    """Another seed, so that everything is computed; the strip of pictures below the brain is there or not."""
    window.panels["Reconstruct"].beside.setChecked(beside)
    window.settle(2.0)
    window.session.change_stage("diffusion", window.session.recipe.settings.diffusion.but(seed=seed))
    window.ready("Reconstruct")


if __name__ == "__main__":
    main()
