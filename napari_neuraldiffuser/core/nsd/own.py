"""Own scans as a subject: single files that the user chooses, of any experiment."""

import glob
import re
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.pictures import picture_files
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import OWN_SPACE, Source, design_beside
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.brain_source import BrainSource
from napari_neuraldiffuser.core.nsd.by_ceiling import resolved
from napari_neuraldiffuser.core.nsd.own_stimuli import OwnStimuli
from napari_neuraldiffuser.core.nsd.reading import label_tables
from napari_neuraldiffuser.core.nsd.reading.images import SUFFIXES, stem_of
from napari_neuraldiffuser.core.nsd.reading.series import Series, open_series
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, check_grid, open_volume, read_labels
from napari_neuraldiffuser.core.nsd.rois import Rois, label_names
from napari_neuraldiffuser.core.nsd.user import Trials, assemble_betas, on_grid, trials_of
from napari_neuraldiffuser.core.params import BetasParams, default_of

MASK = "mask"
NEEDED = {
    "betas": "a 4-D NIfTI with one volume per trial, or single-trial betas of GLMsingle (.npy, .hdf5, .mat)",
    "mask": "a NIfTI on the betas' grid whose voxels above 0 are used",
    "trials": "a tab-separated table with trial, stimulus, session and test",
}
OPTIONAL = ("images", "captions", "anatomy")
TABLES = (".tsv", ".csv", ".txt", ".json")
"""Endings that no volume has."""


