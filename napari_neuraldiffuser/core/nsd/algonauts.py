"""The folders of the Algonauts 2023 challenge: NSD's fsaverage betas, z-scored and averaged, with images and regions.

Responses are a matrix for each hemisphere, (images, vertices), of those vertices of fsaverage that
`all-vertices_fsaverage_space.npy` marks.  Rows are in the order of the numbers in the images' names, which also have
NSD's 0-based id: `train-0001_nsd-00013.png`.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.base.registry import HEMISPHERES, SURFACES
from napari_neuraldiffuser.core.base.safe_npy import load_dict
from napari_neuraldiffuser.core.nsd.algonauts_files import ChallengeFiles, read_matrix, read_vector
from napari_neuraldiffuser.core.nsd.algonauts_stimuli import CAPTIONS, ChallengeStimuli
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.brain_source import BrainSource
from napari_neuraldiffuser.core.nsd.reading.design import N_STIMULI
from napari_neuraldiffuser.core.nsd.reading.surfaces import both_hemispheres, is_fsaverage
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.nsd.rois import Rois, label_names
from napari_neuraldiffuser.core.nsd.subject import MAPPED_FAMILIES
from napari_neuraldiffuser.core.nsd.surface_subject import ATLASES
from napari_neuraldiffuser.core.params import BetasParams, default_of

ALL = "all-vertices"
"""The vertices that have responses, as a family."""
NO_CEILING = "how many trials each row is the mean of is not in the files of the challenge"
ROWS = 256
"""That are read at once."""


class Challenge(BrainSource):
    """A subject of the challenge; making one reads which vertices there are and opens no large file.

    Parameters
    ----------
    source : Source
        `nsd_dir` holds the subjects' folders; `captions` is a JSON by NSD's id or by the images' names.
    params : BetasParams, optional
        ROI and share of held-out images.  `space`, `version` and `zscore` have no meaning here: betas are z-scored.

    Raises
    ------
    NSDError
        If the folder is not of the challenge, or params ask for single trials, sessions or noise ceilings.
    """

    def __init__(self, source: Source, params: BetasParams | None = None) -> None:
        self.source, self.params, self.name = source, params or BetasParams(), source.subject
        self.files = ChallengeFiles(Path(source.nsd_dir), source.subject)
        self.files.check()
        _check_params(self.params)

    @property
    def shape(self) -> tuple[int, ...]:
        """(2, vertices of a hemisphere of fsaverage)."""
        return self._inside.shape

    @property
    def affine(self) -> None:
        """There is none: positions are (hemisphere, vertex)."""

    @property
    def space(self) -> str:
        """fsaverage."""
        return SURFACES[0]

    @cached_property
    def _inside(self) -> np.ndarray:
        """Which vertices have responses, (2, vertices) bool."""
        paths = [self.files.mask(side, f"{ALL}_fsaverage_space") for side in HEMISPHERES]
        left, right = (read_vector(path, ALL) for path in paths)
        inside = both_hemispheres(left, right, ALL) > 0
        if not is_fsaverage(inside.shape[1]):
            raise NSDError(
                f"{paths[0]} must have the vertices of a hemisphere of fsaverage (163,842), got {inside.shape[1]:,}. "
                "Download the roi_masks of the challenge again."
            )
        for side, mask in zip(HEMISPHERES, inside, strict=True):
            path = self.files.responses(side)
            columns = read_matrix(path).shape[1]
            if columns != mask.sum():
                raise NSDError(
                    f"{path} must have a column for each of the {int(mask.sum()):,} vertices of "
                    f"{side}.{ALL}_fsaverage_space.npy, got {columns:,}. Take both from the same subject."
                )
        return inside

    @cached_property
    def trials(self) -> pd.DataFrame:
        """As of `BrainSource`, one row per image, as the files have averages; test images after the others."""
        train, test = self.files.images()
        ids = np.array([*train, *test], dtype=np.int64)
        shared = np.arange(len(ids)) >= len(train) if self._has_test else _held_out(ids, self.params)
        if shared.all() or not shared.any():
            raise NSDError(
                f"held_out must leave training and test images, got {self.params.held_out:g} of {len(ids)} images. "
                "Choose another share (--held-out)."
            )
        place = np.arange(len(ids))
        return pd.DataFrame(
            {"trial": place, "session": 1, "trial_in_session": place, "stimulus_id": ids, "shared": shared, "repeat": 0}
        )

    @property
    def _has_test(self) -> bool:
        """Whether the responses to test images, published after the challenge, are there."""
        return self.files.has_test

    @cached_property
    def stimuli(self) -> ChallengeStimuli:
        """Images of the folder and captions by 0-based 73k id."""
        train, test = self.files.images()
        return ChallengeStimuli({**train, **test}, self._captions)

    @property
    def _captions(self) -> str:
        """The file that was chosen, or the folder's `CAPTIONS`; nothing where there is none."""
        beside = self.files.root / CAPTIONS
        return self.source.captions or (str(beside) if beside.is_file() else "")

    def roi_names(self) -> list[str]:
        """The vertices that have responses, then the families of roi_masks."""
        return [ALL, *self.files.families()]

    def rois(self, name: str = ALL) -> Rois:
        """One family on fsaverage, labels (2, vertices).

        Raises
        ------
        NSDError
            For an unknown name, a missing hemisphere, labels that are no whole numbers, or another number of vertices.
        """
        if name == ALL:
            return Rois(ALL, self._inside.astype(np.int32), {1: ALL}, None)
        if name not in self.files.families():
            raise NSDError(f"roi must be one of {self.roi_names()}, got {name!r}.")
        sides = [self._labels(name, side, inside) for side, inside in zip(HEMISPHERES, self._inside, strict=True)]
        labels = np.stack(sides)
        return Rois(name, labels, label_names(name, labels, self._names(name)), None)

    def _labels(self, name: str, side: str, inside: np.ndarray) -> np.ndarray:
        """Labels of a hemisphere's vertices, from those of the columns or of all vertices."""
        path = self.files.mask(side, f"{name}_challenge_space")
        if path.is_file():
            values, wanted = read_vector(path, f"ROI {name}"), int(inside.sum())
        else:
            path, wanted = self.files.mask(side, f"{name}_fsaverage_space"), len(inside)
            values = read_vector(path, f"ROI {name}")
        if len(values) != wanted:
            raise NSDError(f"{path} must have {wanted:,} vertices, got {len(values):,}. Take it from the same subject.")
        if wanted == len(inside):
            return values
        labels = np.zeros(len(inside), dtype=np.int32)
        labels[inside] = values
        return labels

    def _names(self, name: str) -> dict[int, str]:
        """Names of a family's labels, none where their file is not there."""
        path = self.files.mapping(name)
        if not path.is_file():
            return {}
        table = load_dict(path, "a dictionary of label to name", NSDError)
        if not all(isinstance(k, (int, np.integer)) and isinstance(v, str) for k, v in table.items()):
            raise NSDError(f"{path} must have whole numbers and names, got others. Download it again.")
        return {int(k): str(v) for k, v in table.items()}

    def response_files(self) -> list[Path]:
        """Both hemispheres' responses, and which vertices they are of."""
        splits = (False, True) if self._has_test else (False,)
        files = [self.files.responses(side, test) for side in HEMISPHERES for test in splits]
        return [*files, *(self.files.mask(side, f"{ALL}_fsaverage_space") for side in HEMISPHERES)]

    def region_files(self) -> list[Path]:
        """Everything in roi_masks."""
        return sorted(self.files.masks.glob("*.npy"))

    def stimulus_files(self) -> list[Path]:
        """Captions and pictures."""
        train, test = self.files.images()
        return [*self.stimuli.caption_files(), *train.values(), *test.values()]

    def mapped_families(self) -> list[str]:
        """Of `MAPPED_FAMILIES` those that are there, else of `ATLASES`, else the vertices with responses."""
        there = self.files.families()
        families = [name for name in MAPPED_FAMILIES if name in there] or [name for name in ATLASES if name in there]
        return families or [ALL]

    @property
    def anatomy_file(self) -> None:
        """There is none."""

    def anatomy(self) -> None:
        """There is none."""

    def voxels(self, expression: str | None = None) -> np.ndarray:
        """As of `BrainSource`; the default, nsdgeneral, stands for all vertices that have responses."""
        expression = expression or self.params.roi
        return super().voxels(ALL if expression == default_of(BetasParams, "roi") else expression)

    def betas(self, roi: str | None = None, progress: Progress | None = None) -> Betas:
        """Betas of the vertices of an ROI expression, one row per image, as the files have them.

        Memory is the result and `ROWS` rows of a file.

        Raises
        ------
        NSDError
            For an unknown or empty ROI, damaged files, or hemispheres or images that do not fit each other.
        """
        wanted, trials = self.voxels(roi), self.trials
        columns = np.where(self._inside, np.cumsum(self._inside, axis=1) - 1, -1)[tuple(wanted.T)]
        positions, columns = wanted[columns >= 0], columns[columns >= 0]
        notes = [_split_note(trials, self.params, self._has_test)]
        notes.append("betas are means over repeats, z-scored within sessions, as the files of the challenge have them")
        if without := len(wanted) - len(positions):
            notes.append(f"vertices of the ROI without responses left out: {without:,}")
        if not len(positions):
            raise NSDError(
                f"ROI {roi or self.params.roi} must have vertices with responses, got none. Choose {ALL} or a family "
                "of roi_masks."
            )
        data = self._read(positions, columns, len(trials), progress)
        usable, dropped = _usable(data)
        ids, shared = trials["stimulus_id"].to_numpy(), trials["shared"].to_numpy(dtype=bool)
        return Betas(
            data if usable.all() else data[:, usable],
            ids,
            shared,
            np.ones(len(ids), dtype=np.int64),
            positions[usable],
            shape=self.shape,
            space=self.space,
            notes=notes,
            dropped=dropped,
            noise_ceiling={"mean": None, "why": NO_CEILING},
        )

    def _read(self, positions: np.ndarray, columns: np.ndarray, n: int, progress: Progress | None) -> np.ndarray:
        """Responses (n, n_vertices) float32, training images first."""
        data = np.empty((n, len(positions)), dtype=np.float32)
        splits: Sequence[bool] = (False, True) if self._has_test else (False,)
        train, test = self.files.images()
        for hemisphere, side in enumerate(HEMISPHERES):
            own = positions[:, 0] == hemisphere
            start = 0
            for split in splits:
                matrix = read_matrix(self.files.responses(side, split))
                rows = len(test if split else train)
                if matrix.shape[0] != rows:
                    raise NSDError(
                        f"{self.files.responses(side, split)} must have a row for each of the {rows:,} images of "
                        f"{self.files.pictures(split)}, got {matrix.shape[0]:,}. Download both again."
                    )
                for first in range(0, rows, ROWS):
                    block = np.asarray(matrix[first : first + ROWS], dtype=np.float32)[:, columns[own]]
                    data[start + first : start + first + len(block), own] = block
                    if progress is not None:
                        progress(hemisphere * n + start + first + len(block), 2 * n, "reading responses")
                start += rows
        return data


