"""Patterns of file names: what they read, and which are refused."""

import pytest

from napari_neuraldiffuser.core.evaluation.name_patterns import NamePattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "below", "expected"),
    [
        ("{stimulus}", "cat", {"stimulus": "cat"}),
        ("{stimulus}", "animals/cat", {"stimulus": "cat"}),
        ("img_{stimulus}_{repeat}", "img_a_b_12", {"stimulus": "a_b", "repeat": "12"}),
        ("IMG{stimulus}", "img7", {"stimulus": "7"}),
        ("{arm}/{stimulus}-r{repeat}", "guided/cat-r3", {"arm": "guided", "stimulus": "cat", "repeat": "3"}),
        ("*_nsd{stimulus}", "shared0001_nsd02951", {"stimulus": "02951"}),
        ("a.b({stimulus})", "a.b(x)", {"stimulus": "x"}),
    ],
)
def test_values_of_a_name(pattern, below, expected):
    assert NamePattern(pattern).read(below) == expected


@pytest.mark.parametrize(
    ("pattern", "below"),
    [
        ("img_{stimulus}", "picture_7"),
        ("{stimulus}_{repeat}", "cat_one"),
        ("a.b{stimulus}", "aXb7"),
        ("{arm}/{stimulus}", "x"),
    ],
)
def test_names_that_do_not_fit(pattern, below):
    assert NamePattern(pattern).read(below) is None


@pytest.mark.parametrize("pattern", ["img_*", "{repeat}", "{stimulus}_{stimulus}", "{stimulus}_{rep}", "{stimulus}_{}"])
def test_placeholders_that_are_refused(pattern):
    with pytest.raises(PatternError, match=r"must have \{stimulus\} and may have .* Write it like img_"):
        NamePattern(pattern)


@pytest.mark.parametrize("pattern", ["{stimulus}{repeat}", "*{stimulus}", "{stimulus}*"])
def test_placeholders_need_text_between_them(pattern):
    with pytest.raises(PatternError, match="text between its placeholders"):
        NamePattern(pattern)
