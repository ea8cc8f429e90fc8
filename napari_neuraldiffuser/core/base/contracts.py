"""What rooms that do not import each other hand over: seen images, responses and the regions they lie in."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

StimulusIds = Sequence[int] | np.ndarray


class SeenImages(Protocol):
    """The images that a person saw, by stimulus id, with their captions."""

    def __getitem__(self, ids: int | StimulusIds) -> np.ndarray:
        """Images (n, H, W, 3) uint8 of ids (n,); one image (H, W, 3) of one id."""

    def captions(self, stimulus_id: int) -> list[str]:
        """The captions of one image; none where the experiment has no captions of it."""

    def labels(self, ids: StimulusIds) -> list[str]:
        """The user's own names of stimuli, by which their files are called; none where ids are what all call them."""
        return []

    def check(self, ids: StimulusIds) -> None:
        """Raise what `[ids]` and `captions` would, as far as that is known without reading images."""
        for one in ids:
            self.captions(int(one))

    @property
    def notes(self) -> list[str]:
        """What was done to the images, for the page."""
        return []

    @property
    def test_set(self) -> str:
        """Name of the experiment that test images are of, where that is not the one of the training images."""
        return ""

    def fingerprint(self, ids: StimulusIds) -> str:
        """Digest of images and captions where the ids alone do not say what they are, else nothing."""
        return ""


class Pictures(Protocol):
    """Pictures of stimuli in some order, read when they are asked for: all of them may not fit in memory.

    An item is that of one stimulus, uint8: a picture (H, W, 3), or one per repeat (repeats, H, W, 3), of which `[i, k]`
    is one alone.  Arrays are such pictures, too.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> np.ndarray: ...


class Responses(Protocol):
    """Responses of one subject, one row per image; `nsd.Betas` has and explains these attributes."""

    data: np.ndarray
    stimulus_ids: np.ndarray
    voxels: np.ndarray | None
    affine: np.ndarray | None
    shape: tuple[int, ...] | None
    space: str

    @property
    def on_surface(self) -> bool:
        """Whether positions are (hemisphere, vertex), and not (x, y, z)."""

    def __len__(self) -> int: ...

    def to_volume(self, values: np.ndarray) -> Any:
        """Values (n_voxels,) as a NIfTI image in the betas' space."""

    def to_surface(self, values: np.ndarray) -> dict[str, Any]:
        """Values (n_voxels,) as a GIfTI image of each hemisphere, "L" and "R", where the betas are of a surface."""


class RegionFamily(Protocol):
    """Regions of one family, such as prf-visualrois; `nsd.Rois` is one."""

    name: str

    def of(self, betas: Responses) -> dict[str, np.ndarray]:
        """Region name to (n_voxels,) bool over the voxels of `betas`."""
