"""A subject of NSD whose test images are those of a further session: trained on the core experiment as always."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.base.registry import SURFACES
from napari_neuraldiffuser.core.nsd.assemble import Session
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.ceiling import noise_ceiling
from napari_neuraldiffuser.core.nsd.further.files import TRIALS, FurtherFiles
from napari_neuraldiffuser.core.nsd.further.shown import shown
from napari_neuraldiffuser.core.nsd.further.stimuli import FurtherStimuli, NamedPictures, SyntheticPictures
from napari_neuraldiffuser.core.nsd.reading.sessions import read_session
from napari_neuraldiffuser.core.nsd.reading.surfaces import read_masked_session
from napari_neuraldiffuser.core.nsd.stimuli import Stimuli
from napari_neuraldiffuser.core.nsd.subject import Subject
from napari_neuraldiffuser.core.nsd.surface_subject import SurfaceSubject
from napari_neuraldiffuser.core.params import BetasParams

NOT_CIRCULAR = "from NSD's ncsnr, of the core experiment: no test image counts in it"


class FurtherSubject(Subject):
    """A subject of an NSD folder, tested on a further session; making one opens no large file.

    Test images of the core experiment count for the z-scores of their sessions and are in no row.  The further
    session's betas are z-scored by its own trials.

    Parameters
    ----------
    source : Source
        Its `test_set` names the session.
    params : BetasParams, optional

    Raises
    ------
    NSDError
        If the folder does not hold the subject or the session, or which image was seen when is not known.
    """

    _about_ncsnr = NOT_CIRCULAR

    def __init__(self, source: Source, params: BetasParams | None = None) -> None:
        super().__init__(source.nsd_dir, source.subject, params)
        self.source, self.further = source, FurtherFiles(self.layout, source.test_set)
        self.further_session = self.further.session
        self._tested, self._names = shown(self.further, source)
        self.further.betas()

    @cached_property
    def trials(self) -> pd.DataFrame:
        """As of `BrainSource`: training trials of the core experiment, then the further session's."""
        core = self._core_trials
        return pd.concat([core[~core["shared"].astype(bool)], self._tested], ignore_index=True)

    @cached_property
    def stimuli(self) -> FurtherStimuli:
        """NSD's images and captions by 0-based 73k id, and the further session's behind them."""
        if self.further.test_set == "synthetic":
            return FurtherStimuli(Stimuli(self.layout), SyntheticPictures(self.further), self.further)
        named = NamedPictures(self.source.images, self.source.captions, self._names)
        return FurtherStimuli(Stimuli(self.layout), named, self.further)

    def response_files(self) -> list[Path]:
        """Those of the core experiment, and of the further session what says which image was shown when."""
        return [*super().response_files(), *self.further.betas(), self.further.valid, self.order_file]

    @property
    def order_file(self) -> Path:
        """What says which image was shown when."""
        return self.further.design if self.further.test_set == "synthetic" else Path(self.source.trials)

    def stimulus_files(self) -> list[Path]:
        """Those of both experiments."""
        return [*super().stimulus_files(), *self.stimuli.files]

    def betas(self, roi: str | None = None, progress: Progress | None = None) -> Betas:
        """As of `Subject`, with the further session's rows as test rows; their noise ceiling is of them alone."""
        betas = super().betas(roi, progress)
        test = betas.shared
        betas.noise_ceiling = noise_ceiling(
            betas.data[test], betas.repeats[test], np.ones(int(test.sum()), dtype=bool), self.params.zscore
        )
        betas.notes.append(self._note(betas))
        return betas

    def _note(self, betas: Betas) -> str:
        scored = f", z-scored over {len(self._tested)} trials of that session" if self.params.zscore else ""
        n = len(np.unique(betas.stimulus_ids[betas.shared]))
        return (
            f"test set {self.further.title}: {n} images{scored}; the test images of NSD's core experiment are in no row"
        )

    def _trials_of(self, files: dict[int, list[Path]]) -> pd.DataFrame:
        rows = super()._trials_of(files)
        unused = rows.assign(stimulus_id=rows["stimulus_id"].where(~rows["shared"].astype(bool), -1), shared=False)
        return pd.concat([unused, self._tested], ignore_index=True)

    def _readers(self, files: dict[int, list[Path]], voxels: np.ndarray) -> list[Callable[[], Session]]:
        return [*super()._readers(files, voxels), lambda: self._read_further(voxels)]

    def _read_further(self, voxels: np.ndarray) -> Session:
        """The further session's betas of the rows that are test trials, and which voxels are valid in it."""
        paths, n = self.further.betas(), TRIALS[self.further.test_set]
        data = read_session(paths[0], voxels, n, self._grid)
        return data[self._tested["trial"].to_numpy()], self._valid_at(self.further.valid, voxels)


class FurtherSurfaceSubject(FurtherSubject, SurfaceSubject):
    """The same on fsaverage; parameters and errors are those of `FurtherSubject`."""

    def _read_further(self, voxels: np.ndarray) -> Session:
        n = TRIALS[self.further.test_set]
        data = read_masked_session(self.further.betas(), voxels, n, self.shape[1])
        return data[self._tested["trial"].to_numpy()], None


def open_further(source: Source, params: BetasParams | None = None) -> FurtherSubject:
    """The subject with the test set that the source names; errors are those of `FurtherSubject`."""
    on_surface = params is not None and params.space in SURFACES
    return (FurtherSurfaceSubject if on_surface else FurtherSubject)(source, params)
