"""Shared set-up: no display, no telemetry, slow tests last, GPU tests only where there is one."""

import os
import sys

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")


def pytest_collection_modifyitems(items):
    # one run, one closing line: the fast tests first, then the slow ones
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not _cuda():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Recipe of a small simulated subject and small models, written once and only to be read: change a copy."""
    from tests.support.shared import shared
    from tests.support.study_cases import recipe_of, write_inputs

    return recipe_of(shared(tmp_path_factory, "inputs", write_inputs))


@pytest.fixture(autouse=True)
def seeded():
    """Random test data are the same in every run and in every order of tests."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
