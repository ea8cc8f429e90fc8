"""The Reconstruct panel on an engine whose answers the tests give."""

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.files.layer_info import KEY, about
from napari_neuraldiffuser.widgets.pages.reconstruct import ReconstructPanel
from tests.support.window.reconstruct_run import DECODED
from tests.support.window.viewers import dock


@pytest.fixture
def panel(viewer, session, qtbot):
    session.choose(Source(nsd_dir="/nsd"))
    made = ReconstructPanel(viewer)
    dock(viewer, made, qtbot)
    return made


@pytest.fixture
def ready(panel, session):
    """Decoded, and stimulus 3 chosen."""
    session.set_decoded(DECODED)
    return panel


@pytest.fixture
def anatomy(viewer):
    affine = np.diag([4.0, 3.0, 2.0, 1.0])
    return viewer.add_image(np.zeros((5, 30, 20)), affine=affine, units=("mm",) * 3, metadata={KEY: about("anatomy")})
