"""Picture files of every kind come out as upright 8-bit RGB, or are refused with one sentence that names them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from napari_neuraldiffuser.core.base.pictures import PictureError, picture_files, picture_size, read_picture

RGB = np.random.default_rng(0).integers(0, 255, (10, 12, 3), dtype=np.uint8)
ORIENTATION = 0x0112
AS_STORED = {  # EXIF orientation -> what was done to the upright picture before it was stored
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


def saved(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.mark.parametrize("turn", AS_STORED)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_pictures_are_turned_as_exif_says(tmp_path, turn, suffix):
    stored, tag = Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))), Image.Exif()
    upright = np.asarray(stored)
    for step in AS_STORED[turn]:
        stored = stored.transpose(step)
    tag[ORIENTATION] = turn
    options = (
        {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {"lossless": True} if suffix == ".webp" else {}
    )
    read = read_picture(saved(tmp_path / f"a{suffix}", stored, exif=tag, **options))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 3


def test_colour_models_become_rgb(tmp_path):
    grey = RGB[..., 0]
    three = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "grey.png", grey)), three)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "bw.png", grey > 128)), np.where(three > 128, 255, 0))
    palette = Image.fromarray(RGB).quantize(256)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "palette.png", palette)), RGB)
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "one.gif", palette)), RGB)
    cmyk = np.dstack([255 - RGB, np.zeros_like(grey)])  # inks are what is missing of the light
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "inks.tif", Image.fromarray(cmyk, "CMYK"))), RGB)
    opaque = np.dstack([RGB, np.full_like(grey, 255)])
    for suffix in (".png", ".tif"):
        np.testing.assert_array_equal(read_picture(saved(tmp_path / f"opaque{suffix}", opaque)), RGB)
    assert read_picture(tmp_path / "grey.png").flags.writeable  # napari and torch want arrays of their own


def test_the_first_picture_of_a_cameras_multi_picture_jpeg_is_the_photograph(tmp_path):
    alone, both = tmp_path / "alone.jpg", tmp_path / "both.jpg"
    saved(alone, RGB, quality=100)
    saved(both, RGB, format="MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)], quality=100)
    np.testing.assert_array_equal(read_picture(both), read_picture(alone))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_several_frames_are_refused(tmp_path, name):
    saved(tmp_path / name, RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    with pytest.raises(PictureError, match=rf"{name} must be one picture, got 2 frames or pages\. Save the one"):
        read_picture(tmp_path / name)


def png_of_16_bits(path, image):
    """A PNG of 16 bits per channel, which Pillow reads as 8 without a word and does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[image.shape[2]], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_more_than_8_bits_are_refused_in_grey_and_in_colour(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    deep = RGB.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "colour.tif", deep, photometric="rgb")
    tifffile.imwrite(tmp_path / "packed.tif", deep, photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate")
    files = [
        *(tmp_path / f"{name}.tif" for name in ("colour", "packed", "planes")),
        saved(tmp_path / "grey.png", deep[..., 0]),
        saved(tmp_path / "grey.tif", deep[..., 0]),
        saved(tmp_path / "whole.tif", deep[..., 0].astype(np.int32)),
        saved(tmp_path / "float.tif", (deep[..., 0] / 65535).astype(np.float32)),
        png_of_16_bits(tmp_path / "colour.png", deep),
        png_of_16_bits(tmp_path / "alpha.png", np.dstack([deep, np.full_like(deep[..., 0], 65535)])),
    ]
    for path in files:
        with pytest.raises(PictureError, match=rf"{path.name} must be .*8 bits per channel.*got more than 8\. Save it"):
            read_picture(path)


def test_other_colour_models_are_refused(tmp_path):
    with pytest.raises(PictureError, match="got colours of the model LAB"):
        read_picture(saved(tmp_path / "lab.tif", Image.new("LAB", (4, 4))))


@pytest.mark.parametrize("kind", ["alpha", "grey alpha", "one colour", "palette"])
def test_transparent_pixels_are_refused(tmp_path, kind):
    nearly = np.full(RGB.shape[:2], 255, np.uint8)
    nearly[3, 4] = 254
    image, options = {
        "alpha": (np.dstack([RGB, nearly]), {}),
        "grey alpha": (Image.fromarray(np.dstack([RGB[..., 0], nearly]), "LA"), {}),
        "one colour": (RGB, {"transparency": tuple(RGB[3, 3].tolist())}),
        "palette": (Image.fromarray(RGB).quantize(256), {"transparency": 3}),
    }[kind]
    with pytest.raises(
        PictureError, match=r"a\.png must be opaque, got transparent pixels\. Save it on the background"
    ):
        read_picture(saved(tmp_path / "a.png", image, **options))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif"])
def test_cut_off_pictures_are_named(tmp_path, suffix):
    whole = saved(tmp_path / f"a{suffix}", np.kron(RGB, np.ones((4, 4, 1), np.uint8))).read_bytes()
    for length in (4, 12, len(whole) // 2):
        (tmp_path / f"a{suffix}").write_bytes(whole[:length])
        with pytest.raises(PictureError, match=rf"a\{suffix} must be a (whole )?picture, got "):
            read_picture(tmp_path / f"a{suffix}")


def test_what_is_no_picture_is_named_with_its_cause(tmp_path):
    for name, content, cause in (
        ("empty.png", b"", "empty file"),
        ("text.jpg", b"version 1\noid 2\n", "no known picture"),
    ):
        (tmp_path / name).write_bytes(content)
        for read in (read_picture, picture_size):
            with pytest.raises(PictureError, match=rf"{name} must be a picture, got .*{cause}"):
                read(tmp_path / name)
    with pytest.raises(PictureError, match="absent.png must be a picture file, got none there"):
        read_picture(tmp_path / "absent.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PictureError, match="folder.png must be a picture file that can be opened"):
        read_picture(tmp_path / "folder.png")


def test_files_of_a_folder_and_what_is_linked_into_it(tmp_path):
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    for path in (
        folder / "x.PNG",
        folder / "sub/y.jpeg",
        folder / ".hidden/z.png",
        folder / "._x.png",
        elsewhere / "w.tif",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "notes.txt").touch()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in picture_files(folder)]
    assert found == ["linked/w.tif", "sub/y.jpeg", "x.PNG"]
    (folder / "again").symlink_to(elsewhere)
    found = [path.relative_to(folder).as_posix() for path in picture_files(folder)]
    assert found == ["again/w.tif", "linked/w.tif", "sub/y.jpeg", "x.PNG"]  # each by the name that one may call it
    assert picture_files(tmp_path / "nowhere") == []
