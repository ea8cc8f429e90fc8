"""What the tests of the engine start from: two stimuli of the small subject, and a cache that knows its decoder."""

import shutil

import pytest

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.engine.calls import Study
from tests.support.session.shared import shared
from tests.support.study_cases import call


@pytest.fixture(scope="session")
def given(inputs):
    """A recipe with two of the test stimuli, in the reverse of their order."""
    subject = nsd.Subject(inputs.source.nsd_dir, "subj01")
    test = sorted({int(s) for s in subject.trials[subject.trials.shared].stimulus_id})
    return inputs.but(stimulus_ids=(test[3], test[0]))


@pytest.fixture(scope="session")
def cache(given, tmp_path_factory):
    """A cache that has the decoder, but no arm."""
    return shared(tmp_path_factory, "engine-cache", lambda folder: call(Study(folder), "decode", given))


@pytest.fixture
def ready(cache, tmp_path):
    """A Study over a copy of that cache."""
    shutil.copytree(cache, tmp_path / "cache")
    return Study(tmp_path / "cache")
