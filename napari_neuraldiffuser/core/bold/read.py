"""Reading the volumes of a run at the voxels of a mask."""

from collections.abc import Iterator

import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.bold.design import RunDesign
from napari_neuraldiffuser.core.bold.runs import BoldError, open_run
from napari_neuraldiffuser.core.nsd.reading.sessions import iterate_nifti
from napari_neuraldiffuser.core.nsd.reading.volumes import values_of
from napari_neuraldiffuser.core.params import BoldParams

SMOOTHED_AT_ONCE = 32
"""Volumes in memory while they are smoothed."""


def read_run(design: RunDesign, voxels: np.ndarray, params: BoldParams, progress: Progress) -> np.ndarray:
    """Fitted volumes of a run, (n_fitted, n_voxels) float32 as stored; NaN and infinite values stay.

    Where a voxel is not finite in some volumes only, smoothing would change its neighbours from volume to volume: all
    that it reaches is NaN. One that never is finite lies outside what was measured, and counts as 0 for the others.

    Raises
    ------
    NSDError
        If the file is truncated.
    """
    image = open_run(design.run)
    rows = np.cumsum(design.keep) - 1
    data = np.empty((int(design.keep.sum()), len(voxels)), dtype=np.float32)
    lost = np.zeros(image.shape[:3], dtype=np.int32)
    for block, values in _blocks(image, voxels, params.smoothing_fwhm, f"BOLD of {design.run.name}", design.keep, lost):
        kept = design.keep[block]
        data[rows[block][kept]] = values[kept]
        progress(block.stop, len(rows), f"volumes of {design.run.name} read")
    if lost.any():
        spoilt = _reached((lost > 0) & (lost < len(data)), image.affine, params.smoothing_fwhm) | (lost > 0)
        data[:, spoilt[tuple(voxels.T)]] = np.nan
    return data


def _blocks(
    image: nib.spatialimages.SpatialImage,
    voxels: np.ndarray,
    fwhm: float,
    name: str,
    keep: np.ndarray,
    lost: np.ndarray,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Volumes (n, n_voxels) one block after another; `lost` counts kept volumes without a value where smoothed."""
    if not fwhm:
        yield from iterate_nifti(image, voxels, name=name)
        return
    from nilearn.image import smooth_img

    x, y, z = voxels.T
    for start in range(0, image.shape[3], SMOOTHED_AT_ONCE):
        block = slice(start, min(start + SMOOTHED_AT_ONCE, image.shape[3]))
        values = values_of(image, str(image.get_filename()), name, np.s_[..., block])
        lost += (~np.isfinite(values))[..., keep[block]].sum(axis=3, dtype=np.int32)
        part = nib.Nifti1Image(values.astype(np.float32), image.affine)
        yield block, smooth_img(part, fwhm).get_fdata(dtype=np.float32)[x, y, z].T


def _reached(inside: np.ndarray, affine: np.ndarray, fwhm: float) -> np.ndarray:
    """Voxels (X, Y, Z) that a Gaussian of `fwhm` mm spreads those of `inside` to: SciPy's ends at four sigma."""
    from scipy.ndimage import maximum_filter

    sigma = fwhm / np.sqrt(8 * np.log(2)) / np.linalg.norm(affine[:3, :3], axis=0)
    return maximum_filter(inside, size=tuple(2 * (4 * sigma + 0.5).astype(int) + 1), mode="constant")


def usable_voxels(data: np.ndarray, design: RunDesign, params: BoldParams) -> np.ndarray:
    """Voxels with a signal, (n_voxels,) bool: finite, not constant and, for percent signal change, of positive mean.

    The others are set to 0 in `data`.
    """
    mean, spread = (np.empty(data.shape[1]) for _ in range(2))
    for part, values in by_chunk(data, params):
        mean[part], spread[part] = values.mean(axis=0), np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), 0)
    varies = np.isfinite(mean) & (spread > 0)
    usable = varies & (mean > 0) if params.scale == "percent" else varies
    # without its mean a signal is around 0, and half of the voxels are above it by chance
    low_mean = int((mean[varies] <= spread[varies]).sum())
    if params.scale == "percent" and low_mean > varies.sum() / 2:
        raise BoldError(
            f"BOLD of {design.run.name} must have its mean for percent signal change, got one below the spread in "
            f"{low_mean} of {int(varies.sum())} voxels of {design.run.bold}. Take data that were not standardised, or "
            "choose --scale none."
        )
    if not usable.any():
        raise BoldError(f"BOLD of {design.run.name} must vary inside the mask, got none in {design.run.bold}.")
    data[:, ~usable] = 0
    return usable


def temporal_snr(data: np.ndarray, design: RunDesign, params: BoldParams) -> np.ndarray:
    """(n_voxels,) float32 mean over standard deviation of what drift and confounds leave."""
    basis, ratio = design.basis, np.zeros(data.shape[1], dtype=np.float32)
    for part, values in by_chunk(data, params):
        mean = values.mean(axis=0)
        values -= mean
        left = (values**2).sum(axis=0) - ((basis.T @ values) ** 2).sum(axis=0)
        spread = np.sqrt(np.maximum(left, 0) / max(1, len(data) - basis.shape[1]))
        ratio[part] = np.where(spread > 0, mean / np.where(spread > 0, spread, 1), 0)
    return ratio


def by_chunk(data: np.ndarray, params: BoldParams) -> Iterator[tuple[slice, np.ndarray]]:
    """Some voxels at a time: their slice, and a float64 copy of their columns."""
    for start in range(0, data.shape[1], params.chunk_voxels):
        part = slice(start, min(start + params.chunk_voxels, data.shape[1]))
        yield part, data[:, part].astype(np.float64)
