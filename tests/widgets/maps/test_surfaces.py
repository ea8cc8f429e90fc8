"""Surfaces of regions: closed, and around the region."""

import numpy as np
import pytest

from napari_neuraldiffuser.widgets.maps.surfaces import surface_of


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_a_surface_is_closed_and_encloses_the_region(radius):
    grid = np.indices((12, 13, 14)) - np.array([6, 6, 7])[:, None, None, None]
    mask = (grid**2).sum(0) <= radius**2
    vertices, faces, light = surface_of(mask)
    assert 0 < light.min() <= light.max() <= 1.001
    np.testing.assert_allclose(vertices.mean(0), (6, 6, 7), atol=0.3)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "every edge has a face on either side"
    corners = vertices[faces]
    volume = abs(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()) / 6
    assert 0.3 * mask.sum() < volume < 1.6 * mask.sum() + 1
