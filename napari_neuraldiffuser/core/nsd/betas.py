"""The Betas object: masked responses with the images that evoked them and where their voxels lie; and its HDF5 file.

The file keeps what was read and prepared, so that this is done once for all that needs it.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.base.contracts import StimulusIds
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5, open_hdf5
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SPACES
from napari_neuraldiffuser.core.nsd.reading.surfaces import gifti
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError

FORMAT = 1
ARRAYS = ("data", "stimulus_ids", "shared", "repeats")
GEOMETRY = ("voxels", "affine")
CROSSVAL = "neuraldiffuser crossval ... --folds 10"
"""The way that needs no test stimuli."""


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
    voxels : (n_voxels, 3) int, (n_voxels, 2) int or None
        (x, y, z) indices in the NIfTI volume, or (hemisphere, vertex) on a surface, where the hemisphere is the place
        in `HEMISPHERES`; None where the source has no geometry (MindEye2's files).
    affine : (4, 4) float or None
        Voxel to millimetres; None on a surface.
    shape : tuple of int or None
        Volume shape (X, Y, Z), or (2, vertices of a hemisphere).
    space : str
        Name of the space.
    notes : list of str
        What the reader skipped or found odd.
    dropped : dict of str to int
        Voxels dropped, by reason.
    stimulus_names : list of str or None
        Labels of own scans' stimuli.
    noise_ceiling : dict
        Of the test rows, see `ceiling.noise_ceiling`; empty where it was not computed.
    """

    data: np.ndarray
    stimulus_ids: np.ndarray
    shared: np.ndarray
    repeats: np.ndarray
    voxels: np.ndarray | None = None
    affine: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    space: str = SPACES[0]
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    stimulus_names: list[str] | None = None
    noise_ceiling: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def labels(self) -> list[str]:
        """Own scans' label of every row; none for NSD."""
        return [self.stimulus_names[k] for k in self.stimulus_ids] if self.stimulus_names else []

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
                "were shown or, for own scans, a column 'test' (0/1) in the trials table; or decode all stimuli by "
                f"cross-validation: {CROSSVAL}."
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
        if self.on_surface:
            raise NSDError("betas must be of a volume to make one, got those of a surface. Use to_surface.")
        image = nib.Nifti1Image(self._placed(values, outside), self.affine)
        image.header.set_xyzt_units("mm")
        return image

    def to_surface(self, values: np.ndarray, outside: float = 0.0) -> dict[str, nib.GiftiImage]:
        """Values per vertex as one GIfTI image for each hemisphere.

        Parameters
        ----------
        values : (n_voxels,) or (n, n_voxels)
            One value per vertex; several rows become several data arrays.
        outside : float
            Value of vertices that have no betas.

        Returns
        -------
        dict of str to nibabel.GiftiImage
            "L" and "R"; float32, every vertex of the hemisphere.
        """
        if not self.on_surface:
            raise NSDError("betas must be of a surface to make one, got those of a volume. Use to_volume.")
        placed = self._placed(np.atleast_2d(values), outside)
        return {
            hemi: gifti(placed[k].T, hemi, "NIFTI_INTENT_SHAPE", np.float32)
            for k, hemi in enumerate(HEMISPHERES.values())
        }

    @property
    def on_surface(self) -> bool:
        """Whether positions are (hemisphere, vertex)."""
        return self.shape is not None and len(self.shape) == 2

    def _placed(self, values: np.ndarray, outside: float) -> np.ndarray:
        """Values (n_voxels,) or (n, n_voxels) at their positions, (*shape,) or (*shape, n) float32."""
        values = np.asarray(values, dtype=np.float32)
        if self.voxels is None or self.shape is None:
            raise NSDError("betas must have voxel positions to make a volume, got none (MindEye2 file).")
        if values.ndim not in (1, 2) or values.shape[-1] != len(self.voxels):
            raise NSDError(f"values must have {len(self.voxels)} entries on the last axis, got shape {values.shape}.")
        placed = np.full((*self.shape, *values.shape[:-1]), outside, dtype=np.float32)
        placed[tuple(self.voxels.T)] = values.T
        return placed


def mask_voxels(mask: np.ndarray, name: str = "mask") -> np.ndarray:
    """Indices (n_voxels, 3) of the voxels inside a mask, (X, Y, Z) bool; on a surface (n, 2) of (2, vertices).

    Raises
    ------
    NSDError
        If there is none.
    """
    voxels = np.argwhere(mask)
    if not len(voxels):
        raise NSDError(f"{name} must have voxels above 0, got none (empty mask). Choose another ROI or mask.")
    return voxels


def save_betas(betas: Betas, path: str | Path) -> None:
    """Write everything of `betas` to `path`, atomically; `load_betas` gives the same bits back."""
    with creating_hdf5(path) as file:
        for name in (*ARRAYS, *GEOMETRY):
            if getattr(betas, name) is not None:
                file[name] = getattr(betas, name)
        about = {"space": betas.space, "shape": betas.shape, "notes": betas.notes, "dropped": betas.dropped}
        about["noise_ceiling"] = betas.noise_ceiling
        # a dataset, as an attribute holds at most 64 KB
        file["about"] = json.dumps({**about, "stimulus_names": betas.stimulus_names}, default=int)
        file.attrs["betas_format"] = FORMAT


def load_betas(path: str | Path) -> Betas:
    """Read a file of `save_betas`.

    Raises
    ------
    NSDError
        If it is missing, damaged, or no such file.
    """
    with open_hdf5(path, "a file of prepared betas", NSDError) as file:
        about = _about(file, path)
        arrays = {name: file[name][...] for name in (*ARRAYS, *GEOMETRY) if name in file}
        shape = None if about["shape"] is None else tuple(about["shape"])
        return Betas(**arrays, **{**about, "shape": shape})


def betas_facts(path: str | Path, n_stimuli: int | None = None) -> dict[str, Any]:
    """Numbers of stimuli and voxels, trials per test stimulus (of the first `n_stimuli`), notes; no data are read."""
    with open_hdf5(path, "a file of prepared betas", NSDError) as file:
        about, shared = _about(file, path), file["shared"][...]
        repeats = file["repeats"][...][shared][:n_stimuli]
        return {
            "n_train": int(np.count_nonzero(~shared)),
            "n_test": len(repeats),
            "trials_per_test_image": float(np.mean(repeats)) if len(repeats) else 0.0,
            "n_voxels": int(file["data"].shape[1]),
            "noise_ceiling": about.get("noise_ceiling", {}),
            "notes": [*about["notes"], *dropped_notes(about["dropped"])],
        }


def dropped_notes(dropped: dict[str, int]) -> list[str]:
    """A sentence for every reason for which voxels were dropped."""
    return [f"{n} voxels dropped: {why} in at least one session." for why, n in dropped.items() if n]


def _about(file: h5py.File, path: str | Path) -> dict[str, Any]:
    if file.attrs.get("betas_format") != FORMAT:
        raise NSDError(
            f"{path} must be prepared betas of format {FORMAT}, got {file.attrs.get('betas_format')}. "
            "Prepare them again with LoadNSDBetas or PrepareBetas."
        )
    return json.loads(file["about"].asstr()[()])
