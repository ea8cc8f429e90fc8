"""Stimuli of own scans: image files of every kind, captions, and what is wrong with them."""

import json

import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.pictures import PictureError

NAMES = [f"picture_{k}" for k in range(6)]


@pytest.fixture
def pictures(tmp_path):
    """Stimuli of a folder that a test changes: a uniform image of 40 px for every label."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (40, 40), (10, 20, 30)).save(folder / f"{name}.png")
    return nsd.OwnStimuli(str(folder), "", NAMES), folder, NAMES


def test_images_of_differing_sizes_come_out_square_and_equal(pictures):
    stimuli, folder, names = pictures
    wide = np.zeros((30, 60, 3), np.uint8)
    wide[:, 15:45] = (200, 100, 50)
    (folder / f"{names[0]}.png").unlink()
    Image.fromarray(wide).save(folder / f"{names[0]}.jpg", quality=100, subsampling=0)
    images = stimuli[[0, 1]]
    assert images.shape == (2, 30, 30, 3) and images.dtype == np.uint8
    assert np.abs(images[0].astype(int) - (200, 100, 50))[:, 1:-1].max() <= 3  # the centre square
    assert (images[1] == (10, 20, 30)).all()
    assert stimuli.notes == [f"{len(names)} stimulus images cropped to their centre square and reduced to 30 px"]


def test_large_images_are_reduced(pictures):
    stimuli, folder, names = pictures
    for name in names[:2]:
        Image.new("RGB", (600, 520), (9, 9, 9)).save(folder / f"{name}.png")
    assert nsd.OwnStimuli(str(folder), "", names[:2])[0].shape == (512, 512, 3)


def test_grey_palette_and_opaque_alpha_become_rgb(pictures):
    stimuli, folder, names = pictures
    grey = np.arange(1600, dtype=np.uint8).reshape(40, 40)
    Image.fromarray(grey).save(folder / f"{names[0]}.png")
    rgba = np.dstack([grey, grey + 1, grey + 2, np.full_like(grey, 255)])
    Image.fromarray(rgba, "RGBA").save(folder / f"{names[1]}.png")
    Image.new("RGB", (40, 40), (1, 2, 3)).quantize(4).save(folder / f"{names[2]}.png")
    images = stimuli[[0, 1, 2]]
    np.testing.assert_array_equal(images[0], np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(images[1], rgba[..., :3])
    assert (images[2] == (1, 2, 3)).all()


def test_images_are_read_by_the_rules_of_pictures(pictures):
    """Turned as EXIF says, and refused by the sentence of `base.pictures`, naming the file."""
    stimuli, folder, names = pictures
    turned = np.zeros((40, 40, 3), np.uint8)
    turned[:20] = 200  # the upper half is bright; a quarter turn would bring it to a side
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(turned).transpose(Image.Transpose.ROTATE_90).save(folder / f"{names[0]}.png", exif=tag)
    np.testing.assert_array_equal(stimuli[0], turned)
    Image.new("RGBA", (40, 40), (0, 0, 0, 254)).save(folder / f"{names[1]}.png")
    with pytest.raises(PictureError, match=f"{names[1]}.*must be opaque"):
        stimuli[1]
    (folder / f"{names[2]}.png").write_bytes(b"")
    with pytest.raises(PictureError, match=f"{names[2]}.*empty file"):
        nsd.OwnStimuli(str(folder), "", names)[2]


def test_missing_and_double_images(pictures):
    stimuli, folder, names = pictures
    Image.new("RGB", (40, 40)).save(folder / f"{names[0]}.bmp")
    (folder / f"{names[1]}.png").unlink()
    (folder / f"{names[2]}.png").rename(folder / "other.png")
    with pytest.raises(nsd.NSDError, match=f"got none for 2: {names[1]}, {names[2]}.*Name the files by the labels"):
        stimuli[[3, 1, 2]]
    with pytest.raises(nsd.NSDError, match="one image per label, got .*bmp and .*png"):
        stimuli[0]
    assert stimuli[3].shape == (40, 40, 3)
    for bad in (-1, len(names)):
        with pytest.raises(nsd.NSDError, match="stimulus ids must be 0 ..."):
            stimuli[[bad]]
    with pytest.raises(nsd.NSDError, match="whole numbers"):
        stimuli[[0.5]]


@pytest.mark.parametrize("below", ["stimuli", "stimuli/set a"])
def test_images_in_a_folder_below_are_named(tmp_path, below):
    for name in ("x.png", "y.jpg"):
        (tmp_path / below).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / below / name)
    with pytest.raises(nsd.NSDError, match=f"They are in {tmp_path / below}: give that folder"):
        nsd.OwnStimuli(str(tmp_path), "", ["x", "y.jpg"])[[0, 1]]
    with pytest.raises(nsd.NSDError, match="Name the files by the labels"):
        nsd.OwnStimuli(str(tmp_path), "", ["x", "z"])[[0, 1]]


def test_labels_may_be_paths_with_suffix(tmp_path):
    """BIDS's stim_file names files below the folder."""
    folder = tmp_path / "pictures"
    (folder / "faces").mkdir(parents=True)
    Image.new("RGB", (8, 8), (5, 6, 7)).save(folder / "faces/a.b.png")
    Image.new("RGB", (8, 8), (7, 6, 5)).save(folder / "cat.JPG", quality=100)
    Image.new("RGB", (8, 8), (1, 1, 1)).save(folder / "cat.png")
    stimuli = nsd.OwnStimuli(str(folder), "", ["cat.png", "faces/a.b", "faces/a.b.png"])
    images = stimuli[[0, 1, 2]]
    assert images[:, 0, 0].tolist() == [[1, 1, 1], [5, 6, 7], [5, 6, 7]]


def test_captions(pictures, tmp_path):
    _, folder, names = pictures
    path = tmp_path / "captions.json"

    def captions(content):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return nsd.OwnStimuli(str(folder), str(path), names).captions(0)

    assert captions({names[0]: "a red ball"}) == ["a red ball"]
    assert captions({names[0]: ["a", "b"]}) == ["a", "b"]
    with pytest.raises(nsd.NSDError, match=f"one entry of captions of stimulus {names[0]}, got none.*{names[1]}"):
        captions({names[1]: "a"})
    for bad in ("[1]", "{"):
        with pytest.raises(nsd.NSDError, match="captions.json must be a JSON of stimulus label to captions"):
            captions(bad)
    with pytest.raises(nsd.NSDError, match="texts and not empty, got 3 for picture_0"):
        captions({names[0]: 3})
    with pytest.raises(nsd.NSDError, match="texts and not empty, got ' ' for picture_0"):
        captions({names[0]: ["a", " "]})


def test_the_fingerprint_follows_images_captions_and_labels(pictures, tmp_path):
    _, folder, names = pictures
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(dict.fromkeys(names, "a ball")))

    def fingerprint(ids=(0, 1), names=names):
        return nsd.OwnStimuli(str(folder), str(path), names).fingerprint(np.array(ids))

    first = fingerprint()
    assert fingerprint() == first != fingerprint((1, 0))
    assert fingerprint(names=[names[2], *names[1:]]) != first
    Image.new("RGB", (40, 40), (10, 20, 31)).save(folder / f"{names[5]}.png")
    assert fingerprint() == first
    Image.new("RGB", (40, 40), (10, 20, 31)).save(folder / f"{names[1]}.png")
    second = fingerprint()
    assert second != first
    path.write_text(json.dumps({**dict.fromkeys(names, "a ball"), names[0]: "a house"}))
    assert fingerprint() not in (first, second)
