"""A napari viewer without OpenGL."""

import pytest


@pytest.fixture
def viewer(make_napari_viewer_proxy, monkeypatch):
    # vispy#2736: without a display there is no OpenGL to ask for its extensions and texture sizes
    from napari._vispy.layers import base, image, labels

    monkeypatch.setattr(image, "get_gl_extensions", lambda: "")
    for module in (base, image, labels):
        monkeypatch.setattr(module, "get_max_texture_sizes", lambda: (2048, 2048))
    return make_napari_viewer_proxy()
