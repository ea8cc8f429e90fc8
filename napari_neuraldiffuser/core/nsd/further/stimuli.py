"""Images of NSD and of a further session behind one another: the former's for training, the latter's for testing."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.files import file_digest, fingerprint
from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.base.pictures import centre_square, read_square
from napari_neuraldiffuser.core.nsd.further.files import (
    FIRST_ID,
    N_COLOUR_PICTURES,
    N_SHARED_PICTURES,
    N_SYNTHETIC,
    FurtherFiles,
)
from napari_neuraldiffuser.core.nsd.own_stimuli import OwnStimuli
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.nsd.stimuli import Stimuli

DISPLAYED = np.rint(255 * np.sqrt(np.arange(256) / 255)).astype(np.uint8)
"""Stored value of NSD-synthetic -> value that looks alike on the display of NSD's photographs: the stored ones are
linear in luminance, those of the photographs were shown squared.  Source: two public analyses of these files;
a third takes the values as they are."""


class Pictures(Protocol):
    """Pictures of a further session by number, 0-based."""

    files: list[Path]

    def __len__(self) -> int: ...

    def read(self, number: int, side: int) -> np.ndarray:
        """One picture as uint8 (side, side, 3)."""

    def captions(self, number: int) -> list[str]:
        """Its captions; none where there are none."""

    def check(self, numbers: Sequence[int]) -> None:
        """Raise an NSDError unless all can be opened."""

    def notes(self, side: int) -> list[str]:
        """What was done to them."""

    def digest(self) -> str:
        """Differs when pictures or captions do."""


class SyntheticPictures:
    """NSD-synthetic's 284 images: 220 of all subjects, then 64 whose colours are the subject's own.

    The centre square is what lay on the screen where NSD's photographs lie (714 of 714 x 1360 px, 8.4 degrees).
    """

    def __init__(self, files: FurtherFiles) -> None:
        self.files = [files.pictures, files.colour_pictures]

    def __len__(self) -> int:
        return N_SYNTHETIC

    def read(self, number: int, side: int) -> np.ndarray:
        """One picture as uint8 (side, side, 3)."""
        path, row, n = self._place(number)
        with reading_hdf5(path, "NSD-synthetic's images", NSDError) as file:
            return centre_square(DISPLAYED[_bricks(file, path, n)[row]], side)

    def _place(self, number: int) -> tuple[Path, int, int]:
        """File of a picture, its row in it, and the rows that it must have."""
        if number < N_SHARED_PICTURES:
            return self.files[0], number, N_SHARED_PICTURES
        return self.files[1], number - N_SHARED_PICTURES, N_COLOUR_PICTURES

    def captions(self, number: int) -> list[str]:
        """None: the experiment has none."""
        return []

    def check(self, numbers: Sequence[int]) -> None:
        """Raise an NSDError unless the files that are needed are there and have their images."""
        for path, n in {self._place(int(number))[::2] for number in numbers}:
            with reading_hdf5(path, "NSD-synthetic's images", NSDError) as file:
                _bricks(file, path, n)

    def notes(self, side: int) -> list[str]:
        """The crop, the display, and the images of which nothing lies inside it."""
        blank = self._blank
        told = [
            "NSD-synthetic's images: the centre square, where NSD's photographs lay on the screen, reduced to "
            f"{side} px; square root of the stored values, which are linear in luminance"
        ]
        if blank:
            numbers = ", ".join(str(one + 1) for one in blank)
            told.append(
                f"images of NSD-synthetic that are of one colour inside that square: {len(blank)} (numbers {numbers}); "
                "scores of them say nothing"
            )
        return told

    def digest(self) -> str:
        """Over the files' names, of which one has the subject's, and their sizes."""
        return fingerprint([[path.name, path.stat().st_size] for path in self.files if path.is_file()])

    @cached_property
    def _blank(self) -> list[int]:
        return [k for k in range(len(self)) if self._is_blank(k)]

    def _is_blank(self, number: int) -> bool:
        path, row, n = self._place(number)
        with reading_hdf5(path, "NSD-synthetic's images", NSDError) as file:
            bricks = _bricks(file, path, n)
            height, width = bricks.shape[1:3]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            inside = bricks[row, top : top + side, left : left + side]
            return bool((inside == inside[0, 0]).all())


def _bricks(file: h5py.File, path: Path, n: int) -> h5py.Dataset:
    """The images of a file, (n, H, W, 3) uint8."""
    bricks = dataset_of(file, "imgBrick", ("image", "row", "column", "colour"), "the images", NSDError)
    if bricks.shape[0] != n or bricks.shape[3] != 3 or bricks.dtype != np.uint8:
        raise NSDError(
            f"{path} must hold {n} RGB images of 8 bits, got shape {bricks.shape} of {bricks.dtype}. Download it again."
        )
    return bricks


class NamedPictures:
    """Picture files by their label, and captions where the user has some.

    Parameters
    ----------
    images, captions : str
        Folder and JSON, as of own scans; captions may be left out.
    names : list of str
        Label of every picture.
    """

    def __init__(self, images: str, captions: str, names: list[str]) -> None:
        self._own, self._captioned = OwnStimuli(images, captions, names), bool(captions)
        self.files = [*self._own.files(range(len(names))), *([Path(captions)] if captions else [])]

    def __len__(self) -> int:
        return len(self._own)

    def read(self, number: int, side: int) -> np.ndarray:
        """One picture as uint8 (side, side, 3)."""
        return read_square(self._own.files([number])[0], side)

    def captions(self, number: int) -> list[str]:
        """Those of the file; none where there is no file."""
        return self._own.captions(number) if self._captioned else []

    def check(self, numbers: Sequence[int]) -> None:
        """Raise an NSDError unless every picture has a file, and captions where there is a file of them."""
        self._own.files(numbers)
        for number in numbers:
            self.captions(number)

    def notes(self, side: int) -> list[str]:
        """Which picture is which, and the crop."""
        first = FIRST_ID["imagery"]
        which = ", ".join(f"{first + k} {name}" for k, name in enumerate(self._own.names))
        return [f"pictures of NSD-imagery: {which}; their centre squares at {side} px"]

    def digest(self) -> str:
        """Over names, pictures and captions."""
        paths = self._own.files(range(len(self)))
        about = zip(self._own.names, map(file_digest, paths), map(self.captions, range(len(self))), strict=True)
        return fingerprint([list(one) for one in about])


class FurtherStimuli(SeenImages):
    """NSD's images by 0-based 73k id, and a further session's behind them.

    Parameters
    ----------
    core : Stimuli
    pictures : Pictures
    files : FurtherFiles
    """

    def __init__(self, core: Stimuli, pictures: Pictures, files: FurtherFiles) -> None:
        self._core, self._pictures, self._about = core, pictures, files
        self._first = FIRST_ID[files.test_set]

    @property
    def test_set(self) -> str:
        """NSD-synthetic or NSD-imagery."""
        return self._about.title

    def __getitem__(self, ids: int | StimulusIds) -> np.ndarray:
        wanted = np.asarray(ids)
        if not wanted.ndim:
            return self._one(int(wanted))
        if not wanted.size or (wanted < self._first).all():
            return self._core[wanted]
        return np.stack([self._one(int(one)) for one in wanted])

    def _one(self, stimulus_id: int) -> np.ndarray:
        if self._number(stimulus_id) < 0:
            return self._core[stimulus_id]
        return self._pictures.read(self._number(stimulus_id), self._side)

    def _number(self, stimulus_id: int) -> int:
        """0-based number of a further session's image; below 0 for an id of NSD's own."""
        number = int(stimulus_id) - self._first
        if number >= len(self._pictures):
            raise NSDError(
                f"stimulus ids of {self.test_set} must be {self._first} ... {self._first + len(self._pictures) - 1}, "
                f"got {stimulus_id}."
            )
        return number

    @property
    def files(self) -> list[Path]:
        """Files of the further session's images."""
        return self._pictures.files

    @property
    def _side(self) -> int:
        """Side of NSD's images, px."""
        return self._core.side

    def captions(self, stimulus_id: int) -> list[str]:
        """Captions of NSD's images; of the further ones none, or those that the user gave."""
        number = self._number(stimulus_id)
        return self._core.captions(stimulus_id) if number < 0 else self._pictures.captions(number)

    def check(self, ids: StimulusIds) -> None:
        """Raise an NSDError unless files can be opened and NSD's images have captions; no image is read."""
        numbers = [self._number(int(one)) for one in ids]
        self._core.check([int(one) for one, number in zip(ids, numbers, strict=True) if number < 0])
        self._pictures.check([number for number in numbers if number >= 0])

    @property
    def notes(self) -> list[str]:
        """What was done to the further session's images."""
        return self._pictures.notes(self._side)

    def fingerprint(self, ids: StimulusIds) -> str:
        """Digest of the further session's pictures, if an id is of them: ids do not say whose colours they are, or
        which pictures the user named."""
        if all(self._number(int(one)) < 0 for one in ids):
            return ""
        return fingerprint([self.test_set, self._side, self._pictures.digest()])
