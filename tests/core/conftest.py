"""Fixtures of the tests of core."""

import pytest

from napari_neuraldiffuser.core.networks.kernels import backend


@pytest.fixture(params=["active", "reference"])
def implementation(request):
    """Where a test asks for it, it holds for the compiled kernels and for plain PyTorch."""
    if request.param == "active":
        if backend.extension() is None:
            pytest.skip(f"no compiled kernels: {backend.why_not()}")
        yield request.param
    else:
        with backend.reference_only():
            yield request.param
