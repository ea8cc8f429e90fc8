"""Regions by hemisphere: their masks, what they add up to, and when they are refused."""

import numpy as np
import pytest

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.attribution import ContributionError, by_hemisphere
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from tests.support.stand_ins import SHAPE, linear_data, make_betas, make_rois, make_targets


def problem():
    x, y, x_test, y_test = linear_data(40, 25)
    test = make_betas(x_test, 500 + np.arange(9))
    rois = make_rois("prf", np.arange(25) % 3, {1: "V1", 2: "V2"}, test)
    sides = np.full(SHAPE, 0)
    sides[4:] = 1
    sides[3] = -1
    return (
        RidgeDecoder().fit(make_betas(x), make_targets(y)),
        test,
        make_targets(y_test, test.stimulus_ids),
        rois,
        sides,
    )


def test_halves_and_what_no_hemisphere_has_add_up_to_the_whole():
    decoder, test, targets, rois, sides = problem()
    table = attribution.map(decoder, test, by_hemisphere([rois], sides, "both"), targets).table
    known = sides[tuple(test.voxels.T)]
    for target, rows in table.groupby("target"):
        share = rows.set_index(["family", "roi"]).share
        halves = rows[rows.family == "prf by hemisphere"]
        assert list(halves.roi) == ["lh.V1", "rh.V1", "lh.V2", "rh.V2", "outside prf by hemisphere"]
        np.testing.assert_allclose(halves.share.sum(), halves.total.iloc[0])
        expected = [((np.arange(25) % 3 == k) & (known == side)).sum() for k in (1, 2) for side in (0, 1)]
        assert list(halves.n_voxels)[:4] == expected
        unknown = attribution.map(decoder, test, [rois], targets).voxel_shares[target][
            (np.arange(25) % 3 == 1) & (known < 0)
        ]
        whole = share["prf by hemisphere", "lh.V1"] + share["prf by hemisphere", "rh.V1"] + unknown.sum()
        np.testing.assert_allclose(whole, share["prf", "V1"])


def test_together_is_as_before_and_apart_needs_hemispheres():
    *_, rois, sides = problem()
    assert by_hemisphere([rois], None, "together") == [rois]
    assert [family.name for family in by_hemisphere([rois], sides, "apart")] == ["prf by hemisphere"]
    with pytest.raises(ContributionError, match="must be known for hemispheres=both, got no volumes"):
        by_hemisphere([rois], None, "both")
    with pytest.raises(ContributionError, match="on the grid of the hemispheres"):
        by_hemisphere([rois], sides[1:], "apart")[0].of(problem()[1])
