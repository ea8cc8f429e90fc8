"""Panels beside a napari viewer, and what happens around them when nobody does anything."""

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication


def dock(viewer, panel, qtbot):
    """Dock a panel in the viewer's window; without one, only see that the panel is closed with the test."""
    if hasattr(viewer, "window"):
        viewer.window.add_dock_widget(panel)
    else:
        qtbot.addWidget(panel)


def settle(*timers: QTimer) -> None:
    """Handle all events that wait, and let these timers fire if they run, until there is nothing left to happen.

    What a test says did not happen cannot happen later: no time has to pass, however busy the machine is.
    """
    for _ in range(20):
        QApplication.sendPostedEvents()
        QApplication.processEvents()
        running = [timer for timer in timers if timer.isActive()]
        for timer in running:
            timer.stop()
            timer.timeout.emit()
        if not running:
            break
    for _ in range(3):  # timers of 0 ms start others
        QApplication.processEvents()
