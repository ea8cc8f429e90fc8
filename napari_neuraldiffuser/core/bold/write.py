"""The files of single-trial betas: a NIfTI written volume by volume, the mask, and tables."""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import Place, atomic_path

QUICK = 1
"""zlib level: noise hardly packs better with a higher one."""


@dataclass(frozen=True)
class BetaFiles:
    """Where the betas of one subject lie; `label` is sub-01, `estimator` lss ..."""

    folder: Path
    label: str
    estimator: str

    betas = Place("{stem}_betas.nii.gz")
    about = Place("{stem}_betas.json")
    mask = Place("{stem}_mask.nii.gz")
    trials = Place("{stem}_trials.tsv")
    dropped = Place("{stem}_dropped.tsv")
    """Only where trials have no betas."""
    page = Place("{stem}_design.html")
    design = Place("{stem}_design.json")

    def place(self, pattern: str) -> Path:
        """Path of one of the files."""
        stem = f"{self.label}_desc-{self.estimator}"
        return Path(self.folder) / self.label / pattern.format(stem=stem, label=self.label)


def write_betas(path: Path, volumes: Iterable[np.ndarray], n: int, mask: np.ndarray, affine: np.ndarray) -> None:
    """A 4-D float32 NIfTI (x, y, z, trial), compressed as it comes: one volume is in memory.

    Parameters
    ----------
    path : Path
        .nii.gz.
    volumes : iterable of (n_voxels,) float32
        Betas of each trial at the voxels of the mask.
    n : int
        How many there are.
    mask : (X, Y, Z) bool
    affine : (4, 4) float
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((*mask.shape, n))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header["magic"], header["vox_offset"] = b"n+1", 352
    # float32 sums of the slope would be applied to: none
    header.set_slope_inter(1, 0)
    inside = mask.ravel(order="F")
    # voxels come in C order of the mask; the file is in Fortran order
    order = np.argsort(np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F"))
    volume = np.zeros(mask.size, dtype="<f4")
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        # no name and no time: the same betas are the same bytes
        with gzip.GzipFile("", "wb", QUICK, raw, mtime=0) as stream:
            stream.write(header.binaryblock + b"\0" * 4)
            for values in volumes:
                volume[inside] = values[order]
                stream.write(volume.tobytes())


def write_mask(path: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """A uint8 NIfTI of 0 and 1."""
    image = nib.Nifti1Image(mask.astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        with gzip.GzipFile("", "wb", QUICK, raw, mtime=0) as stream:
            stream.write(image.to_bytes())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A BIDS table: tab-separated, n/a for what is missing."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
