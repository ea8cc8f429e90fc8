"""A simulated session of NSD-synthetic in NSD's formats: 284 drawn patterns, seen in 744 trials.

As in NSD, pictures are wider than the square in which scenes are shown, stored values are linear in luminance, some
dark bars (in the place of words) lie wholly outside the square, and images are shown 2, 4, 8 or 10 times.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io

from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5
from napari_neuraldiffuser.core.nsd.further.files import (
    FIRST_ID,
    N_COLOUR_PICTURES,
    N_SHARED_PICTURES,
    N_SYNTHETIC,
    FurtherFiles,
)
from napari_neuraldiffuser.core.nsd.further.stimuli import FurtherStimuli, SyntheticPictures
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.stimuli import Stimuli
from napari_neuraldiffuser.core.params import SimulationParams

TALL, WIDE, PHOTOGRAPH = 714, 1360, 425
"""Pixels of NSD-synthetic's pictures and of NSD's photographs."""
SHOWN = ((2, 236), (4, 32), (8, 8), (10, 8))
"""How often how many images are shown: 744 trials of 284 images."""
N_NOISE, N_BARS = 12, 40
PLACES = (-0.62, -0.25, 0.0, 0.25, 0.62)
"""Of bars, from the centre, as a fraction of the square's side; the outer two lie outside it."""
SEED = 8
"""Of this part's random numbers, behind those of `simulate`."""


def files_of(layout: Layout) -> FurtherFiles:
    """Where the files are."""
    return FurtherFiles(layout, "synthetic")


def betas_file(layout: Layout) -> Path:
    """The session's betas."""
    return files_of(layout).folder / "betas_nsdsynthetic.hdf5"


def order(seed: int) -> np.ndarray:
    """0-based image of every trial, (744,), alike for all subjects."""
    rng = np.random.default_rng([seed, SEED])
    counts = np.concatenate([np.full(n, often) for often, n in SHOWN])
    return rng.permutation(np.repeat(rng.permutation(N_SYNTHETIC), counts))


def ids_shown(seed: int) -> np.ndarray:
    """Stimulus id of every trial, (744,)."""
    return order(seed) + FIRST_ID["synthetic"]


def stimuli(layout: Layout, core: Stimuli) -> FurtherStimuli:
    """Scenes and patterns behind them."""
    return FurtherStimuli(core, SyntheticPictures(files_of(layout)), files_of(layout))


def write_common(layout: Layout, params: SimulationParams) -> None:
    """Design and pictures; the colours of the last 64 are a subject's own, for every subject."""
    tall = round(params.image_size * TALL / PHOTOGRAPH)
    size = tall, round(tall * WIDE / TALL)
    with atomic_path(files_of(layout).design) as temporary:
        scipy.io.savemat(temporary, {"masterordering": order(params.seed)[None].astype(np.float64) + 1})
    _write(files_of(layout).pictures, N_SHARED_PICTURES, size, _grey(params.seed, size))
    for number in range(1, params.n_subjects + 1):
        own = files_of(Layout(layout.root, f"subj{number:02d}", layout.space, layout.version))
        _write(own.colour_pictures, N_COLOUR_PICTURES, size, _coloured(params.seed, number, size))


def _write(path: Path, n: int, size: tuple[int, int], pictures: Iterator[np.ndarray]) -> None:
    """Pictures (H, W, 3) of 0 ... 1 as they look on the photographs' display, stored linear in luminance."""
    with creating_hdf5(path) as file:
        bricks = file.create_dataset("imgBrick", (n, *size, 3), np.uint8, chunks=(1, *size, 3), compression="gzip")
        for k, picture in enumerate(pictures):
            bricks[k] = np.rint(255 * np.clip(picture, 0, 1) ** 2)


def _grey(seed: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Noise, bars at five places, then gratings within the square."""
    rng = np.random.default_rng([seed, SEED, 1])
    for k in range(N_SHARED_PICTURES):
        picture = np.full(size, 0.5)
        x, y = _axes(size)
        square = np.broadcast_to(np.abs(x) < 0.5, size)
        if k < N_NOISE:
            blocks = 2 + 3 * k
            picture[square] = rng.uniform(0, 1, (blocks, blocks))[_cells(x, y, blocks)][square]
        elif k < N_NOISE + N_BARS:
            place, turn = PLACES[(k - N_NOISE) % len(PLACES)], rng.uniform(0.03, 0.1, 2)
            picture[(np.abs(x - place) < turn[0]) & (np.abs(y) < turn[1])] = 0.0
        else:
            angle, cycles, phase = rng.uniform(0, np.pi), 2 ** rng.uniform(1, 4), rng.uniform(0, 2 * np.pi)
            wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            picture[square] = (0.5 + 0.5 * wave)[square]
        yield np.repeat(picture[..., None], 3, axis=2)


def _coloured(seed: int, number: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """16 hues of 4 patterns, which subjects see with slightly different colours."""
    patterns = np.random.default_rng([seed, SEED, 2]).uniform(-1, 1, (4, 6, 6))
    tint = np.random.default_rng([seed, SEED, 3, number]).uniform(0.9, 1.1, 3)
    x, y = _axes(size)
    square = np.broadcast_to(np.abs(x) < 0.5, size)
    for k in range(N_COLOUR_PICTURES):
        angles = 2 * np.pi * (k // 4) / 16 + np.array([0, 2, 4]) * np.pi / 3
        picture = np.full((*size, 3), 0.5)
        tinted = 0.5 + 0.4 * patterns[k % 4][_cells(x, y, 6)][..., None] * np.cos(angles) * tint
        picture[square] = tinted[square]
        yield picture


def _axes(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x (1, W) and y (H, 1) from the centre, as fractions of the height."""
    height, width = size
    x = (np.arange(width) + 0.5 - width / 2) / height
    y = (np.arange(height) + 0.5 - height / 2) / height
    return x[None], y[:, None]


def _cells(x: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, of n x n that the square is divided into, of every pixel."""
    column, row = (np.clip(np.floor((a + 0.5) * n), 0, n - 1).astype(int) for a in (x, y))
    return np.broadcast_arrays(row, column)[0], np.broadcast_arrays(row, column)[1]
