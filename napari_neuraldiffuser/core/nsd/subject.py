"""One NSD subject: where its betas, regions, stimuli and anatomy come from."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import SeenImages
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SURFACES
from napari_neuraldiffuser.core.nsd.assemble import Session, assemble
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.brain_source import BrainSource
from napari_neuraldiffuser.core.nsd.by_ceiling import CIRCULAR, check_ncsnr, chosen, ncsnr_ceiling, per_trial, resolved
from napari_neuraldiffuser.core.nsd.layout import Layout
from napari_neuraldiffuser.core.nsd.reading.design import TRIALS_PER_SESSION, read_trials
from napari_neuraldiffuser.core.nsd.reading.lifting import Lift, read_lift
from napari_neuraldiffuser.core.nsd.reading.sessions import read_session, session_grid
from napari_neuraldiffuser.core.nsd.reading.volumes import (
    Grid,
    NSDError,
    check_grid,
    open_volume,
    read_inside,
    read_volume,
)
from napari_neuraldiffuser.core.nsd.rois import Rois, available, read_rois, read_sides
from napari_neuraldiffuser.core.nsd.selection import chosen_sessions, listed, wants_all
from napari_neuraldiffuser.core.nsd.stimuli import Stimuli
from napari_neuraldiffuser.core.params import BetasParams

MAPPED_FAMILIES = ("prf-visualrois", "floc-faces", "floc-bodies", "floc-places", "floc-words")
"""Families of regions that contribution maps tell about."""


class Subject(BrainSource):
    """A subject of an NSD folder; making one opens no large file.

    Parameters
    ----------
    nsd_dir : path
        Folder that holds nsddata, nsddata_betas and nsddata_stimuli.
    subject : str
        "subj01" ... "subj08".
    params : BetasParams, optional
        Space and version of the betas and how they are prepared.

    Raises
    ------
    NSDError
        If the folder is not an NSD tree or does not hold the subject.
    """

    def __init__(self, nsd_dir: str | Path, subject: str, params: BetasParams | None = None) -> None:
        self.params = params or BetasParams()
        self.layout = Layout(Path(nsd_dir), subject, self.params.space, self.params.version)
        self.layout.check()
        check_ncsnr(self._ncsnr_files, self._ceiling_params)
        self.name = subject

    @cached_property
    def _core_trials(self) -> pd.DataFrame:
        """The trials of the core experiment, see `design.read_trials`."""
        return read_trials(self.layout)

    @property
    def trials(self) -> pd.DataFrame:
        """See `design.read_trials`."""
        return self._core_trials

    @cached_property
    def stimuli(self) -> SeenImages:
        """NSD's images and captions by 0-based 73k id."""
        return Stimuli(self.layout)

    @property
    def shape(self) -> tuple[int, ...]:
        """Volume shape (X, Y, Z) of the betas."""
        return self._grid[0]

    @property
    def affine(self) -> np.ndarray | None:
        """4x4 voxel to mm of the betas' space (NSD: diagonal, origin at the volume's centre; not MNI)."""
        return self._grid[1]

    @cached_property
    def _grid(self) -> Grid:
        """Shape of the first session, and its affine or, as HDF5 files have none, that of a volume beside it."""
        shape, affine = session_grid(next(iter(self.layout.sessions().values())))
        if affine is None:
            path = self._reference()
            image = open_volume(path, "reference volume")
            check_grid(str(path), (image.shape[:3], None), (shape, None))
            affine = image.affine
        return tuple(int(n) for n in shape), affine

    def _reference(self) -> Path:
        choices = [self.layout.volumes / "brainmask.nii.gz", self.layout.volumes / "mean.nii.gz", self.layout.ncsnr]
        # not the T1: it is stored along other axes (LIA)
        choices += sorted(self.layout.roi_folder.glob("*.nii.gz"))
        for path in choices:
            if path.is_file():
                return path
        raise NSDError(f"{self.layout.volumes} must hold a NIfTI volume that gives the affine of the betas, got none.")

    def roi_names(self) -> list[str]:
        """ROI families that `rois` and `betas` accept."""
        return available(self.layout)

    def rois(self, name: str = "prf-visualrois") -> Rois:
        """One family of regions on the betas' grid; an unknown name or another grid is an NSDError."""
        rois = read_rois(self.layout, name)
        check_grid(f"ROI {name}", (rois.labels.shape, rois.affine), self._grid)
        return rois

    def sides(self) -> np.ndarray | None:
        """Hemisphere of every position, by the lh. and rh. volumes of regions."""
        return super().sides() if self.space in SURFACES else read_sides(self.layout)

    def response_files(self) -> list[Path]:
        """The design, every session, and which voxels are valid in it."""
        sessions = self.layout.sessions()
        files = [self.layout.design, *sessions.values(), *map(self.layout.valid_session, sessions)]
        return [*files, *self._ceiling_files]

    @property
    def _ncsnr_files(self) -> list[Path]:
        """Where NSD's ncsnr is, or would be."""
        return [self.layout.ncsnr]

    @property
    def _ceiling_files(self) -> list[Path]:
        """Those files where voxels are chosen by them."""
        return self._ncsnr_files if self._ceiling_params.ceiling_from == "ncsnr" else []

    def region_files(self) -> list[Path]:
        """The volumes of the ROI folder and their label tables."""
        tables = [path for name in self.roi_names() for path in self.layout.label_tables(name)]
        return [*sorted(self.layout.roi_folder.glob("*.nii.gz")), *tables]

    def stimulus_files(self) -> list[Path]:
        """Images, captions, and which image is which."""
        return [self.layout.stimuli, self.layout.captions, self.layout.stim_info]

    def mapped_families(self) -> list[str]:
        """Of `MAPPED_FAMILIES` those whose volumes are there."""
        families = [name for name in MAPPED_FAMILIES if name in self.roi_names()]
        if not families:
            raise NSDError(
                f"ROI volumes must be there for contribution maps, none of {', '.join(MAPPED_FAMILIES)} was found "
                f"under {self.layout.root}. Copy NSD's roi folder of {self.name}."
            )
        return families

    @property
    def anatomy_file(self) -> Path | None:
        """T1 resampled to the betas' space."""
        return self.layout.anatomy

    def anatomy(self) -> nib.spatialimages.SpatialImage | None:
        """That T1, or None where the file is absent."""
        path = self.layout.anatomy
        return open_volume(path, "anatomy", 3) if path.is_file() else None

    def lift(self) -> Lift | None:
        """By NSD's `transforms`, where both hemispheres' files are there."""
        depths = [self.layout.depths(side) for side in HEMISPHERES]
        nearest = [self.layout.to_fsaverage(side) for side in HEMISPHERES]
        files = [*nearest, *(path for both in depths for path in both)]
        return read_lift(depths, nearest) if all(depths) and all(path.is_file() for path in files) else None

    def sessions(self) -> list[int]:
        """The sessions that have trials and betas on disk."""
        shown = set(self._core_trials["session"].tolist())
        return [session for session in self.layout.sessions() if session in shown]

    def noise_ceiling(self, repeats: int = 3) -> nib.Nifti1Image:
        """Noise ceiling in percent of variance for the average of `repeats` trials (method.md eq. 4).

        The published ncsnr was computed with the test images too: choosing voxels by it is mildly circular.
        """
        ncsnr, affine = read_volume(self.layout.ncsnr, "ncsnr")
        power = np.nan_to_num(ncsnr.astype(np.float64)) ** 2
        return nib.Nifti1Image((100 * power / (power + 1 / repeats)).astype(np.float32), affine)

    def betas(self, roi: str | None = None, progress: Progress | None = None) -> Betas:
        """Betas of the voxels of one ROI, one row per image.

        Sessions are read one at a time; memory is about (images x voxels) plus one masked session.

        Parameters
        ----------
        roi : str, optional
            Which voxels (see `selection`), such as "nsdgeneral" or "V1 + V2"; default `params.roi`.
        progress : callable, optional
            Called as progress(done, total, what) after every session.

        Returns
        -------
        Betas
            Sorted by 73k id, or in trial order where repeats are kept apart.

        Raises
        ------
        NSDError
            For an unknown or empty ROI, unknown, unreadable or incomplete sessions, or mismatched grids.
        """
        voxels = self.voxels(roi)
        files, notes = self._chosen_files()
        trials = self._trials_of(files)
        params = self._ceiling_params
        if params.ceiling_from == "ncsnr":
            ceiling = ncsnr_ceiling(self._ncsnr_at(voxels), per_trial(trials, params.average_repeats))
            kept, note = chosen(ceiling, params, f"ROI {roi or params.roi}", self._about_ncsnr)
            voxels, notes = voxels[kept], [*notes, note]
        readers = self._readers(files, voxels)
        about = {"affine": self.affine, "shape": self.shape, "space": self.params.space, "notes": notes}
        return assemble(readers, trials, voxels, params, progress, **about)

    _about_ncsnr = CIRCULAR
    """What the page says of voxels that NSD's file chose."""

    def _trials_of(self, files: dict[int, list[Path]]) -> pd.DataFrame:
        """The trials of some sessions, in the order of `_readers`."""
        return self._core_trials[self._core_trials["session"].isin(files)]

    def _readers(self, files: dict[int, list[Path]], voxels: np.ndarray) -> list[Callable[[], Session]]:
        """What reads each of these sessions."""
        return [partial(self._read, session, paths, voxels) for session, paths in files.items()]

    @property
    def _ceiling_params(self) -> BetasParams:
        """The params, `ceiling_from` saying where ceilings come from, or auto where none is asked for."""
        return resolved(self.params, own=False) if self.params.chooses_voxels else self.params.but(ceiling_from="auto")

    def _ncsnr_at(self, voxels: np.ndarray) -> np.ndarray:
        """NSD's ncsnr at `voxels` (n_voxels, 3), (n_voxels,)."""
        ncsnr, affine = read_volume(self.layout.ncsnr, "ncsnr")
        check_grid("ncsnr", (ncsnr.shape, affine), self._grid, self.layout.ncsnr)
        return ncsnr[tuple(voxels.T)]

    def _session_files(self) -> tuple[dict[int, list[Path]], list[str]]:
        """Files of each session on disk, and notes on those that cannot be used."""
        return {session: [path] for session, path in self.layout.sessions().items()}, []

    def _chosen_files(self) -> tuple[dict[int, list[Path]], list[str]]:
        """Files of the sessions that are read, and notes on those that are not."""
        there, unusable = self._session_files()
        shown = self._core_trials["session"].unique().tolist()
        files = {k: paths for k, paths in there.items() if k in set(shown)}
        if not files:
            raise NSDError(f"{self.layout.beta_folder} must hold sessions of the trials table, got none of them.")
        chosen = {int(k) for k in chosen_sessions(self.params.sessions, [str(k) for k in files])}
        left = listed([str(k) for k in files if k not in chosen])
        missing = sorted(set(shown) - set(files)) if wants_all(self.params.sessions) else []
        notes = [f"sessions not found and skipped: {', '.join(map(str, missing))}"] if missing else []
        notes += [f"sessions left out by choice: {left}"] if left else []
        return {k: paths for k, paths in files.items() if k in chosen}, [*unusable, *notes]

    def _read(self, session: int, paths: list[Path], voxels: np.ndarray) -> Session:
        """One session's betas and, where NSD says so, which voxels are valid in it."""
        valid = self._valid_at(self.layout.valid_session(session), voxels)
        return read_session(paths[0], voxels, TRIALS_PER_SESSION, self._grid), valid

    def _valid_at(self, path: Path, voxels: np.ndarray) -> np.ndarray | None:
        """Which voxels are valid in a session, (n_voxels,) bool; None where no file says so."""
        if not path.is_file():
            return None
        inside, affine = read_inside(path, "valid_session")
        check_grid(str(path), (inside.shape, affine), self._grid, path)
        return inside[tuple(voxels.T)]
