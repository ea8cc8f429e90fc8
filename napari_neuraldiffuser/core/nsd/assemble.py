"""Makes one row per image of the sessions: z-scores, averages, and counts the voxels that cannot be used."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.nsd.by_ceiling import TRAINING, chosen, training_ceiling
from napari_neuraldiffuser.core.nsd.ceiling import noise_ceiling
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.params import BetasParams

SOME = 10
"""Voxels that are looked at first, and that must vary before a trial of zeros is one without betas."""
COMPARED = 1024
"""Voxels by which trials with the same betas are found."""
FEW_TRIALS = 5
"""So many trials at most are named as the cause of voxels without a number."""

Session = tuple[np.ndarray, np.ndarray | None]
"""Betas (trials, n_voxels) float32 of a session, and which voxels are valid in it, (n_voxels,) bool."""


class Assembler:
    """Adds up sessions, one at a time, into one row per image (or per trial).

    Memory is the result (rows x voxels, float32) plus the one session that is being added.

    Parameters
    ----------
    stimulus_ids : (n_trials,) int
        Image of every trial that will come, in order; below 0 for a trial that counts for its session's z-scores and
        has no row.
    n_voxels : int
    zscore, average : bool
        As in BetasParams.

    Attributes
    ----------
    missing : list of int
        Places of the trials that came without betas, see `trials_without_betas`; they are left out.
    done : int
        Trials that came.
    twins : list of (int, int)
        Place of a trial whose betas are, to the last bit, those of an earlier one, and place of that.
    partly : dict of int to int
        Places of trials without a number in some voxels that have one in others, and in how many.
    """

    def __init__(self, stimulus_ids: np.ndarray, n_voxels: int, *, zscore: bool = True, average: bool = True) -> None:
        self.zscore = zscore
        if average:
            self.ids, self._row = np.unique(stimulus_ids, return_inverse=True)
            without = int(np.count_nonzero(self.ids < 0))
            self.ids, self._row = self.ids[without:], self._row - without
        else:
            kept = np.asarray(stimulus_ids) >= 0
            self.ids, self._row = np.asarray(stimulus_ids)[kept], np.where(kept, np.cumsum(kept) - 1, -1)
        self.data = np.zeros((len(self.ids), n_voxels), dtype=np.float32)
        self.repeats = np.zeros(len(self.ids), dtype=np.int64)
        self.missing: list[int] = []
        self.done = 0
        self.twins: list[tuple[int, int]] = []
        self.partly: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._compared: np.ndarray | None = None
        self._bad = {reason: np.zeros(n_voxels, dtype=bool) for reason in ("invalid", "nan", "constant")}

    def add(self, session: np.ndarray, valid: np.ndarray | None = None, name: str = "") -> None:
        """Add one session (method.md eq. 2-3), (trials, n_voxels) float32, which is overwritten; `valid`
        (n_voxels,) marks usable voxels.  NSDError, with the session's name, if most trials have no betas."""
        rows = self._row[self.done : self.done + len(session)]
        mean = session.mean(axis=0, dtype=np.float64)
        gone = trials_without_betas(session, mean)
        if gone.any():
            _check_enough(gone, name)
            self.missing += (self.done + np.flatnonzero(gone)).tolist()
            session, rows = session[~gone], rows[~gone]
            mean = session.mean(axis=0, dtype=np.float64)
        places = self.done + np.flatnonzero(~gone)
        self.done += len(gone)
        # exact equality, not a standard deviation that rounding makes tiny but not zero
        constant = (session == session[0]).all(axis=0) & (len(session) > 1)
        if constant.all():
            raise NSDError(
                f"mask must have voxels with a signal in every session, got {len(constant)} voxels that have one value "
                f"in all trials of session {name}. Choose another mask, or leave the session out."
            )
        self._bad["invalid"] |= False if valid is None else ~valid
        self._bad["nan"] |= ~np.isfinite(mean)
        self._bad["constant"] |= constant
        self._note_parts(session, places, mean)
        self._find_twins(session, places, ~constant & np.isfinite(mean))
        if self.zscore:
            _zscore(session, mean)
        for row, trial in zip(rows, session, strict=True):
            if row >= 0:
                self.data[row] += trial
                self.repeats[row] += 1

    def _note_parts(self, session: np.ndarray, places: np.ndarray, mean: np.ndarray) -> None:
        """Count the voxels without a number of every trial, among voxels that have one in most trials."""
        missing = ~np.isfinite(session[:, ~np.isfinite(mean)])
        counts = missing[:, missing.mean(axis=0) < 0.5].sum(axis=1)
        self.partly |= {int(places[k]): int(counts[k]) for k in np.flatnonzero(counts)}

    def _find_twins(self, session: np.ndarray, places: np.ndarray, varies: np.ndarray) -> None:
        """Compare raw betas of trials by some voxels that vary: copied files and rows have all of them in common."""
        if self._compared is None:
            usable = np.flatnonzero(varies)
            self._compared = usable[:: max(1, len(usable) // COMPARED)][:COMPARED]
        if len(self._compared) < SOME:
            return
        for place, row in zip(places.tolist(), session[:, self._compared], strict=True):
            earlier = self._seen.setdefault(hash(row.tobytes()), place)
            if earlier != place:
                self.twins.append((place, earlier))

    def finish(self) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Return the averages (rows, kept voxels) float32, which voxels were kept (n_voxels,), and how many were
        dropped for which reason, each voxel counted for its first.  Rows of which every trial was missing are gone."""
        filled = self.repeats > 0
        if not filled.all():
            self.data, self.ids, self.repeats = self.data[filled], self.ids[filled], self.repeats[filled]
        self.data /= np.maximum(self.repeats, 1)[:, None].astype(np.float32)
        gone = np.zeros(self.data.shape[1], dtype=bool)
        dropped = {}
        for reason, bad in self._bad.items():
            if (bad & ~gone).any():
                dropped[reason] = int((bad & ~gone).sum())
            gone |= bad
        if gone.all():
            why = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
            raise NSDError(
                f"mask must have voxels with a signal in every session, got none of {len(gone)} (dropped: {why} in at "
                "least one session). Choose another mask, or leave sessions out."
            )
        return _compact(self.data, ~gone), ~gone, dropped


def _zscore(session: np.ndarray, mean: np.ndarray) -> None:
    """Each voxel of a session (trials, n_voxels) with mean 0 and deviation 1, in its own memory."""
    with np.errstate(invalid="ignore"):  # voxels with an infinite value are dropped in the end
        session -= mean.astype(np.float32)
        # the float32 mean is off by up to its last bit, which matters where the mean is far above the spread
        session -= session.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = np.sqrt(np.einsum("tv,tv->v", session, session, dtype=np.float64) / len(session))
        usable = np.isfinite(spread) & (spread > 0)
        session /= np.where(usable, spread, 1.0).astype(np.float32)


def trials_without_betas(session: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Which trials of a session (trials, n_voxels) have no betas, (trials,) bool.

    Programs write NaN, or 0 in every voxel, for trials that they cannot estimate.  A trial counts as such if most of
    the voxels that have numbers in other trials have none in it, or if all are 0.

    Parameters
    ----------
    session : (trials, n_voxels)
    mean : (n_voxels,)
        Over trials: where it is finite, nothing is looked for.
    """
    gone = _blank(session)
    if np.isfinite(mean).all():
        return gone
    finite = np.isfinite(session)
    alive = finite.any(axis=0)
    if not alive.any():
        return np.ones(len(session), dtype=bool)
    return gone | (finite[:, alive].mean(axis=1) < 0.5)


def _blank(session: np.ndarray) -> np.ndarray:
    """Which trials are 0 in every voxel, among voxels enough of which vary."""
    blank = np.logical_not(session[:, :SOME].any(axis=1))
    if blank.any():
        blank[blank] = ~session[blank].any(axis=1)
    # a single voxel may be 0 by chance
    if blank.any() and np.count_nonzero((session[~blank] != 0).any(axis=0)) < SOME:
        blank[:] = False
    return blank


def _check_enough(gone: np.ndarray, name: str) -> None:
    """Raise NSDError if a session has betas in less than half of its trials, or in one."""
    n = int(gone.sum())
    if n > len(gone) / 2 or len(gone) - n < 2:
        raise NSDError(
            f"session {name} must have betas in most of its trials, got none (NaN or 0) in {n} of {len(gone)}. "
            "Leave the session out, or estimate its betas again."
        )


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
        assembler.add(*read(), name=str(trials["session"].iloc[assembler.done]))
        if progress is not None:
            progress(number, len(readers), "sessions read")
    data, kept, dropped = assembler.finish()
    voxels = voxels[kept]
    notes = [*about.get("notes", []), *trial_notes(trials, assembler, about.get("stimulus_names"))]
    shared = shared_rows(trials.drop(index=trials.index[assembler.missing]), assembler.ids, average)
    if params.chooses_voxels and params.ceiling_from == "training":
        ceiling = training_ceiling(data, assembler.repeats, shared)
        best, note = chosen(ceiling, params, f"ROI {params.roi}", TRAINING)
        data, voxels = _compact(data, best), voxels[best]
        notes.append(note)
    about["noise_ceiling"] = noise_ceiling(data, assembler.repeats, shared, params.zscore)
    return Betas(data, assembler.ids, shared, assembler.repeats, voxels, dropped=dropped, **{**about, "notes": notes})


def trial_notes(trials: pd.DataFrame, assembler: Assembler, names: Sequence[str] | None = None) -> list[str]:
    """What the page says of single trials: without betas, without some, and with those of another one.

    Raises
    ------
    NSDError
        If a test image has no trial, or trials of different stimuli have the same betas.
    """
    notes = missing_notes(trials, assembler.missing, names)
    if 0 < len(assembler.partly) <= FEW_TRIALS:
        of = trials.iloc[list(assembler.partly)]["trial"]
        counted = ", ".join(f"{k} ({n})" for k, n in zip(of, assembler.partly.values(), strict=True))
        notes.append(f"trials that have no betas in some voxels, which were dropped for it: {counted} voxels")
    return notes + _twin_notes(trials, assembler.twins, names)


def _twin_notes(trials: pd.DataFrame, twins: Sequence[tuple[int, int]], names: Sequence[str] | None) -> list[str]:
    if not twins:
        return []
    later, earlier = (trials.iloc[list(places)] for places in zip(*twins, strict=True))
    differ = np.flatnonzero(later["stimulus_id"].to_numpy() != earlier["stimulus_id"].to_numpy())
    if differ.size:
        told = [_trial(rows.iloc[differ[0]], names) for rows in (later, earlier)]
        raise NSDError(
            f"trials of different stimuli must have betas of their own, got the same ones in every voxel of {told[0]} "
            f"and {told[1]} ({differ.size} such trials). Estimate them again, or take the copies out of the table of "
            "trials or their session out."
        )
    return [f"trials with the very betas of another of the same stimulus: {len(twins)} ({few(later['trial'])})"]


def _trial(row: pd.Series, names: Sequence[str] | None) -> str:
    stimulus = names[row["stimulus_id"]] if names else row["stimulus_id"]
    return f"trial {row['trial']} of session {row['session']} (stimulus {stimulus})"


def missing_notes(trials: pd.DataFrame, missing: Sequence[int], names: Sequence[str] | None = None) -> list[str]:
    """What the page says of trials without betas, and of the stimuli that have no other.

    Raises
    ------
    NSDError
        If a test image has no other: it could not be decoded.
    """
    if not missing:
        return []
    gone, kept = trials.iloc[list(missing)], trials.drop(index=trials.index[list(missing)])
    where = few(gone["trial"])
    notes = [f"trials without betas (NaN or 0) left out: {len(gone)} ({where})"]
    lost = gone[~gone["stimulus_id"].isin(kept["stimulus_id"]) & (gone["stimulus_id"] >= 0)]
    lost = lost.drop_duplicates("stimulus_id")
    labels = [names[one] if names else str(one) for one in lost["stimulus_id"]]
    tests = [label for label, test in zip(labels, lost["shared"], strict=True) if test]
    if tests:
        raise NSDError(
            f"test images must have a trial with betas, got none (NaN or 0) for {few(tests)} (trials {where}). "
            "Take these trials out of the trials table, or estimate their betas again."
        )
    return [*notes, f"stimuli without any other trial left out: {len(labels)} ({few(labels)})"] if labels else notes


def few(items: Iterable[Any], most: int = 10) -> str:
    """The first items, and whether there are more."""
    listed = list(map(str, items))
    return ", ".join(listed[:most]) + (" ..." if len(listed) > most else "")


def shared_rows(trials: pd.DataFrame, ids: np.ndarray, average: bool) -> np.ndarray:
    """Which rows of an assembled table are test images, (n_rows,) bool."""
    if not average:
        return trials.loc[trials["stimulus_id"] >= 0, "shared"].to_numpy(dtype=bool)
    by_image = trials.groupby("stimulus_id")["shared"].any()
    return by_image.loc[ids].to_numpy(dtype=bool)
