"""An output folder opened in napari's window: how long until all is there, and what the window's thread computed."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qtpy.QtCore import QTimer  # noqa: E402

from tests.support.window.real_window import Window  # noqa: E402
from tests.support.window.responsive_story import Drawing, Ticker  # noqa: E402


def opened(folder: Path, picture: Path) -> dict[str, Any]:
    """Open a folder with the dock, show its contribution page, and take a picture of the window."""
    drawing = Drawing()
    window = Window()
    window.open_dock()
    window.settle(1.0)
    ticker = Ticker(drawing)
    ticker.start()
    began, busy = time.monotonic(), time.thread_time()
    QTimer.singleShot(0, lambda: window.viewer.open(str(folder), plugin="napari-neuraldiffuser"))
    window.wait(lambda: len(window.viewer.layers) > 2, "layers")
    until_layers, computed = time.monotonic() - began, time.thread_time() - busy
    panel = window.panels["Contribution"]
    window.dock.show_page("Contribution")
    window.wait(lambda: panel.maps is not None and panel.overlay.shown and not panel.arriving, "maps")
    all_there = time.monotonic() - began
    window.settle(1.0)
    longest = ticker.stop()
    window.viewer.screenshot(str(picture), canvas_only=False)
    layers = len(window.viewer.layers)
    window.viewer.close()
    return {
        "s until layers": round(until_layers, 2),
        "s until all maps": round(all_there, 2),
        "s of the window's thread": round(computed, 2),
        "longest of the plugin, ms": round(1000 * longest["plugin_busy"]),
        "layers": layers,
    }
