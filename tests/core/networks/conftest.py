"""What the tests of the kernels' loader share."""

import pytest

from napari_neuraldiffuser.core.networks.kernels import backend, extension_file


@pytest.fixture
def process(monkeypatch, tmp_path):
    """As in a new process, with an empty package folder and no variables."""
    monkeypatch.setattr(backend, "_process", backend._Process())
    monkeypatch.setattr(extension_file, "PACKAGE", tmp_path)
    monkeypatch.delenv("NEURALDIFFUSER_KERNELS", raising=False)
    monkeypatch.delenv("NEURALDIFFUSER_EXTENSION", raising=False)
    return tmp_path
