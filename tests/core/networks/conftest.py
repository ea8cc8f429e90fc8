"""What the tests of the networks share."""

import shutil

import pytest

from napari_neuraldiffuser.core.networks.kernels import backend, extension_file


@pytest.fixture
def folder(model_dir, tmp_path):
    """The small models as a folder of the test's own."""
    return shutil.copytree(model_dir, tmp_path / "models")


@pytest.fixture
def process(monkeypatch, tmp_path):
    """As in a new process, with an empty package folder and no variables."""
    monkeypatch.setattr(backend, "_process", backend._Process())
    monkeypatch.setattr(extension_file, "PACKAGE", tmp_path)
    monkeypatch.delenv("NEURALDIFFUSER_KERNELS", raising=False)
    monkeypatch.delenv("NEURALDIFFUSER_EXTENSION", raising=False)
    return tmp_path
