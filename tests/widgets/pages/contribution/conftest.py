"""The Contribution panel, empty and with an output folder."""

import pytest

from napari_neuraldiffuser.widgets.pages.contribution import ContributionPanel
from tests.support.window.contribution_page import read
from tests.support.window.output_folder import write_output
from tests.support.window.viewers import dock


@pytest.fixture
def out_dir(tmp_path):
    return write_output(tmp_path / "out")


@pytest.fixture
def empty(viewer, session, qtbot):
    panel = ContributionPanel(viewer)
    dock(viewer, panel, qtbot)
    return panel


@pytest.fixture
def panel(empty, out_dir, qtbot):
    read(empty, out_dir, qtbot)
    return empty
