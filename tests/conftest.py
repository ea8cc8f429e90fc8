"""Shared set-up: no display, no telemetry, long files first, GPU tests only where there is one, what all tests read."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.session.strict import pytest_runtest_makereport  # noqa: F401

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")
os.environ["XDG_STATE_HOME"] = "/nonexistent"  # no settings that somebody chose for the bundled models here


# files of minutes: pytest-xdist hands out whole files in this order, and the last one should not be long
LONGEST = (
    *("tests/demo/test_demo.py", "tests/nipype_interfaces/workflows", "tests/core/engine", "tests/core/job"),
    *("tests/package/test_sanitizers.py", "tests/package/test_build.py", "tests/widgets/window"),
)


def pytest_collection_modifyitems(items):
    def first(item):
        return next((k for k, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))

    items.sort(key=first)
    for item in items:
        if item.get_closest_marker("serial"):
            item.add_marker("slow")
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
    from tests.support.session.shared import shared
    from tests.support.study_cases import recipe_of, write_inputs

    return recipe_of(shared(tmp_path_factory, "inputs", write_inputs))


@pytest.fixture(scope="session")
def nsd_dir(inputs):
    """The NSD tree of the small subject: not to be changed."""
    return Path(inputs.source.nsd_dir)


@pytest.fixture(scope="session")
def model_dir(inputs):
    """The small models: not to be changed."""
    return Path(inputs.models)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="session")
def whole_job(nsd_dir, model_dir, tmp_path_factory):
    """A finished run of the small subject through the command line: not to be changed."""
    from tests.support.session.shared import shared
    from tests.support.session.whole_job import WholeJob, run_whole_job

    return WholeJob(shared(tmp_path_factory, "whole-job", lambda folder: run_whole_job(folder, nsd_dir, model_dir)))


@pytest.fixture(autouse=True)
def seeded():
    """Random test data are the same in every run and in every order of tests."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
