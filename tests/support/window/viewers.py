"""Panels beside a napari viewer, with a window or without."""


def dock(viewer, panel, qtbot):
    """Dock a panel in the viewer's window; without one, only see that the panel is closed with the test."""
    if hasattr(viewer, "window"):
        viewer.window.add_dock_widget(panel)
    else:
        qtbot.addWidget(panel)