def _usable(data: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Which vertices (n_vertices,) have finite responses that vary, and how many have not."""
    finite = np.isfinite(data.sum(axis=0, dtype=np.float64))
    constant = (data == data[0]).all(axis=0) & finite
    usable = finite & ~constant
    if not usable.any():
        raise NSDError("responses must vary over images, got none that does and is finite. Download them again.")
    counts = {"nan": int((~finite).sum()), "constant": int(constant.sum())}
    return usable, {why: n for why, n in counts.items() if n}


def _held_out(ids: np.ndarray, params: BetasParams) -> np.ndarray:
    """Which images are held out, (n,) bool: by NSD's id, so that no subject trains on what another is tested on."""
    rank = np.random.default_rng(params.held_out_seed).permutation(N_STIMULI)
    return rank[ids] < params.held_out * N_STIMULI


def _split_note(trials: pd.DataFrame, params: BetasParams, has_test: bool) -> str:
    n = int(trials["shared"].sum())
    if has_test:
        return f"test images are the challenge's own, {n:,} of {len(trials):,}"
    return (
        f"the challenge has no responses to its test images: {n:,} of its {len(trials):,} training images are held out "
        f"(held_out {params.held_out:g}, held_out_seed {params.held_out_seed}; by NSD's id, the same for all subjects)"
    )


def _check_params(params: BetasParams) -> None:
    """Raise NSDError for what averages over sessions cannot give."""
    wrong = {
        "sessions": (params.sessions.strip().lower() != "all", "all", params.sessions),
        "average_repeats": (not params.average_repeats, "on", "off"),
        "min_noise_ceiling and max_voxels": (params.chooses_voxels, "0", "others"),
    }
    for name, (is_wrong, rule, got) in wrong.items():
        if is_wrong:
            raise NSDError(
                f"{name} must be {rule} for a folder of the Algonauts challenge, got {got}. Its rows are means over "
                "repeats and sessions; use NSD's own betas (--space fsaverage) for that."
            )
