"""Pictures that are scored, one stimulus in memory at a time, each checked when it is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.evaluation.metrics import MetricError


@dataclass(frozen=True)
class Stack:
    """Pictures of one size, several of each stimulus.

    Attributes
    ----------
    name : str
        For complaints.
    pictures : Pictures
        Its items are (repeats, H, W, 3) uint8, or (H, W, 3) where `single`.
    single : bool
        Whether an item is one picture, which then counts as one repeat.
    item : tuple of int
        Shape that every item must have.
    """

    name: str
    pictures: Pictures
    single: bool
    item: tuple[int, ...]

    @classmethod
    def of(cls, name: str, pictures: Pictures, ndim: int) -> "Stack":
        """Look at the first item; `ndim` axes, that of stimuli included, are expected.

        Raises
        ------
        MetricError
            If there are none, or it is no uint8 picture.
        """
        first = np.asarray(pictures[0]) if len(pictures) else np.empty(0)
        single = first.ndim == 3
        shape = first.shape if single == (ndim == 4) else (1, *first.shape)
        if first.dtype != np.uint8 or len(shape) != ndim - 1 or shape[-1] != 3 or not first.size:
            raise MetricError(
                f"{name} must be a non-empty uint8 array with {ndim} axes ending in (H, W, 3), got "
                f"{first.dtype} {(len(pictures), *first.shape)}. Convert images to 8-bit RGB first."
            )
        return cls(name, pictures, single, first.shape)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def repeats(self) -> int:
        return 1 if self.single else self.item[0]

    @property
    def size(self) -> list[int]:
        """Height and width, px."""
        return list(self.item[-3:-1])

    def __getitem__(self, i: int) -> np.ndarray:
        """Pictures (repeats, H, W, 3) of stimulus i."""
        found = np.asarray(self.pictures[i])
        if found.shape != self.item or found.dtype != np.uint8:
            raise MetricError(
                f"{self.name} must have one shape for all stimuli, got {found.dtype} {found.shape} after {self.item}. "
                "Make them anew with the same parameters."
            )
        return found[None] if self.single else found

    def one(self, i: int, k: int) -> np.ndarray:
        """Picture (H, W, 3) of repeat k of stimulus i."""
        return self[i][k] if self.single else np.asarray(self.pictures[i, k])

    def flat(self) -> Iterator[np.ndarray]:
        """All pictures (H, W, 3), stimulus by stimulus."""
        for i in range(len(self)):
            yield from self[i]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """The same, up to `size` (m, H, W, 3) at once."""
        pictures = self.flat()
        while batch := list(islice(pictures, size)):
            yield np.stack(batch)
