"""A napari viewer without OpenGL, an engine without a process, and nobody's own configuration."""

import gc
from functools import partialmethod

import pytest
from pytestqt.qtbot import QtBot

from tests.support.window.fake_engine import FakeEngine

PATIENCE = 120_000  # ms


@pytest.fixture(autouse=True, scope="session")
def small_heap():
    """Leave what earlier tests and imports made out of the collections by which napari looks for leaks."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def patience():
    """Events are waited for as long as a busy machine may need; pytest-qt's own five seconds are for idle ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("waitUntil", "waitSignal"):
            patch.setattr(QtBot, name, partialmethod(getattr(QtBot, name), timeout=PATIENCE))
        yield


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Configuration and cache of the plugin are the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def viewer(request, qapp):
    """napari's viewer without a window, or, in a test marked `window`, with one."""
    if request.node.get_closest_marker("window"):
        return request.getfixturevalue("window_viewer")
    from napari.components import ViewerModel
    from npe2 import PluginManager

    # a test with a window leaves napari's plugin manager as it found it, possibly without any plugin
    plugins = PluginManager.instance()
    if "napari-neuraldiffuser" not in {manifest.name for manifest in plugins.iter_manifests()}:
        plugins.discover()
    return ViewerModel()


@pytest.fixture
def window_viewer(make_napari_viewer_proxy, monkeypatch):
    # vispy#2736: without a display there is no OpenGL to ask for its extensions and texture sizes
    from napari._vispy.layers import base, image, labels

    monkeypatch.setattr(image, "get_gl_extensions", lambda: "")
    for module in (base, image, labels):
        monkeypatch.setattr(module, "get_max_texture_sizes", lambda: (2048, 2048))
    return make_napari_viewer_proxy()


@pytest.fixture
def session(viewer):
    """The viewer's session on a FakeEngine: panels made for the viewer find it."""
    from napari_neuraldiffuser.widgets.session import session as sessions

    made = sessions.Session(viewer, FakeEngine())
    sessions._SESSIONS[hash(viewer)] = made
    yield made
    made.close()


@pytest.fixture(scope="session")
def files(nsd_dir):
    """A folder with a small simulated subject in `nsd` and small random models in `models`."""
    return nsd_dir.parent
