"""Where the voxels of some betas lie, and whether other betas are of the same voxels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import DecodingError

AFFINE_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class Geometry:
    """Voxel grid of betas: `voxels` (p, 3) indices, `affine` (4, 4) to mm, `shape` (X, Y, Z), name of the `space`."""

    voxels: np.ndarray
    affine: np.ndarray
    shape: tuple[int, int, int]
    space: str

    @classmethod
    def of(cls, betas: Any) -> "Geometry":
        """Geometry of a Betas object."""
        shape = tuple(int(size) for size in betas.shape)
        return cls(np.array(betas.voxels), np.array(betas.affine, dtype=np.float64), shape, str(betas.space))

    def check(self, betas: Any) -> None:
        """Raise DecodingError unless `betas` are of the same voxels in the same order, space and grid."""
        remedy = "Read these betas with the mask, subject and space that the decoder was trained on."
        if len(betas.voxels) != len(self.voxels):
            raise DecodingError(
                f"betas must have the decoder's {len(self.voxels)} voxels, got {len(betas.voxels)}. {remedy}"
            )
        differ = np.flatnonzero((np.asarray(betas.voxels) != self.voxels).any(1))
        if differ.size:
            got, wanted = (tuple(map(int, v[differ[0]])) for v in (betas.voxels, self.voxels))
            raise DecodingError(
                f"betas must have the decoder's voxels, got voxel {got} where it has {wanted} "
                f"({differ.size} of {len(self.voxels)} differ). {remedy}"
            )
        same = tuple(betas.shape) == self.shape and str(betas.space) == self.space
        if not same or not np.allclose(betas.affine, self.affine, atol=AFFINE_TOLERANCE_MM):
            raise DecodingError(
                f"betas must be in the decoder's space {self.space} {self.shape} with its affine, "
                f"got {betas.space} {tuple(betas.shape)}. {remedy}"
            )


def checked_data(betas: Any) -> np.ndarray:
    """Betas (n, p) as float32 or float64.

    Raises
    ------
    DecodingError
        If there are no stimuli or no voxels, or a value is NaN or infinite.
    """
    data = np.asarray(betas.data)
    if data.ndim != 2 or 0 in data.shape:
        raise DecodingError(
            f"betas must have stimuli and voxels, got an array of shape {data.shape}. Check the mask and the split."
        )
    if data.dtype not in (np.float32, np.float64):
        data = data.astype(np.float32)
    bad = ~np.isfinite(data).all(0)
    if bad.any():
        raise DecodingError(
            f"betas must be finite, got NaN or infinity in {int(bad.sum())} of {data.shape[1]} voxels, first in voxel "
            f"{tuple(map(int, betas.voxels[np.argmax(bad)]))}. Drop these voxels or check the session's z-scoring."
        )
    return data
