"""The Data panel on an engine whose answers the tests give."""

import pytest
from napari.components import ViewerModel
from superqt.utils import WorkerBase

from napari_neuraldiffuser.widgets.pages.data import DataPanel
from tests.support.window.data_page import DESCRIBED, nsd_folder


@pytest.fixture
def viewer(qtbot):
    """Without a window: only what is shown needs one."""
    return ViewerModel()


@pytest.fixture
def nsd(tmp_path):
    return nsd_folder(tmp_path / "nsd", "subj01", "subj02")


@pytest.fixture
def panel(viewer, session, qtbot):
    made = DataPanel(viewer)
    qtbot.addWidget(made)
    yield made
    WorkerBase.await_workers(30000)


@pytest.fixture
def opened(panel, nsd):
    """On an NSD folder whose description has arrived."""
    panel.form.take_folder(str(nsd))
    panel.session.engine.answer("describe", dict(DESCRIBED))
    return panel


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Current folder and home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
