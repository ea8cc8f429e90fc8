"""ROI expressions and ticks: the same both ways, and the same voxels as the grammar selects."""

from itertools import product

import numpy as np
import pytest

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.nsd.selection import Selectable, select
from napari_neuraldiffuser.widgets.source.roi_terms import Regions, check, expression_of, marks_of

FAMILIES = {
    "floc-faces": {"OFA": 5, "FFA-1": 4, "FFA-2": 3, "mTL-faces": 0},
    "nsdgeneral": {"nsdgeneral": 20},
    "prf-visualrois": {"V1v": 4, "V1d": 4, "V2v": 3, "V2d": 3, "hV4": 2},
    "other": {"hV4": 2, "area - 7": 2},
}


class Volumes(Selectable):
    """Families whose voxels overlap at random."""

    shape, affine = (12, 12, 12), np.eye(4)

    def __init__(self):
        random = np.random.default_rng(0)
        self.volumes = {}
        for family, names in FAMILIES.items():
            labels = random.integers(-1, len(names) + 1, self.shape)
            self.volumes[family] = Rois(family, labels, dict(enumerate(names, 1)), self.affine)

    def roi_names(self):
        return list(self.volumes)

    def rois(self, name):
        return self.volumes[name]


@pytest.fixture(scope="module")
def regions():
    return Regions(FAMILIES)


@pytest.mark.parametrize(
    "expression",
    [
        "nsdgeneral",
        "V1 + V2",
        "FFA",
        "FFA-1",
        "floc-faces",
        "floc-faces - FFA",
        "nsdgeneral - FFA - OFA",
        "nsdgeneral - floc-faces",
        "OFA + FFA-1 + V2v + prf-visualrois/hV4",
        "prf-visualrois - V1d",
        "prf-visualrois/V1v",
        "other/hV4",
        '"other/area - 7"',
        "other",
    ],
)
def test_an_expression_and_its_ticks_select_the_same(expression, regions):
    written = expression_of(marks_of(expression, regions), regions)
    assert marks_of(written, regions) == marks_of(expression, regions)
    volumes = Volumes()
    np.testing.assert_array_equal(select(volumes, written), select(volumes, expression))


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("V1v + V1d + V2", "V1 + V2"),
        ("nsdgeneral - FFA-1 - FFA-2", "nsdgeneral - FFA"),
        ("OFA + FFA-2 + FFA-1", "OFA + FFA"),
        ("V2v + V2d + prf-visualrois/hV4 + V1", "prf-visualrois"),
        ("prf-visualrois/V1v", "V1v"),
        ("prf-visualrois/hV4", "prf-visualrois/hV4"),
        ('"other/area - 7"', '"area - 7"'),
        ("nsdgeneral/nsdgeneral", "nsdgeneral"),
    ],
)
def test_names_are_short_and_unambiguous(expression, written, regions):
    assert expression_of(marks_of(expression, regions), regions) == written


def test_a_name_of_two_families_is_refused_with_both(regions):
    with pytest.raises(UserError, match="prf-visualrois/hV4 or other/hV4"):
        marks_of("hV4", regions)


def test_every_choice_of_marks_comes_back(regions):
    keys = [("floc-faces", "OFA"), ("floc-faces", "FFA-1"), ("floc-faces", "FFA-2"), ("nsdgeneral", "nsdgeneral")]
    keys += [("prf-visualrois", "V1v"), ("prf-visualrois", "V1d")]
    tried = 0
    for chosen in product((None, "with", "without"), repeat=len(keys)):
        marks = {key: mark for key, mark in zip(keys, chosen, strict=True) if mark}
        expression = expression_of(marks, regions)
        if "with" not in chosen:
            assert expression == ""
            continue
        assert marks_of(expression, regions) == marks, expression
        tried += 1
    assert tried == 3**6 - 2**6


def test_joined_names_are_those_of_the_grammar(regions):
    assert regions.named("V1") == {("prf-visualrois", "V1v"), ("prf-visualrois", "V1d")}
    assert regions.named("FFA") == {("floc-faces", "FFA-1"), ("floc-faces", "FFA-2")}


@pytest.mark.parametrize("expression", ["nsdgeneral & V1", "nsdgeneral - FFA + V2", "/mask.nii.gz", "V1 + /mask.nii"])
def test_what_ticks_cannot_say(expression, regions):
    assert marks_of(expression, regions) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("FFB", "Did you mean FFA"),
        ("V9", "Families: floc-faces, nsdgeneral"),
        ("nsdgenral", "nsdgeneral"),
        ("V1 +", "both sides"),
        ("V1 + + V2", "both sides"),
        ("", "both sides"),
        ("V1 & /no/such/mask.nii.gz", "existing file, got /no/such/mask.nii.gz"),
        ('"V1', "close every double quote"),
    ],
)
def test_a_wrong_expression_says_what_is_right(expression, message, regions):
    with pytest.raises(UserError, match=message):
        check(expression, regions)


def test_a_mask_that_is_there_is_right(regions, tmp_path):
    path = tmp_path / "a - b.nii.gz"
    path.touch()
    check(f'V1 & "{path}"', regions)
