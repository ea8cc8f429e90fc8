"""Where the voxels of some betas lie, whether other betas are of the same voxels, and whether betas are betas."""

from dataclasses import dataclass
from typing import Self

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.decoding.decoder import DecodingError
from napari_neuraldiffuser.core.decoding.store import REMEDY as REFIT
from napari_neuraldiffuser.core.decoding.store import read_array

AFFINE_TOLERANCE_MM = 1e-3
FEW = "Read more sessions, or check which stimuli are marked as shared."
REMEDY = "Read these betas with the mask, subject and space that the decoder was trained on."


@dataclass(frozen=True)
class Geometry:
    """Voxel grid of betas: `voxels` (p, 3) indices, `affine` (4, 4) to mm, `shape` (X, Y, Z), `space`.

    On a surface voxels are (hemisphere, vertex), shape is (2, vertices) and affine None.  All three are None for betas
    without geometry (MindEye2's files); then only the number of voxels can be compared.
    """

    n_voxels: int
    space: str
    voxels: np.ndarray | None = None
    affine: np.ndarray | None = None
    shape: tuple[int, ...] | None = None

    @classmethod
    def of(cls, betas: Responses) -> Self:
        """Geometry of a Betas object."""
        n_voxels, space = betas.data.shape[1], str(betas.space)
        if betas.voxels is None or betas.shape is None:
            return cls(n_voxels, space)
        affine = None if betas.affine is None else np.array(betas.affine, dtype=np.float64)
        return cls(n_voxels, space, np.array(betas.voxels), affine, tuple(int(size) for size in betas.shape))

    @classmethod
    def read(cls, group: h5py.Group, n_voxels: int) -> Self:
        """Geometry of a decoder file of betas of `n_voxels`, whose fields it has by name."""
        told, space = int(read_array(group, "n_voxels")), group["space"].asstr()[()]
        if told != n_voxels or not isinstance(space, str):
            raise DecodingError(
                f"{group.file.filename} must be of its betas' {n_voxels} voxels in a space, got {told} in {space}. "
                f"{REFIT}"
            )
        if "voxels" not in group:
            return cls(n_voxels, space)
        affine = read_array(group, "affine", 4, 4) if "affine" in group else None
        shape = tuple(int(size) for size in read_array(group, "shape", 2 if affine is None else 3))
        return cls(n_voxels, space, read_array(group, "voxels", n_voxels, len(shape)), affine, shape)

    def check(self, betas: Responses) -> None:
        """Raise DecodingError unless `betas` are of the same voxels in the same order, space and grid."""
        n_voxels = np.shape(betas.data)[-1]
        if n_voxels != self.n_voxels:
            raise DecodingError(f"betas must have the decoder's {self.n_voxels} voxels, got {n_voxels}. {REMEDY}")
        if (betas.voxels is None) != (self.voxels is None):
            have, want = ("without" if voxels is None else "with" for voxels in (betas.voxels, self.voxels))
            raise DecodingError(f"betas must be {want} voxel positions as in training, got betas {have}. {REMEDY}")
        if betas.voxels is not None and self.voxels is not None:
            self._check_voxels(np.asarray(betas.voxels), self.voxels)
            self._check_grid(betas)

    def _check_voxels(self, voxels: np.ndarray, own: np.ndarray) -> None:
        if voxels.shape != own.shape:
            on = ["a surface" if one.shape[1] == 2 else "a volume" for one in (own, voxels)]
            raise DecodingError(f"betas must be of {on[0]} as the decoder's, got those of {on[1]}. {REMEDY}")
        differ = np.flatnonzero((voxels != own).any(1))
        if differ.size:
            got, wanted = (tuple(int(i) for i in v[differ[0]]) for v in (voxels, own))
            raise DecodingError(
                f"betas must have the decoder's voxels, got voxel {got} where it has {wanted} "
                f"({differ.size} of {self.n_voxels} differ). {REMEDY}"
            )

    def _check_grid(self, betas: Responses) -> None:
        same = tuple(betas.shape or ()) == self.shape and str(betas.space) == self.space
        if not same or not self._same_affine(betas.affine):
            got = "another affine" if same else f"{betas.space} {betas.shape}"
            raise DecodingError(
                f"betas must be in the decoder's space {self.space} {self.shape} with its affine, got {got}. {REMEDY}"
            )

    def _same_affine(self, affine: np.ndarray | None) -> bool:
        if affine is None or self.affine is None:
            return affine is self.affine
        return np.allclose(np.array(affine, dtype=np.float64), self.affine, atol=AFFINE_TOLERANCE_MM)


