"""Masked voxels of one session file, read along the file's own layout and never as a whole volume series.

NSD writes HDF5 betas from MATLAB as (X, Y, Z, 750), so that h5py shows (750, Z, Y, X), usually chunked (750, 1, 1, 1):
one voxel's whole session is one chunk.  There, reading voxel by voxel touches the mask only, while a single trial
`ds[0]` touches the whole file.  Contiguous files and NIfTI series are the other way round.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from napari_neuraldiffuser.core.base.hdf5 import dataset_of, reading_hdf5
from napari_neuraldiffuser.core.nsd.reading.images import DAMAGED
from napari_neuraldiffuser.core.nsd.reading.volumes import (
    Grid,
    NSDError,
    check_grid,
    open_volume,
    unreadable,
    values_of,
)

SESSION = "session betas"
INT16_SCALE = 300.0
"""NSD stores int16(percent signal change x 300); float files are not scaled."""

BLOCK_BYTES = 64 * 2**20


def read_session(path: Path, voxels: np.ndarray, n_trials: int, grid: Grid) -> np.ndarray:
    """Betas of one session at some voxels.

    Parameters
    ----------
    path : Path
        betas_sessionNN.hdf5, .nii or .nii.gz.
    voxels : (n_voxels, 3) int
        (x, y, z) indices in NIfTI order.
    n_trials : int
        Trials the session must have.
    grid : (shape, affine)
        Grid of the mask that the voxels come from; the file must have the same.

    Returns
    -------
    (n_trials, n_voxels) float32
        Percent signal change.

    Raises
    ------
    NSDError
        If the file is truncated, has another shape or affine, or another number of trials.
    """
    read = _read_hdf5 if path.suffix == ".hdf5" else _read_nifti
    return read(path, voxels, n_trials, grid)


def session_grid(path: Path) -> Grid:
    """Grid of a session file."""
    if path.suffix != ".hdf5":
        image = open_volume(path, SESSION, 4)
        return image.shape[:3], image.affine
    with reading_hdf5(path, SESSION, NSDError) as file:
        return _dataset(file).shape[:0:-1], None


def _read_hdf5(path: Path, voxels: np.ndarray, n_trials: int, grid: Grid) -> np.ndarray:
    with reading_hdf5(path, SESSION, NSDError) as file:
        dataset = _dataset(file)
        check_grid(str(path), (dataset.shape[:0:-1], None), grid)
        _check_trials(path, dataset.shape[0], n_trials)
        unfiltered = dataset.id.get_create_plist().get_nfilters() == 0
        if dataset.chunks == (n_trials, 1, 1, 1) and unfiltered:
            data = _direct_chunks(dataset, voxels)
        else:
            data = blocks_of(dataset, voxels)
        return _to_percent(data, dataset.dtype)


def _dataset(file: h5py.File) -> h5py.Dataset:
    return dataset_of(file, "betas", ("trial", "z", "y", "x"), SESSION, NSDError)


def _direct_chunks(dataset: h5py.Dataset, voxels: np.ndarray) -> np.ndarray:
    """Read one raw chunk per voxel, past h5py's selection machinery; a chunk never written is the fill value."""
    series = np.full((len(voxels), dataset.shape[0]), dataset.fillvalue, dtype=dataset.dtype)
    written = _written(dataset)
    for row, (x, y, z) in enumerate(voxels.tolist()):
        if written is None or (z, y, x) in written:
            _, raw = dataset.id.read_direct_chunk((0, z, y, x))
            series[row] = np.frombuffer(raw, dtype=dataset.dtype)
    return series.T


def _written(dataset: h5py.Dataset) -> set[tuple[int, int, int]] | None:
    """Offsets of the chunks on disk; None when all are (NSD's own files) and none needs looking up."""
    if dataset.id.get_num_chunks() == math.prod(dataset.shape[1:]):
        return None
    offsets: set[tuple[int, int, int]] = set()
    dataset.id.chunk_iter(lambda chunk: offsets.add(chunk.chunk_offset[1:]))
    return offsets


