"""What napari itself makes of the manifest: menus, Preferences page, writers."""

import pytest

pytestmark = pytest.mark.window  # menus and docks are the window's

PLUGIN = "napari-neuraldiffuser"


def texts(menu):
    """Titles in a menu and its submenus."""
    found = []
    for action in menu.actions():
        found.append(action.text())
        if action.menu() is not None:
            found += texts(action.menu())
    return found


def test_commands_are_in_napari_menus(viewer):
    layers = texts(viewer.window.layers_menu)
    for title in ("Axial slices", "Coronal slices", "Sagittal slices", "Neurological or radiological view", "Go to"):
        assert any(title in text for text in layers), title
    assert any("Contribution" in text for text in layers)
    samples = texts(viewer.window.file_menu)
    assert any("Finished result" in text for text in samples)
    assert any("Simulated subject" in text for text in samples)


WIDGETS = (
    "NeuralDiffuser",
    "Data",
    "Decode",
    "Reconstruct",
    "Contribution",
    "Report",
    "Pictures",
    "Linked views",
    "Tour",
)


@pytest.mark.parametrize("name", WIDGETS)
def test_every_widget_opens(viewer, session, name):
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, name)
    assert widget is not None
    assert name in dock.windowTitle()


def test_preferences_dialog_builds_our_page(viewer, qtbot):
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog
    from napari.settings import get_plugin_settings

    from napari_neuraldiffuser.widgets.session.state import DEFAULTS, preferences

    assert preferences() == DEFAULTS
    page = get_plugin_settings(PLUGIN).general
    page.convention, page.preview_every = "radiological", 5
    try:
        assert preferences() == {**DEFAULTS, "convention": "radiological", "preview_every": 5}
        dialog = PreferencesDialog()
        qtbot.addWidget(dialog)
        names = [dialog._list.item(row).text() for row in range(dialog._list.count())]
        assert any("NeuralDiffuser" in name or PLUGIN in name for name in names), names
    finally:
        page.convention, page.preview_every = DEFAULTS["convention"], DEFAULTS["preview_every"]
    with pytest.raises(ValueError, match="convention"):
        page.convention = "surgical"


def test_nifti_is_offered_when_a_layer_is_saved():
    import numpy as np
    from napari.layers import Image, Labels
    from napari.plugins import _npe2

    for layer in (Image, Labels):
        offered, writers = _npe2.file_extensions_string_for_layers([layer(np.zeros((2, 2, 2), int))])
        assert "NeuralDiffuser NIfTI (*.nii.gz *.nii)" in offered
        assert any(PLUGIN in writer.command for writer in writers)
