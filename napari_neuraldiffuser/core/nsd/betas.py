"""The Betas object: masked responses with the images that evoked them and where their voxels lie."""

from dataclasses import dataclass, field, replace

import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.base.contracts import StimulusIds
from napari_neuraldiffuser.core.base.registry import SPACES
from napari_neuraldiffuser.core.nsd.errors import NSDError


@dataclass
class Betas:
    """Responses of one subject, one row per image (or per trial where repeats are kept apart).

    Attributes
    ----------
    data : (n, n_voxels) float32
        Betas; z-scored within session unless that was turned off, else percent signal change.
    stimulus_ids : (n,) int
        0-based 73k id of each row (own scans: index into `stimulus_names`).
    shared : (n,) bool
        True for test images.
    repeats : (n,) int
        How many trials were averaged into the row.
    voxels : (n_voxels, 3) int or None
        (x, y, z) indices in the NIfTI volume; None where the source has no geometry (MindEye2's files).
    affine : (4, 4) float or None
        Voxel to millimetres.
    shape : tuple of 3 int or None
        Volume shape (X, Y, Z).
    space : str
        Name of the volume space.
    notes : list of str
        What the reader skipped or found odd.
    dropped : dict of str to int
        Voxels dropped, by reason.
    stimulus_names : list of str or None
        Labels of own scans' stimuli.
    """

    data: np.ndarray
    stimulus_ids: np.ndarray
    shared: np.ndarray
    repeats: np.ndarray
    voxels: np.ndarray | None = None
    affine: np.ndarray | None = None
    shape: tuple[int, int, int] | None = None
    space: str = SPACES[0]
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    stimulus_names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def n_voxels(self) -> int:
        return self.data.shape[1]

    def split(self) -> tuple["Betas", "Betas"]:
        """Training rows and test rows (the shared images).

        Raises
        ------
        NSDError
            If there are no test rows, or nothing but test rows.
        """
        if not self.shared.any():
            raise NSDError(
                "betas must hold test stimuli (shared images), got none. Add sessions in which shared images "
                "were shown or, for own scans, a column 'test' (0/1) in the trials table."
            )
        if self.shared.all():
            raise NSDError("betas must hold training stimuli, got test stimuli (shared images) only.")
        return self._rows(~self.shared), self._rows(self.shared)

    def subset(self, stimulus_ids: StimulusIds) -> "Betas":
        """The rows of some images, in the order asked for; an unknown image is an NSDError."""
        wanted = np.atleast_1d(np.asarray(stimulus_ids, dtype=np.int64))
        rows = [np.flatnonzero(self.stimulus_ids == one) for one in wanted]
        absent = [int(one) for one, where in zip(wanted, rows, strict=True) if not len(where)]
        if absent:
            raise NSDError(f"stimulus_ids must be among the {len(self)} rows of these betas, got {absent[:10]}.")
        return self._rows(np.concatenate(rows) if rows else np.empty(0, dtype=np.int64))

    def _rows(self, rows: np.ndarray) -> "Betas":
        return replace(
            self,
            data=self.data[rows],
            stimulus_ids=self.stimulus_ids[rows],
            shared=self.shared[rows],
            repeats=self.repeats[rows],
            notes=list(self.notes),
            dropped=dict(self.dropped),
        )

    def to_volume(self, values: np.ndarray, outside: float = 0.0) -> nib.Nifti1Image:
        """Values per voxel as a NIfTI image in the betas' space.

        Parameters
        ----------
        values : (n_voxels,) or (n, n_voxels)
            One value per voxel; several rows become a 4-D image.
        outside : float
            Value of voxels that have no betas.

        Returns
        -------
        nibabel.Nifti1Image
            float32, shape (X, Y, Z) or (X, Y, Z, n).
        """
        values = np.asarray(values, dtype=np.float32)
        if self.voxels is None or self.shape is None:
            raise NSDError("betas must have voxel positions to make a volume, got none (MindEye2 file).")
        if values.ndim not in (1, 2) or values.shape[-1] != len(self.voxels):
            raise NSDError(f"values must have {len(self.voxels)} entries on the last axis, got shape {values.shape}.")
        volume = np.full((*self.shape, *values.shape[:-1]), outside, dtype=np.float32)
        x, y, z = self.voxels.T
        volume[x, y, z] = values.T
        image = nib.Nifti1Image(volume, self.affine)
        image.header.set_xyzt_units("mm")
        return image


def mask_voxels(mask: np.ndarray, name: str = "mask") -> np.ndarray:
    """Indices (n_voxels, 3) of the voxels where a volume is above 0; ROI files have -1 in other cortex.

    Raises
    ------
    NSDError
        If there is none.
    """
    voxels = np.argwhere(np.nan_to_num(mask) > 0)
    if not len(voxels):
        raise NSDError(f"{name} must have voxels above 0, got none (empty mask). Choose another ROI or mask.")
    return voxels
