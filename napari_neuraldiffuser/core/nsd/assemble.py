"""Makes one row per image of the sessions: z-scores, averages, and counts the voxels that cannot be used."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.params import BetasParams

Session = tuple[np.ndarray, np.ndarray | None]
"""Betas (trials, n_voxels) float32 of a session, and which voxels are valid in it, (n_voxels,) bool."""


class Assembler:
    """Adds up sessions, one at a time, into one row per image (or per trial).

    Memory is the result (rows x voxels, float32) plus the one session that is being added.

    Parameters
    ----------
    stimulus_ids : (n_trials,) int
        Image of every trial that will come, in order.
    n_voxels : int
    zscore, average : bool
        As in BetasParams.
    """

    def __init__(self, stimulus_ids: np.ndarray, n_voxels: int, *, zscore: bool = True, average: bool = True) -> None:
        self.zscore = zscore
        if average:
            self.ids, self._row = np.unique(stimulus_ids, return_inverse=True)
        else:
            self.ids, self._row = np.asarray(stimulus_ids), np.arange(len(stimulus_ids))
        self.data = np.zeros((len(self.ids), n_voxels), dtype=np.float32)
        self.repeats = np.zeros(len(self.ids), dtype=np.int64)
        self._done = 0
        self._bad = {reason: np.zeros(n_voxels, dtype=bool) for reason in ("invalid", "nan", "constant")}

    def add(self, session: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Add one session (method.md eq. 2, 3), (trials, n_voxels) float32, which is overwritten; `valid`
        (n_voxels,) marks usable voxels."""
        if valid is not None:
            self._bad["invalid"] |= ~valid
        mean = session.mean(axis=0, dtype=np.float64)
        self._bad["nan"] |= ~np.isfinite(mean)
        # exact equality, not a standard deviation that rounding makes tiny but not zero
        self._bad["constant"] |= (session == session[0]).all(axis=0)
        if self.zscore:
            session -= mean.astype(np.float32)
            # the float32 mean is off by up to its last bit, which matters where the mean is far above the spread
            session -= session.mean(axis=0, dtype=np.float64).astype(np.float32)
            spread = np.sqrt(np.einsum("tv,tv->v", session, session, dtype=np.float64) / len(session))
            usable = np.isfinite(spread) & (spread > 0)
            session /= np.where(usable, spread, 1.0).astype(np.float32)
        rows = self._row[self._done : self._done + len(session)]
        for row, trial in zip(rows, session, strict=True):
            self.data[row] += trial
            self.repeats[row] += 1
        self._done += len(session)

    def finish(self) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Return the averages (rows, kept voxels) float32, which voxels were kept (n_voxels,), and how many were
        dropped for which reason, each voxel counted for its first."""
        self.data /= np.maximum(self.repeats, 1)[:, None].astype(np.float32)
        gone = np.zeros(self.data.shape[1], dtype=bool)
        dropped = {}
        for reason, bad in self._bad.items():
            if (bad & ~gone).any():
                dropped[reason] = int((bad & ~gone).sum())
            gone |= bad
        if gone.all():
            raise NSDError(f"mask must have voxels with a signal in every session, got none (dropped: {dropped}).")
        return _compact(self.data, ~gone), ~gone, dropped


def _compact(data: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """`data[:, keep]` in the memory of `data`: the masked betas need not be held twice."""
    if keep.all():
        return data
    width = int(keep.sum())
    flat = data.reshape(-1)
    for row in range(len(data)):
        flat[row * width : (row + 1) * width] = data[row, keep]
    return flat[: len(data) * width].reshape(len(data), width)


def assemble(
    readers: Sequence[Callable[[], Session]],
    trials: pd.DataFrame,
    voxels: np.ndarray,
    params: BetasParams,
    progress: Progress | None = None,
    **about: Any,
) -> Betas:
    """Read and add sessions one after another, reporting progress per session; `about` are other fields of Betas.

    `readers` are functions and not arrays, so that nothing keeps a session alive while the next one is read.
    """
    average = params.average_repeats
    assembler = Assembler(trials["stimulus_id"].to_numpy(), len(voxels), zscore=params.zscore, average=average)
    for number, read in enumerate(readers, 1):
        assembler.add(*read())
        if progress is not None:
            progress(number, len(readers), "sessions read")
    data, kept, dropped = assembler.finish()
    shared = shared_rows(trials, assembler.ids, average)
    return Betas(data, assembler.ids, shared, assembler.repeats, voxels[kept], dropped=dropped, **about)


def shared_rows(trials: pd.DataFrame, ids: np.ndarray, average: bool) -> np.ndarray:
    """Which rows of an assembled table are test images, (n_rows,) bool."""
    if not average:
        return trials["shared"].to_numpy(dtype=bool)
    by_image = trials.groupby("stimulus_id")["shared"].any()
    return by_image.loc[ids].to_numpy(dtype=bool)
