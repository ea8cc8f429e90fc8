"""The plugin's keys: nobody else's, named the same everywhere, and acting wherever the focus is."""

import pytest
import yaml
from app_model.types import KeyBinding
from qtpy.QtGui import QAction, QKeySequence
from qtpy.QtWidgets import QShortcut

from napari_neuraldiffuser.widgets.files.view import AnatomicalView
from napari_neuraldiffuser.widgets.pages.dock import NeuralDiffuser
from napari_neuraldiffuser.widgets.session.keys import KEYS, Shortcut, bind, binding, unwrapped, window_of, with_key
from tests.support import ROOT
from tests.support.window.real_window import MISSING, has_display, play

pytestmark = pytest.mark.window


@pytest.fixture
def dock(viewer, session):
    """All panels in a window."""
    made = NeuralDiffuser(viewer)
    viewer.window.add_dock_widget(made)
    AnatomicalView.of(unwrapped(viewer))
    return made


def spoken_for(window):
    """Every key that napari's window has for itself, by what it is for."""
    from napari._app_model import get_app_model
    from napari.settings import get_settings
    from napari.utils.shortcuts import default_shortcuts

    keys = {rule.keybinding: rule.command_id for rule in get_app_model().keybindings}
    for stored in (default_shortcuts, get_settings().shortcuts.shortcuts):
        keys |= {KeyBinding.from_str(str(key)): name for name, some in stored.items() for key in some}
    for action in window.findChildren(QAction):
        keys |= {binding(key.toString()): action.text() for key in action.shortcuts() if not key.isEmpty()}
    for other in window.findChildren(QShortcut):
        if not isinstance(other, Shortcut):
            keys[binding(other.key().toString())] = "a shortcut of the window"
    for menu in window.menuBar().actions():
        keys[binding(QKeySequence.mnemonic(menu.text()).toString())] = menu.text()
    return keys


def test_the_keys_are_neither_napari_s_nor_each_other_s(dock, viewer):
    window = window_of(viewer)
    bound = {shortcut.name: binding(shortcut.key().toString()) for shortcut in window.findChildren(Shortcut)}
    assert set(bound) == set(KEYS), "every key of the table is bound, and no other"
    assert len(set(bound.values())) == len(bound)
    taken = spoken_for(window)
    for known in ("Alt+C", "Alt+S", "Alt+F", "Ctrl+G", "Ctrl+M", "Shift+Alt+S"):
        assert KeyBinding.from_str(known) in taken  # the comparison sees actions, mnemonics, settings and shortcuts
    assert {name: taken[key] for name, key in bound.items() if key in taken} == {}


def test_no_key_writes_or_edits_text(qapp):
    editing = [key for key in QKeySequence.StandardKey if key not in OTHERS]
    taken = {one.toString() for key in editing for one in QKeySequence.keyBindings(key)}
    assert "Ctrl+V" in taken
    for name, key in KEYS.items():
        assert key.sequence not in taken, name
        # Alt writes characters on a Mac, and Control with Alt is AltGr on Windows
        assert "Alt" not in key.sequence, name
        assert "+" in key.sequence, f"{name} must have a modifier"


STANDARD = QKeySequence.StandardKey
OTHERS = {STANDARD.Cancel, STANDARD.NextChild, STANDARD.PreviousChild, STANDARD.InsertLineSeparator}
"""Not of a line of text."""


def test_tips_manifest_and_manual_name_the_keys_of_the_table(dock):
    panel = dock.panels["Reconstruct"]
    panel.problems = list  # the tooltip of a button that cannot be pressed says why
    panel.revalidate()
    tips = {"run": panel.run_button, "cancel": panel.cancel, "next": panel.form.picker.on}
    tips["previous"] = panel.form.picker.back
    for name, widget in tips.items():
        assert widget.toolTip().endswith(with_key("", name)), name
    manual = (ROOT / "docs/napari.md").read_text(encoding="utf-8")
    commands = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))["contributions"]["commands"]
    titles = {one["id"].rpartition(".")[2]: one.get("short_title", "") for one in commands}
    ids = {"axial": "axial", "coronal": "coronal", "sagittal": "sagittal"}
    for name, command in (ids | {"convention": "toggle_convention", "place": "go_to", "linked": "linked"}).items():
        assert titles[command].endswith(f"({KEYS[name].sequence})"), name
    for name, key in KEYS.items():
        assert f"| {key.sequence} | {key.action} |" in manual, name


@pytest.mark.slow
@pytest.mark.skipif(not has_display(), reason=MISSING)
def test_keys_act_wherever_the_focus_is(tmp_path):
    """See keys_story.py: real key presses in a real window."""
    told, status, errors = play("keys_story", tmp_path, 300, str(tmp_path))
    assert status == 0, errors
    assert set(told) == {"spin box", "line", "list", "canvas", "typed", "characters", "pages", "focus"}, told


def test_keys_of_the_user_are_left_alone(viewer):
    def own(viewer):
        """What the user bound."""

    viewer.bind_key("Control-2", own)
    bind(viewer, {"axial": own, "coronal": own})
    assert {shortcut.name for shortcut in window_of(viewer).findChildren(Shortcut)} == {"axial"}
