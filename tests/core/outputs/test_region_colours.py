"""Colours of regions cannot be taken for the heat map's, by colour-blind readers neither.

Colour blindness is simulated as Machado, Oliveira and Fernandes (2009) do, with their matrices for severity 1.
"""

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_neuraldiffuser.core.outputs.report.slices import NEGATIVE, POSITIVE, REGION_COLOURS, region_colours

EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def rgb(colours):
    return np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])


def ramp(colours, n=40):
    """Colours between those that a map is made of."""
    at, known = np.linspace(0, len(colours) - 1, n), rgb(colours)
    return np.stack([np.interp(at, range(len(colours)), known[:, k]) for k in range(3)], axis=1)


def seen(colours, eyes):
    """CIELAB of what these eyes see."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)[None])[0]


def distance(one, other, eyes):
    return deltaE_ciede2000(seen(one, eyes)[:, None], seen(other, eyes)[None])


@pytest.mark.parametrize("eyes", EYES)
def test_no_region_has_a_colour_of_the_heat_map(eyes):
    assert distance(rgb(REGION_COLOURS), ramp(POSITIVE), eyes).min() > 18


@pytest.mark.parametrize("eyes", EYES)
def test_regions_have_different_colours(eyes):
    apart = distance(rgb(REGION_COLOURS), rgb(REGION_COLOURS), eyes) + 100 * np.eye(len(REGION_COLOURS))
    assert apart.min() > 18


def test_negative_shares_are_neither_positive_ones_nor_regions():
    assert distance(rgb(REGION_COLOURS), ramp(NEGATIVE), "normal").min() > 12
    for eyes in EYES:  # the bright ends; near 0 both are dark
        assert distance(ramp(NEGATIVE)[:25], ramp(POSITIVE)[15:], eyes).min() > 18, eyes


def test_orange_would_be_taken_for_the_map():
    """The comparison can fail: a colour of the former palette, and red for a green."""
    assert distance(rgb(["#ff9f5a"]), ramp(POSITIVE), "normal").min() < 10
    red, green = rgb(["#c00000"]), rgb(["#6f6a00"])
    assert distance(red, green, "deuteranopia").min() < distance(red, green, "normal").min() / 2


def test_parts_of_an_area_have_one_colour_and_many_areas_go_round():
    names = {0: "", 1: "V1v", 2: "V1d", 3: "V2v", 4: "hV4"}
    colours = region_colours(names)
    assert colours[1] == colours[2] != colours[3]
    assert len(set(colours.values())) == 3
    many = region_colours({k: f"area {k}" for k in range(1, 13)})
    for one, other in itertools.pairwise(many.values()):
        assert one != other
