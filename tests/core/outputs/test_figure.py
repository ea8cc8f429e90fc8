"""The figure for papers: what is written on it, which side is which, and files of the size that was asked for."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.outputs.report.figure import (
    PLANES,
    FigureError,
    FigureStyle,
    draw_figure,
    threshold_text,
    write_figure,
)
from napari_neuraldiffuser.core.outputs.report.slices import REGION_COLOURS, Scene, SliceStyle, bounds, roi_masks

AFFINE = nib.affines.from_matvec(np.diag([4.0, 4, 4]), [-40, -60, -30])
SMALL = FigureStyle(title="Contribution to c", n_slices=2, columns=2, width=5, dpi=40, picture_title="stimulus 7")


def scene_of(sign="positive", mirrored=False, **more):
    """A head whose map is positive on the right and negative on the left."""
    values = np.zeros((21, 25, 18))
    values[14:17, 5:9, 6:10] = 2.0
    values[4:7, 5:9, 6:10] = -1.0
    labels = np.zeros(values.shape, int)
    labels[13:18, 4:10, 5:11], labels[3:8, 4:10, 5:11] = 1, 2
    rois = Rois("own", labels, {1: "right one", 2: "left one"}, AFFINE)
    head = nib.Nifti1Image(np.pad(np.full((17, 21, 14), 100.0), 2), AFFINE)
    box = bounds(np.asanyarray(head.dataobj), AFFINE)
    limit = {"positive": 2.0, "negative": 1.0, "both": 2.0}[sign]
    style = SliceStyle(threshold=0.25, sign=sign, mirrored=mirrored, named=True, outline_colours=REGION_COLOURS, **more)
    return Scene(values, AFFINE, head, roi_masks(rois), box, limit, style)


def pictures(n=4):
    names = ("seen", "start", "unguided", "guided")[:n]
    return {name: np.full((8, 8, 3), 60 * k, np.uint8) for k, name in enumerate(names)}


def texts(figure):
    """Everything that is written on a figure."""
    from matplotlib.text import Text

    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def test_a_figure_says_what_it_shows():
    figure = draw_figure(scene_of(), pictures(), SMALL)
    said = texts(figure)
    for text in ("Contribution to c", "stimulus 7", "seen", "guided", "right one", "left one", "share of R²"):
        assert text in said, text
    assert any("shares from 0.5 (25 % of the largest); neurological" in text for text in said)
    assert sum(text.startswith("z = ") for text in said) == 2


@pytest.mark.parametrize(
    ("sign", "text"), [("positive", "from 0.5"), ("negative", "to -0.25"), ("both", "beyond ±0.5")]
)
def test_the_threshold_is_that_of_the_sign(sign, text):
    assert text in threshold_text(scene_of(sign))
    assert "25 %" in threshold_text(scene_of(sign))


@pytest.mark.parametrize("plane", PLANES)
def test_slices_of_each_plane(plane):
    figure = draw_figure(scene_of(), {}, FigureStyle(plane=plane, n_slices=2))
    titles = [text[0] for text in texts(figure) if " = " in text]
    assert titles == [letter for axis in PLANES[plane] for letter in "xyz"[axis] * 2]


def test_radiological_figures_have_the_right_side_on_the_left():
    style = FigureStyle(plane="coronal", n_slices=1, columns=1, width=5)
    for mirrored in (False, True):
        scene = scene_of("both", mirrored)
        axes = draw_figure(Scene(*[*vars(scene).values()][:3], [], scene.box, 2.0, scene.style), {}, style).axes[0]
        shares = axes.images[-1].get_array()
        right = np.ma.filled(np.ma.masked_invalid(shares), 0) > 0
        left, high = axes.get_xlim()
        extent = axes.images[-1].get_extent()
        x = np.linspace(extent[0], extent[1], right.shape[1])[right.any(axis=0)].mean()
        on_screen = (x - left) / (high - left)
        assert (on_screen < 0.5) == mirrored
        sides = {one.get_text(): one.get_position()[0] for one in axes.texts}
        assert (sides["R"] < sides["L"]) == mirrored


@pytest.mark.parametrize(("sign", "positive", "negative"), [("positive", 1, 0), ("negative", 0, 1), ("both", 1, 1)])
def test_only_shares_of_the_sign_are_drawn(sign, positive, negative):
    axes = draw_figure(scene_of(sign), {}, FigureStyle(plane="coronal", n_slices=1)).axes[0]
    shares = np.ma.filled(np.ma.masked_invalid(axes.images[-1].get_array()), 0)
    assert ((shares > 0).any(), (shares < 0).any()) == (positive, negative)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_pictures_stand_beside_the_brain_and_overlap_nothing(n):
    figure = draw_figure(scene_of(), pictures(n), SMALL)
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 2 + 1 + n
    for k, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1
        for other in boxes[:k]:
            apart = box.x0 >= other.x1 or other.x0 >= box.x1 or box.y0 >= other.y1 or other.y0 >= box.y1
            assert apart, (box, other)


def test_views_take_the_place_of_slices():
    views = [(name, np.full((30, 40, 3), 90, np.uint8)) for name in ("left", "right", "back", "top")]
    said = texts(draw_figure(scene_of("both"), pictures(), SMALL, views))
    assert {"left", "right", "back", "top"} <= set(said)
    assert not any(text.startswith("z = ") or "neurological" in text for text in said)


@pytest.mark.parametrize("ground", ["#ffffff", "#0f1317"])
def test_png_has_the_pixels_and_the_ground_that_were_asked_for(tmp_path, ground):
    path = write_figure(tmp_path / "a.PNG", scene_of(ground=ground), pictures(), SMALL)
    image = Image.open(path)
    assert image.width == SMALL.width * SMALL.dpi
    assert image.convert("RGB").getpixel((1, image.height - 2)) == tuple(bytes.fromhex(ground[1:]))


def test_pdf_is_one_whose_letters_stay_letters(tmp_path):
    content = write_figure(tmp_path / "a.pdf", scene_of(), pictures(), SMALL).read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/CIDFontType2" in content and b"/Type3" not in content


def test_what_cannot_be_drawn_is_said(tmp_path):
    for name in ("a.jpg", "a", "a.svg"):
        with pytest.raises(FigureError, match=r"must end with \.png or \.pdf"):
            write_figure(tmp_path / name, scene_of(), {}, SMALL)
    with pytest.raises(FigureError, match="at least 1 slice"):
        draw_figure(scene_of(), {}, FigureStyle(n_slices=0))
    with pytest.raises(FigureError, match="plane must be one of"):
        draw_figure(scene_of(), {}, FigureStyle(plane="oblique"))
