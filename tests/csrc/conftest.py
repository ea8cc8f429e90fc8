"""Fixtures of the tests of the CUDA source: the kernels on fibers, built once."""

import os
from pathlib import Path

import pytest

from tests.csrc import emulated as e


@pytest.fixture(scope="session")
def device(tmp_path_factory):
    library = os.environ.get("NEURALDIFFUSER_EMULATED")  # built with sanitizers, see test_cuda_sanitized.py
    return e.Device(Path(library) if library else e.build(tmp_path_factory.mktemp("cuda_on_cpu")))


@pytest.fixture(params=[True, False], ids=["clusters", "no clusters"])
def either(device, request):
    device.clusters = request.param
    yield device
    device.clusters = True
