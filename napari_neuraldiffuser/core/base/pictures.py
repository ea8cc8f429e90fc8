"""Picture files, seen and reconstructed, read by one rule wherever they are read.

A picture comes out as 8-bit RGB, upright: turned as its EXIF says; black and white, grey, palette and CMYK become RGB
by Pillow's formulas, colour profiles are not applied.  What would have to be guessed is refused: more than 8 bits per
channel (which range was meant?), transparent pixels (on which background?), several frames (which one?).
"""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_neuraldiffuser.core.base.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Endings of the picture files that are read, in lower case."""

EIGHT_BIT = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
# the first picture of a camera's multi-picture JPEG is the photograph, the others are previews, depth or gain maps
FIRST_IS_WHOLE = {"MPO"}
MAX_SIDE = 512
"""Larger images are reduced: the networks see at most this, and a thousand photographs would fill the memory."""
DEEP = (";12", ";16", ";32")
BITS_PER_SAMPLE = 258
"""TIFF's tag."""
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, EOFError, KeyError, IndexError, struct.error, zlib.error)
"""What Pillow raises for files that end early or are not what they claim."""


class PictureError(UserError):
    """A picture file that cannot be read or would have to be guessed at; the message names it, why, and the remedy."""


def picture_files(folder: str | Path) -> list[Path]:
    """The picture files of a folder and its sub-folders, linked ones too, sorted; hidden files are none."""
    found: list[Path] = []
    above: dict[str, tuple[str, ...]] = {os.fspath(folder): (os.path.realpath(folder),)}
    for where, below, names in os.walk(folder, followlinks=True):
        found += [Path(where, name) for name in names if name.lower().endswith(SUFFIXES) and name[0] != "."]
        for name in list(below):
            inside = os.path.join(where, name)
            # a link to a folder above would be followed for ever
            if name[0] == "." or os.path.realpath(inside) in above[where]:
                below.remove(name)
            else:
                above[inside] = (*above[where], os.path.realpath(inside))
    return sorted(found)


def read_picture(path: str | Path) -> "np.ndarray":
    """A picture file as uint8 (H, W, 3), upright.

    Raises
    ------
    PictureError
        If it is missing, empty, cut off or no picture, or has several frames, more than 8 bits per channel or
        transparent pixels.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            _check(opened, path)
            # the tag is read first, as converting may drop it
            return np.array(_opaque(ImageOps.exif_transpose(opened), path))
    except PictureError:
        raise
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def picture_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of a picture as it is stored, from its header alone; PictureError where there is none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def common_side(sizes: Iterable[tuple[int, int]]) -> int:
    """Side at which pictures of these (width, height) come out square and alike: the smallest, `MAX_SIDE` at most."""
    return min([MAX_SIDE, *(side for size in sizes for side in size)])


def read_square(path: str | Path, side: int) -> "np.ndarray":
    """Centre square of a picture file as uint8 (side, side, 3); PictureError where `read_picture` refuses it."""
    return centre_square(read_picture(path), side)


def centre_square(picture: "np.ndarray", side: int) -> "np.ndarray":
    """Centre square of a picture (H, W, 3) uint8 as uint8 (side, side, 3)."""
    import numpy as np
    from PIL import Image, ImageOps

    return np.array(ImageOps.fit(Image.fromarray(picture), (side, side), Image.Resampling.LANCZOS))


def _check(image: "Image.Image", path: str | Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in FIRST_IS_WHOLE:
        raise PictureError(f"{path} must be one picture, got {frames} frames or pages. Save the one that was meant.")
    if image.mode not in EIGHT_BIT | WITH_ALPHA or _is_deep(image):
        raise PictureError(
            f"{path} must be a picture of 8 bits per channel in grey, RGB or CMYK, got {_depth(image)}. "
            "Save it as 8-bit RGB."
        )


def _is_deep(image: "Image.Image") -> bool:
    """Whether the file has more than 8 bits per channel, which Pillow would cut off without a word in colour files."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, ())
    return max(bits, default=0) > 8 or any(mark in str(tile[3]) for tile in getattr(image, "tile", ()) for mark in DEEP)


def _depth(image: "Image.Image") -> str:
    return "more than 8" if _is_deep(image) or image.mode[0] in "IF" else f"colours of the model {image.mode}"


def _opaque(image: "Image.Image", path: str | Path) -> "Image.Image":
    """The picture in RGB; what stood behind transparent pixels is not in the file."""
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").histogram()[255] < image.width * image.height:
            raise PictureError(
                f"{path} must be opaque, got transparent pixels. Save it on the background that was shown."
            )
    return image.convert("RGB")


def _unreadable(path: str | Path, error: Exception) -> PictureError:
    """The error for a file that could not be read, by what is wrong with it."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return PictureError(f"{path} must be a picture file, got none there. Check the path.")
    if os.path.isfile(path) and not os.path.getsize(path):
        return PictureError(f"{path} must be a picture, got an empty file. Copy it again, or remove it.")
    if isinstance(error, UnidentifiedImageError):
        return PictureError(f"{path} must be a picture, got content of no known picture format. Replace or remove it.")
    if isinstance(error, Image.DecompressionBombError):
        return PictureError(f"{path} must be a picture of a size that fits in memory, got: {error} Reduce it.")
    if isinstance(error, OSError) and error.strerror:
        return PictureError(f"{path} must be a picture file that can be opened, got: {error.strerror}. Check the path.")
    return PictureError(f"{path} must be a whole picture, got a damaged or cut-off file ({error}). Copy it again.")
