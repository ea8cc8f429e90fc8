"""Pictures of a subject that lie on disk, read one stimulus at a time: of a thousand stimuli they take gigabytes."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.pictures import read_picture


@dataclass(frozen=True)
class SeenPictures:
    """Seen images of some stimuli; an item is (H, W, 3) uint8."""

    stimuli: SeenImages
    stimulus_ids: StimulusIds

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.stimuli[int(self.stimulus_ids[i])]


@dataclass(frozen=True)
class ShownPictures:
    """Seen images (`seen`) or starting points (`start`) that a run wrote; an item is (H, W, 3) uint8."""

    places: Derivatives
    stimulus_ids: StimulusIds
    what: str

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def __getitem__(self, i: int) -> np.ndarray:
        return read_picture(self.places.shown(int(self.stimulus_ids[i]), self.what))


@dataclass(frozen=True)
class ArmPictures:
    """One arm's images that a run wrote; an item is (repeats, H, W, 3) uint8, and `[i, k]` repeat k from 0 of it."""

    places: Derivatives
    stimulus_ids: StimulusIds
    repeats: int
    arm: str

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> np.ndarray:
        if isinstance(key, tuple):
            return read_picture(self.places.image(int(self.stimulus_ids[key[0]]), key[1] + 1, self.arm))
        return np.stack([self[key, k] for k in range(self.repeats)])


@dataclass
class Spooled:
    """Pictures of one size in a temporary file; see `spooled`."""

    file: IO[bytes]
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, i: int) -> np.ndarray:
        shape = self.shapes[i]
        self.file.seek(i * int(np.prod(shape)))
        return np.frombuffer(self.file.read(int(np.prod(shape))), np.uint8).reshape(shape)


@contextmanager
def spooled(parts: Iterable[np.ndarray]) -> Iterator[Spooled]:
    """Keep parts (m, H, W, 3) uint8 of one size in a temporary file, which is gone in the end."""
    with tempfile.TemporaryFile() as file:
        kept = Spooled(file)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
            kept.shapes += [part.shape[1:]] * len(part)
        yield kept