def checked_data(betas: Responses) -> np.ndarray:
    """Betas (n, p) as float32 or float64.

    Raises
    ------
    DecodingError
        If there are no stimuli or no voxels, a value is NaN, infinite or no real number, or stimuli or voxel positions
        are not those of the rows and columns.
    """
    if not hasattr(betas, "data") or not hasattr(betas, "stimulus_ids"):
        raise DecodingError(f"betas must be a Betas object, got {type(betas).__name__}. Make one: nsd.Betas(...).")
    data = np.asarray(betas.data)
    if data.dtype.kind not in "fiub":
        raise DecodingError(f"betas must be real numbers, got {data.dtype}. Convert them to float32.")
    if data.ndim != 2 or 0 in data.shape:
        raise DecodingError(
            f"betas must have stimuli and voxels, got an array of shape {data.shape}. Check the mask and the split."
        )
    if data.dtype not in (np.float32, np.float64):
        data = data.astype(np.float32)
    _check_sides(betas, *data.shape)
    _check_finite(betas, data)
    return data


def checked_training(train: Responses, fewest: int, remedy: str = FEW) -> np.ndarray:
    """`checked_data` of betas to be fitted to.

    Raises
    ------
    DecodingError
        If there are fewer than `fewest` different stimuli, or no voxel varies between rows.
    """
    data = checked_data(train)
    n = len(np.unique(train.stimulus_ids))
    if n < fewest:
        raise DecodingError(f"betas must have at least {fewest} different training stimuli, got {n}. {remedy}")
    # exact equality: rounding of the mean would leave a spread of constant values
    if all((column == column[0]).all() for column in data.T):
        raise DecodingError("betas must vary between stimuli, got constant betas. Check the beta files and the mask.")
    return data


def _check_sides(betas: Responses, n: int, p: int) -> None:
    """Raise DecodingError unless there is a whole number as stimulus of every row, and a position of every column."""
    ids = np.asarray(betas.stimulus_ids)
    if ids.shape != (n,):
        raise DecodingError(
            f"betas must have a stimulus for each of their {n} rows, got stimulus_ids of shape {ids.shape}."
        )
    whole = ids.dtype.kind in "iu" or (ids.dtype.kind == "f" and bool((ids == np.rint(ids)).all()))
    if not whole:
        wrong = ids[0] if ids.dtype.kind != "f" else ids[~(ids == np.rint(ids))][0]
        raise DecodingError(
            f"stimulus_ids must be whole numbers, got {wrong}. Number the stimuli: a label's place in a list will do."
        )
    axes = 3 if betas.shape is None else len(betas.shape)
    if betas.voxels is not None and np.shape(betas.voxels) != (p, axes):
        position = "(hemisphere, vertex)" if axes == 2 else "(x, y, z)"
        raise DecodingError(
            f"betas must have a position {position} for each of their {p} voxels, got voxels of shape "
            f"{np.shape(betas.voxels)}. Give one each."
        )


def _check_finite(betas: Responses, data: np.ndarray) -> None:
    """Raise DecodingError that names the rows, else the columns, with values that are no numbers."""
    # a sum is not finite where an addend is not, and takes no memory
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(data.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(data)
    alive = ~bad.all(0)
    rows = np.flatnonzero(bad[:, alive].mean(1) > 0.5) if alive.any() else np.arange(0)
    if rows.size and not np.delete(bad, rows, 0).any():
        raise DecodingError(
            f"betas must be finite, got NaN or infinity in most voxels of {rows.size} of {len(data)} rows: "
            f"{', '.join(_row(betas, row) for row in rows[:5])}{' ...' if rows.size > 5 else ''}. Leave these rows out "
            "(betas.subset), or estimate their betas again."
        )
    columns = np.flatnonzero(bad.any(0))
    if columns.size:
        row = int(np.argmax(bad[:, columns[0]]))
        raise DecodingError(
            f"betas must be finite, got NaN or infinity in {columns.size} of {data.shape[1]} voxels, first in column "
            f"{columns[0]} of {_row(betas, row)}. Drop these voxels or check the session's z-scoring."
        )


def _row(betas: Responses, row: int) -> str:
    """A row by its stimulus, as the user calls it."""
    labels = getattr(betas, "labels", [])
    return f"row {row} (stimulus {labels[row] if labels else betas.stimulus_ids[row]})"
