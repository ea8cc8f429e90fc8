"""Stimulus images and their captions, opened when first used."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import h5py
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.base.tables import read_table, whole_column
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.captions import read_coco_captions
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError


class Stimuli(SeenImages):
    """NSD's 73,000 images: `stimuli[ids]` is uint8 (n, H, W, 3), `stimuli[id]` is (H, W, 3).

    Parameters
    ----------
    layout : Layout
        Where the files are; nothing is opened here.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @cached_property
    def _shape(self) -> tuple[int, int, int, int]:
        with self._opened() as bricks:
            return bricks.shape

    @contextmanager
    def _opened(self) -> Iterator[h5py.Dataset]:
        with reading_hdf5(self._layout.stimuli, "NSD's stimulus file", NSDError) as file:
            yield dataset_of(file, "imgBrick", ("image", "row", "column", "colour"), "the images", NSDError)

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def side(self) -> int:
        """Side of an image, px."""
        return min(self._shape[1:3])

    def check(self, ids: StimulusIds) -> None:
        """Raise an NSDError unless the file of images can be opened and every id has captions."""
        self._check_ids(np.asarray(ids))
        super().check(ids)

    def __getitem__(self, ids: int | StimulusIds) -> np.ndarray:
        wanted = np.asarray(ids)
        flat = self._check_ids(wanted)
        images = np.empty((len(flat), *self._shape[1:]), dtype=np.uint8)
        with self._opened() as bricks:
            for k, stimulus_id in enumerate(flat.tolist()):
                images[k] = bricks[stimulus_id]
        return images if wanted.ndim else images[0]

    def _check_ids(self, wanted: np.ndarray) -> np.ndarray:
        """The ids as (n,) int64; an NSDError for others than there are."""
        if wanted.size and not np.issubdtype(wanted.dtype, np.integer):
            raise NSDError(f"stimulus ids must be whole numbers, got {wanted.dtype}.")
        flat = np.atleast_1d(wanted).astype(np.int64)
        outside = flat[(flat < 0) | (flat >= len(self))]
        if len(outside):
            raise NSDError(f"stimulus ids must be 0 ... {len(self) - 1} (0-based 73k ids), got {outside[:5].tolist()}.")
        return flat

    @cached_property
    def _coco_ids(self) -> pd.Series:
        path, columns = self._layout.stim_info, ("nsdId", "cocoId")
        table = read_table(path, columns, error=NSDError, wide=True)
        nsd, coco = (whole_column(table, name, path, NSDError) for name in columns)
        return pd.Series(coco, index=nsd)

    @cached_property
    def _captions(self) -> dict[int, list[str]]:
        path = self._layout.captions
        if not path.is_file():
            raise NSDError(
                f"{path} must hold the captions, got none. Write a JSON of COCO id to list of captions there "
                "(or COCO's captions_*.json merged into one)."
            )
        return read_coco_captions(path)

    def captions(self, stimulus_id: int) -> list[str]:
        """The captions of one image.

        Parameters
        ----------
        stimulus_id : int
            0-based 73k id.

        Raises
        ------
        NSDError
            If the caption file, the id or its captions are missing.
        """
        if stimulus_id not in self._coco_ids.index:
            raise NSDError(f"stimulus_id must be a 0-based id of {self._layout.stim_info.name}, got {stimulus_id}.")
        coco_id = int(self._coco_ids.loc[stimulus_id])
        if not self._captions.get(coco_id):
            raise NSDError(f"{self._layout.captions} must have captions of COCO image {coco_id}, got none.")
        return list(self._captions[coco_id])
