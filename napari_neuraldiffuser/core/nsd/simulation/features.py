"""What simulated voxels can respond to: local luminance, colour and oriented contrast; and what a scene contains."""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from PIL import Image

from napari_neuraldiffuser.core.nsd.simulation.scenes import draw as scenes

WORKING_PX = 64
FIELD_PX = 32
"""Images are filtered at 64 px; receptive fields are laid out on 32 x 32 positions."""

ORIENTATIONS = np.deg2rad([0.0, 45.0, 90.0, 135.0])
FREQUENCIES = (0.11, 0.22)
"""Cycles per pixel at 64 px."""


def shrink(images: np.ndarray) -> np.ndarray:
    """uint8 (n, H, W, 3) at the working size, (n, 64, 64, 3)."""
    if images.shape[1] == WORKING_PX:
        return images
    size = (WORKING_PX, WORKING_PX)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in images])


def opponent_maps(images: np.ndarray) -> np.ndarray:
    """Luminance, red-green and blue-yellow at the field's positions: (3, n, 32 * 32) float32 from uint8 (n,
    64, 64, 3)."""
    step = WORKING_PX // FIELD_PX
    small = images.reshape(-1, FIELD_PX, step, FIELD_PX, step, 3).mean(axis=(2, 4), dtype=np.float32) / 255
    red, green, blue = np.moveaxis(small, -1, 0)
    maps = np.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2])
    return maps.reshape(3, len(images), -1)


def energy_maps(images: np.ndarray) -> np.ndarray:
    """Gabor energy (root of the quadrature pair's power) of the luminance, (8, n, 32 * 32) float32.

    The complex-cell model of Adelson and Bergen 1985, as in Kay et al. 2008, at 4 orientations x 2 frequencies.
    """
    luminance = images.mean(axis=-1, dtype=np.float32) / 255
    spectrum = scipy.fft.fft2(luminance - luminance.mean(axis=(1, 2), keepdims=True))
    fy, fx = np.meshgrid(*[np.fft.fftfreq(WORKING_PX).astype(np.float32)] * 2, indexing="ij")
    maps = []
    step = WORKING_PX // FIELD_PX
    for frequency in FREQUENCIES:
        for angle in ORIENTATIONS:
            # a one-sided Gaussian in the frequency plane is a quadrature pair of Gabors in the image
            off = (fx - frequency * np.cos(angle)) ** 2 + (fy - frequency * np.sin(angle)) ** 2
            gain = np.exp(-off / (2 * (0.4 * frequency) ** 2)).astype(np.float32)
            energy = np.abs(scipy.fft.ifft2(spectrum * gain))
            maps.append(energy.reshape(len(images), FIELD_PX, step, FIELD_PX, step).mean(axis=(2, 4)))
    return np.stack(maps).reshape(len(maps), len(images), -1).astype(np.float32)


def content_table(shown: Sequence[scenes.Scene]) -> tuple[np.ndarray, list[str]]:
    """What each scene contains, (n, k) float32 with zero mean and unit variance per column, and the columns' names.

    `scenes.contents` and, for the main object, one-hot kind, colour, place and size.
    """
    rows = [scenes.contents(scene) | _main_object(scene) for scene in shown]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float32)
    table -= table.mean(axis=0)
    spread = table.std(axis=0)
    return table / np.where(spread > 0, spread, 1.0), names


def _main_object(scene: scenes.Scene) -> dict[str, float]:
    main = scene.objects[0]
    row, column = scenes.place_words(main)
    words = (
        f"main_kind:{main.kind}",
        f"main_colour:{main.colour}",
        f"main_row:{row}",
        f"main_column:{column}",
        f"main_extent:{scenes.size_word(main)}",
    )
    return dict.fromkeys(words, 1.0)
