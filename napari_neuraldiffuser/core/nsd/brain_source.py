"""What every subject offers, whatever files it comes from: NSD's (`Subject` ...) or others (`OwnScans` ...)."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import SeenImages
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SURFACES
from napari_neuraldiffuser.core.nsd.betas import Betas, mask_voxels
from napari_neuraldiffuser.core.nsd.reading.lifting import Lift
from napari_neuraldiffuser.core.nsd.selection import Selectable, parse, select
from napari_neuraldiffuser.core.params import BetasParams


class BrainSource(Selectable):
    """One subject's betas, regions, stimuli and anatomy, on one grid; making one opens no large file.

    Attributes
    ----------
    name : str
        Names the output.
    params : BetasParams
        Which betas are read and how they are prepared.
    """

    name: str
    params: BetasParams
    further_session: str = ""
    """Name of a session that is read whatever sessions are chosen: the test images are of it."""

    @property
    def space(self) -> str:
        """Name of the space of the betas."""
        return self.params.space

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Volume shape (X, Y, Z) of the betas, or (2, vertices of a hemisphere) on a surface."""

    @property
    @abstractmethod
    def trials(self) -> pd.DataFrame:
        """One row per trial: trial (0-based volume), session, trial_in_session (0-based), stimulus_id, shared (a test
        image) and repeat (0-based showing of that image)."""

    @property
    @abstractmethod
    def stimuli(self) -> SeenImages:
        """Images and captions by stimulus id."""

    def beta_files(self, roi: str) -> list[Path]:
        """The files that decide the betas of an ROI expression, label tables included."""
        masks = [Path(term.name).expanduser() for term in parse(roi) if term.is_mask]
        return [*self.response_files(), *masks, *self.region_files()]

    @abstractmethod
    def response_files(self) -> list[Path]:
        """The files that betas are read from, and those that say what was shown when."""

    @abstractmethod
    def region_files(self) -> list[Path]:
        """The files that say where regions are and what they are called."""

    @abstractmethod
    def stimulus_files(self) -> list[Path]:
        """The files that decide images and captions."""

    @abstractmethod
    def mapped_families(self) -> list[str]:
        """ROI families that contribution maps tell about.

        Raises
        ------
        NSDError
            If there is none.
        """

    @property
    @abstractmethod
    def anatomy_file(self) -> Path | None:
        """Where the anatomy is, or would be."""

    @abstractmethod
    def anatomy(self) -> nib.spatialimages.SpatialImage | None:
        """The T1 in the betas' space, or None where there is none."""

    def sides(self) -> np.ndarray | None:
        """Place in `HEMISPHERES` of every position of the betas' grid, -1 where it is not known; None where nothing
        says it."""
        if self.space not in SURFACES:
            return None
        return np.broadcast_to(np.arange(len(HEMISPHERES))[:, None], self.shape)

    def lift(self) -> Lift | None:
        """How volumes of the betas' space are brought to fsaverage; None where no file says so.

        Raises
        ------
        NSDError
            If files that should say so are damaged or do not fit each other.
        """
        return None

    @abstractmethod
    def betas(self, roi: str | None = None, progress: Progress | None = None) -> Betas:
        """Betas of the voxels of an ROI expression (default `params.roi`), one row per image.

        Raises
        ------
        NSDError
            For an unknown or empty ROI, unknown or unreadable sessions, or mismatched grids.
        """

    def sessions(self) -> Sequence[int | str]:
        """The sessions that have trials and betas on disk, in order."""
        return list(dict.fromkeys(self.trials["session"].tolist()))

    def voxels(self, expression: str | None = None) -> np.ndarray:
        """Positions (n, 3) of the voxels that an ROI expression selects, in the order of the betas' columns; on a
        surface (n, 2) of vertices.

        Reads ROI volumes only.  Betas may have fewer voxels: those without a signal are dropped.

        Parameters
        ----------
        expression : str, optional
            See `selection`; default `params.roi`.

        Raises
        ------
        NSDError
            For an unknown or ambiguous name, an unreadable mask or one on another grid, or an empty selection.
        """
        expression = expression or self.params.roi
        return mask_voxels(select(self, expression), f"ROI {expression}")
