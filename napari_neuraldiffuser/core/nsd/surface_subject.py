"""One NSD subject on fsaverage: betas of the vertices of both hemispheres, and regions on that surface.

NSD has atlases on fsaverage itself; what was drawn on each subject's own surface (retinotopic and category-selective
areas) is brought there by NSD's own transform, the nearest vertex.
"""

from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from napari_neuraldiffuser.core.base.registry import HEMISPHERES
from napari_neuraldiffuser.core.nsd.assemble import Session
from napari_neuraldiffuser.core.nsd.reading.design import TRIALS_PER_SESSION
from napari_neuraldiffuser.core.nsd.reading.label_tables import parse_label_table
from napari_neuraldiffuser.core.nsd.reading.lifting import vertex_numbers
from napari_neuraldiffuser.core.nsd.reading.surfaces import (
    SESSION,
    both_hemispheres,
    is_fsaverage,
    open_vertices,
    read_masked_session,
    read_vertex_labels,
    read_vertices,
)
from napari_neuraldiffuser.core.nsd.reading.volumes import Grid, NSDError
from napari_neuraldiffuser.core.nsd.rois import Rois, label_names
from napari_neuraldiffuser.core.nsd.subject import MAPPED_FAMILIES, Subject

GENERAL = "nsdgeneral"
ATLASES = ("streams", "Kastner2015", "HCP_MMP1")
"""Families that contribution maps tell about where those of the subject are not there."""


class SurfaceSubject(Subject):
    """A subject of an NSD folder on fsaverage; making one opens no large file.

    Positions are (hemisphere, vertex), and there is neither an affine nor an anatomy.  Parameters and errors are those
    of `Subject`.
    """

    @cached_property
    def _grid(self) -> Grid:
        """(2, vertices of a hemisphere), by the first session's left one."""
        first, *_ = self._sessions[0].values()
        n = int(open_vertices(first[0], SESSION, series=True).shape[0])
        if not is_fsaverage(n):
            raise NSDError(
                f"{first[0]} must have the vertices of a hemisphere of fsaverage (163,842), got {n:,}. "
                "Take NSD's betas of the space fsaverage and not of a subject's own surface."
            )
        return (len(HEMISPHERES), n), None

    @cached_property
    def _sessions(self) -> tuple[dict[int, list[Path]], list[int]]:
        return self.layout.surface_sessions()

    def roi_names(self) -> list[str]:
        """Families on fsaverage, and those of the subject's own surface where NSD's transform is there."""
        return sorted({*self._atlases, *self._own})

    @cached_property
    def _atlases(self) -> dict[str, list[Path]]:
        return self._families(self.layout.atlas_folder)

    @cached_property
    def _own(self) -> dict[str, list[Path]]:
        if not all(self.layout.to_fsaverage(side).is_file() for side in HEMISPHERES):
            return {}
        return self._families(self.layout.native_folder)

    def _families(self, folder: Path) -> dict[str, list[Path]]:
        """Files of both hemispheres by family; a file without a table of names is a measure and no family."""
        left, right = HEMISPHERES
        names = {path.name.removeprefix(f"{left}.").removesuffix(".mgz") for path in folder.glob(f"{left}.*.mgz")}
        known = [name for name in names if name == GENERAL or any(p.is_file() for p in self.layout.label_tables(name))]
        return {name: [folder / f"{side}.{name}.mgz" for side in (left, right)] for name in known}

    def rois(self, name: str = "prf-visualrois") -> Rois:
        """One family on fsaverage, labels (2, vertices).

        Raises
        ------
        NSDError
            For an unknown name, a missing hemisphere, labels that are not whole numbers, or another surface.
        """
        if name in self._atlases:
            sides = [read_vertex_labels(path) for path in self._atlases[name]]
        elif name in self._own:
            sides = [self._on_fsaverage(path, side) for path, side in zip(self._own[name], HEMISPHERES, strict=True)]
        else:
            raise NSDError(
                f"roi must be one of {self.roi_names()} on {self.params.space}, got {name!r}. Families of the "
                f"subject's own surface need {self.layout.to_fsaverage('lh')} and the rh file beside it."
            )
        left, right = sides
        labels = both_hemispheres(left, right, f"ROI {name}", self.shape[1])
        table = next((parse_label_table(p) for p in self.layout.label_tables(name) if p.is_file()), {})
        return Rois(name, labels, label_names(name, labels, table), None)

    def _on_fsaverage(self, path: Path, hemisphere: str) -> np.ndarray:
        """Labels of the subject's own surface at the vertices of fsaverage, each that of the nearest vertex."""
        own = read_vertex_labels(path)
        return own[vertex_numbers(self.layout.to_fsaverage(hemisphere), len(own), path.name)]

    def response_files(self) -> list[Path]:
        """The design, and both hemispheres of every session."""
        files = [path for both in self._sessions[0].values() for path in both]
        return [self.layout.design, *files, *self._ceiling_files]

    def region_files(self) -> list[Path]:
        """Both hemispheres of every family, their label tables, and the transform."""
        families = {**self._own, **self._atlases}
        files = [path for both in families.values() for path in both]
        tables = [path for name in families for path in self.layout.label_tables(name)]
        return [*files, *tables, *map(self.layout.to_fsaverage, HEMISPHERES)]

    def mapped_families(self) -> list[str]:
        """Of `MAPPED_FAMILIES` those that are there, else of `ATLASES`."""
        there = self.roi_names()
        families = [name for name in MAPPED_FAMILIES if name in there] or [name for name in ATLASES if name in there]
        if not families:
            raise NSDError(
                f"regions must be there for contribution maps, none of {', '.join((*MAPPED_FAMILIES, *ATLASES))} was "
                f"found in {self.layout.atlas_folder} and {self.layout.native_folder}. Copy NSD's label folders, and "
                f"{self.layout.to_fsaverage('lh').parent}."
            )
        return families

    @property
    def anatomy_file(self) -> None:
        """There is none: a T1 is a volume."""

    def anatomy(self) -> None:
        """There is none: a T1 is a volume."""

    @property
    def _ncsnr_files(self) -> list[Path]:
        return [self.layout.surface_ncsnr(side) for side in HEMISPHERES]

    def _ncsnr_at(self, voxels: np.ndarray) -> np.ndarray:
        left, right = (read_vertices(path, "ncsnr") for path in self._ncsnr_files)
        return both_hemispheres(left, right, "ncsnr", self.shape[1])[tuple(voxels.T)]

    def noise_ceiling(self, repeats: int = 3) -> NoReturn:
        """Not of a surface: an NSDError."""
        raise NSDError(
            f"space must be a volume's for a volume of noise ceilings, got {self.params.space}. Choose vertices by "
            "them with min_noise_ceiling or max_voxels."
        )

    def sessions(self) -> list[int]:
        """The sessions that have trials and both hemispheres on disk."""
        shown = set(self._core_trials["session"].tolist())
        return [session for session in self._sessions[0] if session in shown]

    def _session_files(self) -> tuple[dict[int, list[Path]], list[str]]:
        files, halves = self._sessions
        told = f"sessions with one hemisphere alone skipped: {', '.join(map(str, halves))}"
        return files, [told] if halves else []

    def _read(self, session: int, paths: list[Path], voxels: np.ndarray) -> Session:
        return read_masked_session(paths, voxels, TRIALS_PER_SESSION, self.shape[1]), None
