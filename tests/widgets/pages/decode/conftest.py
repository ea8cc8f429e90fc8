"""The Decode panel on an engine whose answers the tests give."""

import pytest
from napari.components import ViewerModel

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.pages.decode import DecodePanel


@pytest.fixture
def viewer(qtbot):
    """Without a window: this panel shows nothing in it."""
    return ViewerModel()


@pytest.fixture
def panel(viewer, session, qtbot):
    made = DecodePanel(viewer)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def ready(panel):
    panel.session.choose(Source("/nsd"))
    return panel
