"""Keys of the plugin in a real window: `python -m tests.support.window.keys_story FOLDER`; the engine is a fake one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_neuraldiffuser.core.base.recipe import Source
from tests.support.window.data_page import DESCRIBED, nsd_folder
from tests.support.window.decode_answers import decoded
from tests.support.window.fake_engine import FakeEngine
from tests.support.window.real_window import Window, errors, tell

CONTROL, NOTHING = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.NoModifier
PRESSED = {
    "run": (Qt.Key.Key_Return, CONTROL),
    "cancel": (Qt.Key.Key_Escape, Qt.KeyboardModifier.ShiftModifier),
    "next": (Qt.Key.Key_PageDown, CONTROL),
    "previous": (Qt.Key.Key_PageUp, CONTROL),
    "axial": (Qt.Key.Key_1, CONTROL),
    "coronal": (Qt.Key.Key_2, CONTROL),
    "convention": (Qt.Key.Key_4, CONTROL),
}


def press(name: str) -> None:
    """A key as the keyboard sends it: to the widget that has the focus."""
    QTest.keyClick(QApplication.focusWidget(), *PRESSED[name])


def focus(window: Window, widget: QWidget) -> None:
    """Give the focus to a widget."""
    widget.setFocus(Qt.FocusReason.TabFocusReason)
    window.wait(lambda: QApplication.focusWidget() in (widget, widget.focusProxy()), f"focus of {widget}")


def control(panel: Any, name: str) -> Any:
    """The control of one parameter of the Reconstruct page."""
    return next(widget for group in panel.form.controls.groups for n, widget in group.controls.items() if n == name)


def act(window: Window, widget: QWidget, name: str) -> None:
    """Every key, from inside one widget."""
    session, viewer, panel = window.session, window.viewer, window.panels["Reconstruct"]
    focus(window, widget)
    press("next")
    assert session.recipe.stimulus_ids == (7,), (name, session.recipe.stimulus_ids)
    press("previous")
    assert session.recipe.stimulus_ids == (3,), name
    press("coronal")
    assert viewer.dims.order == (1, 0, 2), (name, viewer.dims.order)
    press("axial")
    assert viewer.dims.order == (0, 1, 2), name
    status = viewer.status
    press("convention")
    assert viewer.status != status, name
    before = session.engine.names().count("reconstruct")
    press("run")
    assert session.engine.names().count("reconstruct") == before + 1, name
    asked = len(session.engine.sent)
    press("cancel")
    assert len(session.engine.sent) > asked, name
    session.engine.answer("reconstruct", {})
    window.wait(lambda: panel.task is None, "the end")
    tell(name)


def typed(window: Window, spin: Any) -> None:
    """A number that is being typed is the one that runs."""
    focus(window, spin)
    spin.selectAll()
    QTest.keyClicks(spin, "42")
    assert window.session.recipe.settings.diffusion.seed != 42
    press("run")
    args, _ = window.session.engine.last("reconstruct")
    assert args["recipe"]["settings"]["diffusion"]["seed"] == 42
    window.session.engine.answer("reconstruct", {})
    tell("typed")


def characters(window: Window, line: Any) -> None:
    """What the keys are made of, without their modifiers, is text."""
    focus(window, line)
    QTest.keyClicks(line, "aAjJ1234.,-/")
    assert line.text() == "aAjJ1234.,-/", line.text()
    line.clear()
    tell("characters")


def pages(window: Window) -> None:
    """Run is that of the page that is seen; Cancel that of whichever runs."""
    engine = window.session.engine
    window.dock.show_page("Contribution")
    focus(window, window.panels["Contribution"].target)
    press("run")
    assert engine.names()[-1] == "contribution"
    window.dock.show_page("Decode")
    focus(window, window.panels["Decode"].models.guide)
    asked = len(engine.sent)
    press("cancel")
    assert len(engine.sent) > asked
    tell("pages")


def focus_is_seen(window: Window) -> None:
    """The widget with the focus looks otherwise than without, in both themes."""
    window.dock.show_page("Reconstruct")
    panel, changed = window.panels["Reconstruct"], {}
    widgets = {"button": panel.form.preset.reset, "spin box": control(panel, "seed"), "list": panel.form.device.box}
    widgets |= {"tick": panel.live.tick, "line": panel.form.picker.filter, "slider": panel.view.gallery.size}
    for theme in ("dark", "light"):
        window.viewer.theme = theme
        window.settle(0.5)
        for name, widget in widgets.items():
            widget.setEnabled(True)
            window.canvas.native.setFocus()
            window.settle(0.1)
            without = picture(widget)
            focus(window, widget)
            widget.update()
            window.settle(0.1)
            changed[f"{theme} {name}"] = int((np.abs(picture(widget) - without).max(axis=-1) > 40).sum())
    assert min(changed.values()) > 20, changed
    tell("focus", **changed)


def picture(widget: QWidget) -> np.ndarray:
    """What a widget shows, (H, W, 3) int."""
    image = widget.grab().toImage().convertToFormat(widget.grab().toImage().Format.Format_RGB32)
    pixels = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
    return pixels.reshape(image.height(), image.bytesPerLine() // 4, 4)[:, : image.width(), :3].astype(int)


def main(folder: str) -> None:
    """The dock on three stimuli, and every key from inside every kind of line."""
    from napari.utils.notifications import notification_manager

    from napari_neuraldiffuser.widgets.session import session as sessions

    with notification_manager:
        window = Window()
        sessions._SESSIONS[hash(window.viewer)] = session = sessions.Session(window.viewer, FakeEngine())
        session.choose(Source(nsd_dir=str(nsd_folder(Path(folder) / "nsd", "subj01"))))
        window.open_dock()
        window.viewer.add_image(np.zeros((3, 4, 5)))
        session.set_described({**DESCRIBED, "test_ids": [3, 7]})
        session.set_decoded(decoded(test_ids=[3, 7]))
        window.dock.show_page("Reconstruct")
        panel = window.panels["Reconstruct"]
        window.viewer.window.activate()
        from napari_neuraldiffuser.widgets.files.view import AnatomicalView

        AnatomicalView.of(window.viewer)
        act(window, control(panel, "seed"), "spin box")
        act(window, panel.form.picker.filter, "line")
        act(window, panel.form.device.box, "list")
        act(window, window.canvas.native, "canvas")
        typed(window, control(panel, "seed"))
        characters(window, panel.form.picker.filter)
        pages(window)
        focus_is_seen(window)
        assert not errors(), errors()
        window.panels["Data"].roi.choose("no region")  # a window closes whatever its pages show
        window.viewer.close()
        window.settle(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