def blocks_of(dataset: h5py.Dataset, voxels: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Read any other layout (trial, z, y, x) block by block: a compressed chunk is unpacked once, a contiguous file in
    slabs.  Values (trials, n_voxels) of trials `start` ... `stop`, as stored."""
    stop = dataset.shape[0] if stop is None else stop
    data = np.empty((stop - start, len(voxels)), dtype=dataset.dtype)
    size = np.array(dataset.chunks or (_slab(dataset.shape[1:], dataset.dtype), *dataset.shape[1:]))
    corners, which = np.unique(voxels[:, ::-1] // size[1:], axis=0, return_inverse=True)
    for number, corner in enumerate(corners):
        rows = np.flatnonzero(which.ravel() == number)
        place = corner * size[1:]
        z, y, x = (voxels[rows, ::-1] - place).T
        space = tuple(slice(a, a + n) for a, n in zip(place, size[1:], strict=True))
        for trials in _spans(stop, int(size[0]), start):
            values = dataset[(trials, *space)][:, z, y, x]
            data[trials.start - start : trials.stop - start, rows] = values
    return data


def _read_nifti(path: Path, voxels: np.ndarray, n_trials: int, grid: Grid) -> np.ndarray:
    # kept open: a gzip stream is then unpacked once, front to back, instead of once per block
    image = open_volume(path, SESSION, 4, keep_file_open=True)
    check_grid(str(path), (image.shape[:3], image.affine), grid, path)
    _check_trials(path, image.shape[3], n_trials)
    data = np.empty((n_trials, len(voxels)), dtype=np.float32)
    for trials, values in iterate_nifti(image, voxels):
        data[trials] = values
    return _to_percent(data, image.get_data_dtype())


def iterate_nifti(
    image: nib.spatialimages.SpatialImage,
    voxels: np.ndarray,
    start: int = 0,
    stop: int | None = None,
    name: str = "betas",
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield trials start ... stop of a 4-D image in blocks, in order: their slice and values (trials, n_voxels)."""
    path, data = str(image.get_filename()), image.dataobj
    x, y, z = voxels.T.astype(np.int64)
    flat = x + image.shape[0] * (y + image.shape[1] * z)
    # in the order of the file, so that its pages are met one after another
    order = np.argsort(flat, kind="stable")
    back, flat = np.argsort(order), flat[order]
    mapped = _is_mapped(data, path)
    each = np.dtype(getattr(data, "dtype", np.float64) if mapped else np.float64)
    for trials in _spans(image.shape[3] if stop is None else stop, _slab(image.shape[:3], each), start):
        if mapped:
            values = _mapped_rows(data, path, name, trials, flat)
        else:
            block = values_of(image, path, name, np.s_[..., trials])
            values = block.reshape((-1, block.shape[3]), order="F").T.take(flat, axis=1)
        yield trials, values.take(back, axis=1)


def _is_mapped(data: Any, path: str) -> bool:
    """Whether the values lie in an uncompressed file as they are, one volume after another."""
    plain = type(data) is nib.arrayproxy.ArrayProxy and data.order == "F" and data.dtype.kind in "biuf"
    return plain and path.lower().endswith((".nii", ".img"))


def _mapped_rows(data: Any, path: str, name: str, trials: slice, flat: np.ndarray) -> np.ndarray:
    """Voxels `flat` (n_voxels,) of some volumes, after the header's scaling, without reading the others.

    The block is unmapped in the end: pages that were read would otherwise count as memory of this process.
    """
    size = math.prod(data.shape[:3])
    offset = data.offset + trials.start * size * data.dtype.itemsize
    try:
        block = np.memmap(path, data.dtype, "r", offset, (trials.stop - trials.start, size))
        return apply_read_scaling(block.take(flat, axis=1), data.slope, data.inter)
    except DAMAGED as error:
        raise unreadable(path, name, error) from error


def _slab(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return max(1, BLOCK_BYTES // (math.prod(shape) * dtype.itemsize))


def _spans(stop: int, step: int, start: int = 0) -> Iterator[slice]:
    return (slice(a, min(a + step, stop)) for a in range(start, stop, step))


def _check_trials(path: Path, got: int, wanted: int) -> None:
    if got != wanted:
        raise NSDError(
            f"{path} must hold {wanted} trials, got {got}. "
            "The file is incomplete or not a single session; download or write it again."
        )


def _to_percent(data: np.ndarray, stored: np.dtype) -> np.ndarray:
    """float32 copy in trial-major order (method.md eq. 1); the division comes after the cast, integers would round."""
    values = np.ascontiguousarray(data, dtype=np.float32)
    if np.issubdtype(stored, np.integer):
        values /= INT16_SCALE
    return values