class OwnScans(BrainSource):
    """Scans of any experiment; making one opens no large file.

    Parameters
    ----------
    source : Source
        Its files; `subject` names the output.
    params : BetasParams, optional
        ROI, sessions and how the betas are prepared.  `space` and `version` are NSD's and have no meaning here.

    Raises
    ------
    NSDError
        If a file is missing, or the betas are not 4-D.
    """

    def __init__(self, source: Source, params: BetasParams | None = None) -> None:
        self.source, self.params, self.name = source, params or BetasParams(), source.subject
        _check_files(source)
        resolved(self.params, own=True)
        self._opened = open_series(source.betas)

    @property
    def space(self) -> str:
        """That of own scans."""
        return OWN_SPACE

    @property
    def shape(self) -> tuple[int, ...]:
        """Volume shape (X, Y, Z) of the betas."""
        return self._series.shape[:3]

    @property
    def affine(self) -> np.ndarray:
        """4x4 voxel to mm of the betas' space."""
        affine = self._series.affine
        if affine is None:
            raise NSDError(f"{self.source.betas} must have places, got none. Give a mask (--mask FILE).")
        return affine

    @property
    def _series(self) -> Series:
        """The betas, on the mask's grid where their file says no place."""
        return self._opened if self._opened.affine is not None else self._masked[0]

    @cached_property
    def _masked(self) -> tuple[Series, np.ndarray]:
        return on_grid(self._opened, self.source.mask)

    @cached_property
    def _table(self) -> Trials:
        return trials_of(self.source.trials, self._opened, self.source.images)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """As of `BrainSource`; session is text, stimulus_id the index of the label, which `stimulus` is."""
        table = self._table.table.copy()
        table["trial_in_session"] = table.groupby("session").cumcount()
        table["repeat"] = table.groupby("stimulus_id").cumcount()
        return table

    @cached_property
    def stimuli(self) -> OwnStimuli:
        """Images and captions by index of the label; `stimuli.names` are the labels."""
        return OwnStimuli(self.source.images, self.source.captions, self._table.names)

    def roi_names(self) -> list[str]:
        """The mask, then the families of the label volumes."""
        return [MASK, *sorted(self._families)]

    @cached_property
    def _families(self) -> dict[str, Path]:
        families: dict[str, Path] = {}
        for path in map(Path, self.source.rois):
            name = family_name(path)
            if name in families or name == MASK:
                raise NSDError(
                    f"ROI volumes must have distinct names other than {MASK!r}, got {name!r} of {path} too. "
                    "Rename the file."
                )
            families[name] = path
        return families

    def rois(self, name: str = MASK) -> Rois:
        """One family on the betas' grid: the mask (also by its file's name) or a label volume with its table.

        Raises
        ------
        NSDError
            For an unknown name, another grid, or labels that are not whole numbers.
        """
        if name in self._families:
            path = self._families[name]
            labels, affine = read_labels(path)
            check_grid(f"ROI {name}", (labels.shape, affine), (self.shape, self.affine), path)
            table = label_tables.beside(path, stem_of(path), np.unique(labels).tolist())
            return Rois(name, labels, label_names(name, labels, table), affine)
        if name not in (MASK, stem_of(self.source.mask)):
            raise NSDError(f"roi must be one of {self.roi_names()}, got {name!r}.")
        inside = self._masked[1]
        return Rois(MASK, inside.astype(np.int32), {1: MASK}, self.affine)

    def response_files(self) -> list[Path]:
        """Betas, mask, trials, and GLMsingle's design."""
        files = (self.source.betas, self.source.mask, self.source.trials, design_beside(self.source.betas))
        return [Path(file) for file in files if file]

    def region_files(self) -> list[Path]:
        """The label volumes, and every table beside one that has its name."""
        files = [p.parent.glob(glob.escape(stem_of(p)) + "*") for p in map(Path, self.source.rois)]
        return sorted(path for beside in files for path in beside)

    def stimulus_files(self) -> list[Path]:
        """Captions, trials or design, and pictures; labels may lie in folders of their own."""
        pictures = picture_files(self.source.images) if self.source.images else []
        told = (self.source.captions, self.source.trials, design_beside(self.source.betas))
        tables = [Path(file) for file in told if file]
        return [*tables, *pictures]

    def mapped_families(self) -> list[str]:
        """The label volumes, else the mask."""
        return [name for name in self.roi_names() if name != MASK] or [MASK]

    @property
    def anatomy_file(self) -> Path | None:
        """The anatomy, if one was given."""
        return Path(self.source.anatomy) if self.source.anatomy else None

    def anatomy(self) -> nib.spatialimages.SpatialImage | None:
        """The anatomy, or None where none was given."""
        if not self.source.anatomy:
            return None
        return open_volume(self.source.anatomy, "anatomy", 3)

    def voxels(self, expression: str | None = None) -> np.ndarray:
        """As of `BrainSource`; the default, a family of NSD's, stands for the mask where there is none."""
        expression = expression or self.params.roi
        nsds_own = expression == default_of(BetasParams, "roi") and expression not in self._families
        return super().voxels(MASK if nsds_own else expression)

    def betas(self, roi: str | None = None, progress: Progress | None = None) -> Betas:
        """Betas of the voxels of one ROI, one row per stimulus, as `Subject.betas`.

        An ROI other than the mask is not cut by it: write `V1 & mask` for that.
        """
        voxels, params = self.voxels(roi), resolved(self.params, own=True)
        return assemble_betas(self._series, voxels, self._table, params, progress)


def family_name(path: str | Path) -> str:
    """Family of a label volume: BIDS's seg- or atlas- entity, else the file's name."""
    stem = stem_of(path)
    entity = re.search(r"(?:^|_)(?:seg|atlas)-([0-9a-zA-Z]+)", stem)
    return entity[1] if entity else stem


def _check_files(source: Source) -> None:
    for name, what in NEEDED.items():
        path = getattr(source, name)
        if name == "trials" and not path and design_beside(source.betas):
            continue
        option = "" if name == "betas" else f" (--{name} FILE)"
        if not path:
            raise NSDError(f"own scans must have {name}, {what}, got none. Choose the file{option}.")
        if not Path(path).is_file():
            raise NSDError(f"own scans must have {name}, {what}, got {path}, which is no file. Check the path{option}.")
        if Path(path).name.lower().endswith(SUFFIXES if name == "trials" else TABLES):
            got = "a volume" if name == "trials" else "a file of text"
            raise NSDError(f"own scans must have {name}, {what}, got {got}, {path}. Choose another file{option}.")
    given = [(name, getattr(source, name)) for name in OPTIONAL] + [("ROI volume", path) for path in source.rois]
    for name, path in given:
        if path and not Path(path).exists():
            raise NSDError(f"own scans must have existing files, got {name} {path}. Choose it again, or leave it out.")
