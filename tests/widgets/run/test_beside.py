"""Where the pictures stand in the viewer's world of millimetres."""

import nibabel as nib
import numpy as np
import pytest

from napari_neuraldiffuser.widgets.files.layers import GAP, frames


def test_frames_do_not_overlap_and_are_as_high_as_the_brain_is_long():
    affine = nib.affines.from_matvec(np.diag([4.0, 3.0, 2.0]), [-10, -50, -40])
    places = frames(np.zeros((5, 30, 20)), affine)
    (top, left, side), (below, *_) = places["seen"], places["unguided"]
    assert left == pytest.approx(-40 + 2 * 19.5 + GAP)
    assert top + GAP == pytest.approx(-50 + 3 * 29.5)
    assert below - side == pytest.approx(-50 - 1.5)
    assert top - side - GAP == pytest.approx(below)
    assert places["start"][1] == pytest.approx(left + side + GAP)
