"""Single-trial betas of own scans in one file, whichever program wrote it: volumes, or GLMsingle's outputs."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.base.recipe import GLMSINGLE_SUFFIXES
from napari_neuraldiffuser.core.base.safe_npy import load_dict
from napari_neuraldiffuser.core.nsd.reading.images import place_note
from napari_neuraldiffuser.core.nsd.reading.sessions import BLOCK_BYTES, blocks_of, iterate_nifti
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, open_volume

GLMSINGLE = "betas of GLMsingle (TYPED_FITHRF_GLMDENOISE_RR or another single-trial type)"


class Series(ABC):
    """Betas (x, y, z, trial) of one file; making one reads no data.

    Attributes
    ----------
    path : Path
    shape : tuple of 4 int
    affine : (4, 4) float or None
        Voxel to mm; None where the file does not say, as GLMsingle's.
    """

    path: Path
    shape: tuple[int, int, int, int]
    affine: np.ndarray | None = None

    @abstractmethod
    def read(self, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """Values (n_trials, n_voxels) float32 as stored, of voxels (n_voxels, 3) and of rising trials (n_trials,)."""

    @property
    def note(self) -> str:
        """What is doubtful about where the voxels lie, or nothing."""
        return ""


class VolumeSeries(Series):
    """A 4-D NIfTI or MGH."""

    def __init__(self, path: str | Path) -> None:
        # kept open: a gzip stream is then unpacked once, front to back
        self._image = open_volume(path, "betas", 4, keep_file_open=True)
        x, y, z, n = (int(length) for length in self._image.shape)
        self.path, self.shape, self.affine = Path(path), (x, y, z, n), self._image.affine

    @property
    def note(self) -> str:
        """What is doubtful about where the voxels lie, or nothing."""
        doubt = place_note(self._image)
        return f"{self.path.name} has {doubt}" if doubt else ""

    def read(self, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """Read front to back, so that a .nii.gz is not unpacked per volume."""
        row_of = {int(trial): k for k, trial in enumerate(trials)}
        values = np.empty((len(trials), len(voxels)), dtype=np.float32)
        for block, volumes in iterate_nifti(self._image, voxels, int(trials.min()), int(trials.max()) + 1):
            for trial, volume in enumerate(volumes, block.start):
                if trial in row_of:
                    values[row_of[trial]] = volume
        return values


class ArraySeries(Series):
    """GLMsingle's `betasmd`, X x Y x Z x trials, in a pickled dictionary or in HDF5: a voxel's trials lie together."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() == ".npy":
            self.shape = _four(self._array.shape, path)
        else:
            with reading_hdf5(path, GLMSINGLE, NSDError) as file:
                _check_places(file, path)
                self.shape = _four(_betasmd(file).shape, path)

    @cached_property
    def _array(self) -> np.ndarray:
        found = load_dict(self.path, GLMSINGLE, NSDError).get("betasmd")
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "iuf":
            raise NSDError(f"{self.path} must be {GLMSINGLE}, got no numbers betasmd. Choose the file of type D.")
        return found

    def read(self, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """Only the chosen voxels' trials are read, wherever the file allows it."""
        if self.path.suffix.lower() == ".npy":
            return _rows_of(self._array, voxels, trials)
        with reading_hdf5(self.path, GLMSINGLE, NSDError) as file:
            data = _betasmd(file)
            if data.chunks is None and (offset := data.id.get_offset()) is not None:
                return _rows_of(np.memmap(self.path, data.dtype, "r", offset, data.shape), voxels, trials)
            return _in_slabs(data, voxels, trials)


class MatlabSeries(Series):
    """GLMsingle's `modelmd` of MATLAB 7.3, which h5py shows as (trial, z, y, x)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with reading_hdf5(path, GLMSINGLE, NSDError) as file:
            self.shape = _four(_modelmd(file).shape[::-1], path)

    def read(self, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """Block by block of the file, from the first of the trials to the last."""
        with reading_hdf5(self.path, GLMSINGLE, NSDError) as file:
            first = int(trials.min())
            values = blocks_of(_modelmd(file), voxels, first, int(trials.max()) + 1)
            return np.ascontiguousarray(values[trials - first], dtype=np.float32)


class ListedSeries(Series):
    """Betas of a list of voxels, (n, 1, 1, trial), put where the voxels of a mask lie.

    Parameters
    ----------
    listed : Series
    inside : (X, Y, Z) bool
        As many voxels as the list has, taken in NumPy's order (MATLAB's: in MATLAB's, x fastest).
    """

    def __init__(self, listed: Series, inside: np.ndarray) -> None:
        n, self._listed, self.path = listed.shape[0], listed, listed.path
        if inside.sum() != n:
            raise NSDError(
                f"mask must have as many voxels above 0 as {self.path.name} lists, {n}, got {int(inside.sum())}. "
                "Choose the mask that the data were cut by before GLMsingle."
            )
        x, y, z = inside.shape
        self.shape = (x, y, z, listed.shape[3])
        self._order: Literal["C", "F"] = "F" if isinstance(listed, MatlabSeries) else "C"
        self._row = np.full(inside.shape, -1, dtype=np.int64)
        rows = np.cumsum(inside.ravel(order=self._order)) - 1
        self._row[inside] = rows.reshape(inside.shape, order=self._order)[inside]

    @property
    def note(self) -> str:
        """In which order the voxels were taken: nothing in the file says it."""
        fastest = "x" if self._order == "F" else "z"
        return f"{self.path.name} lists voxels: they are taken in the mask's order with {fastest} fastest"

    def read(self, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """A voxel outside the mask has no betas: NaN."""
        row = self._row[tuple(voxels.T)]
        values = self._listed.read(np.stack([np.maximum(row, 0), 0 * row, 0 * row], axis=1), trials)
        values[:, row < 0] = np.nan
        return values


def open_series(path: str | Path) -> Series:
    """The betas of a file, by its ending; an NSDError for what holds none."""
    suffix = Path(path).suffix.lower()
    if suffix == ".mat":
        return MatlabSeries(path)
    return ArraySeries(path) if suffix in GLMSINGLE_SUFFIXES else VolumeSeries(path)


def _four(shape: tuple[int, ...], path: str | Path) -> tuple[int, int, int, int]:
    if len(shape) == 2:  # a list of voxels
        shape = (shape[0], 1, 1, shape[1])
    if len(shape) != 4 or 0 in shape:
        raise NSDError(
            f"{path} must be {GLMSINGLE}, of X x Y x Z x trials, got shape {tuple(shape)}. Type A has no single "
            "trials: choose type B, C or D."
        )
    x, y, z, n = (int(length) for length in shape)
    return x, y, z, n


def _check_places(file: h5py.File, path: str | Path) -> None:
    """Raise NSDError for MindEye2's matrix of trials and voxels, and for a session of NSD."""
    found = file.get("betas")
    if "betasmd" in file or not isinstance(found, h5py.Dataset):
        return
    if found.ndim == 2:
        raise NSDError(
            f"own scans must have voxel positions for maps, got a matrix of {found.shape[0]:,} trials and "
            f"{found.shape[1]:,} voxels in {path} (MindEye2's file). Read it in Python with nsd.mindeye_betas, or give "
            "NSD's own folder."
        )
    raise NSDError(f"own scans must be {GLMSINGLE}, got a session of NSD, {path}. Give the folder that holds nsddata.")


def _betasmd(file: h5py.File) -> h5py.Dataset:
    return dataset_of(file, "betasmd", ("x", "y", "z", "trial"), GLMSINGLE, NSDError)


def _modelmd(file: h5py.File) -> h5py.Dataset:
    return dataset_of(file, "modelmd", ("trial", "z", "y", "x"), GLMSINGLE, NSDError)


def _rows_of(array: np.ndarray, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Trials of voxels of an array (X, Y, Z, trial), a group of voxels at a time."""
    array = array.reshape(-1, 1, 1, array.shape[-1]) if array.ndim == 2 else array
    x, y, z = voxels.T
    values = np.empty((len(trials), len(voxels)), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (len(trials) * 8))
    for start in range(0, len(voxels), step):
        part = slice(start, start + step)
        values[:, part] = array[x[part, None], y[part, None], z[part, None], trials].T
    return values


def _in_slabs(data: h5py.Dataset, voxels: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """The same of a dataset in chunks, a slab of x at a time."""
    values = np.empty((len(trials), len(voxels)), dtype=np.float32)
    first, last = int(trials.min()), int(trials.max()) + 1
    for place in np.unique(voxels[:, 0]):
        here = np.flatnonzero(voxels[:, 0] == place)
        slab = data[int(place), :, :, first:last]
        values[:, here] = slab[voxels[here, 1], voxels[here, 2]][:, trials - first].T
    return values
