"""The model of one run: responses of its trials, and everything else that moves the signal."""

import warnings
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.bold.confounds import Confounds
from napari_neuraldiffuser.core.bold.events import Events
from napari_neuraldiffuser.core.bold.runs import BoldError, Run, Timing
from napari_neuraldiffuser.core.params import BoldParams

LEAST_SEEN = 0.5
"""Share of a response's energy that must fall into fitted volumes; a trial with less gets no betas."""
LEFT_OVER = 0.02
"""Share above which the response of a trial without betas stays in the model."""
FINE = 0.1
"""Seconds between samples of a response whose peak and energy are measured."""
RESPONSE_SECONDS = 40.0


@dataclass
class RunDesign:
    """Regressors of one run at its fitted volumes.

    Attributes
    ----------
    run : Run
    timing : Timing
    keep : (n_volumes,) bool
        Volumes that are fitted; the regressors have one row for each.
    trials : DataFrame
        As of `Events`, those that get betas.
    responses : (n_trials, k, n_fitted) float64
        Regressor of each trial, its largest value 1 for a response that is seen whole, and its derivative if k is 2.
    nuisance : DataFrame
        Drift, constant, confounds, other events.
    dropped : list of dict
        Trials without betas, and why.
    displacement : (n_volumes,) float or None
    notes : list of str
    """

    run: Run
    timing: Timing
    keep: np.ndarray
    trials: pd.DataFrame
    responses: np.ndarray
    nuisance: pd.DataFrame
    dropped: list[dict[str, Any]] = field(default_factory=list)
    displacement: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @cached_property
    def basis(self) -> np.ndarray:
        """Orthonormal columns (n_fitted, p) that span the nuisance."""
        columns = self.nuisance.to_numpy(dtype=np.float64)
        size = np.linalg.norm(columns, axis=0)
        u, s, _ = np.linalg.svd(columns[:, size > 0] / size[size > 0], full_matrices=False)
        return u[:, s > 1e-9 * s[0]]

    def cleaned(self, rows: np.ndarray) -> np.ndarray:
        """Rows (..., n_fitted) without what the nuisance explains of them."""
        return rows - (rows @ self.basis) @ self.basis.T

    @property
    def matrix(self) -> pd.DataFrame:
        """The whole design matrix: a column per trial, then the nuisance."""
        names = [f"trial {k}" for k in range(len(self.trials))]
        return pd.concat([pd.DataFrame(self.responses[:, 0].T, columns=names), self.nuisance], axis=1)


def make_design(run: Run, timing: Timing, events: Events, confounds: Confounds, params: BoldParams) -> RunDesign:
    """Regressors of a run, by nilearn's first-level design matrix.

    Raises
    ------
    BoldError
        If no trial can be estimated, or one is longer than the run.
    """
    _check_durations(run, timing, events.trials)
    matrix = _first_level(timing, events, confounds, params)
    trials = events.trials
    derivative = ["", "_derivative"] if "derivative" in params.hrf_model else [""]
    peaks = np.array([response(params.hrf_model, d)[0] for d in trials["duration"]])
    energies = np.array([response(params.hrf_model, d)[1] for d in trials["duration"]]) / timing.tr
    names = [[name + end for end in derivative] for name in trial_names(len(trials))]
    responses = np.array([matrix[pair].to_numpy().T for pair in names]).reshape(len(trials), len(derivative), -1)
    responses = responses[:, :, confounds.keep] / peaks[:, None, None]
    seen = (responses[:, 0] ** 2).sum(axis=1) / energies
    usable = seen >= LEAST_SEEN
    dropped = [*events.dropped, *_unseen(trials, usable, seen)]
    if not usable.any():
        raise _no_response(run, timing, trials, seen)
    nuisance = matrix.drop(columns=[name for pair in names for name in pair])[confounds.keep]
    for k in np.flatnonzero(~usable & (seen > LEFT_OVER)):
        nuisance[f"unused trial, row {trials['row'][k]}"] = responses[k, 0]
    return RunDesign(
        run, timing, confounds.keep, trials[usable].reset_index(drop=True), responses[usable],
        nuisance.reset_index(drop=True), dropped, confounds.displacement, [*events.notes, *confounds.notes],
    )  # fmt: skip


def _check_durations(run: Run, timing: Timing, trials: pd.DataFrame) -> None:
    """Before responses are computed at all: those of durations in milliseconds would take minutes."""
    longest, length = int(trials["duration"].argmax()), timing.n * timing.tr
    if trials["duration"][longest] > length:
        raise BoldError(
            f"{run.name} must have trials shorter than its {length:g} s, got {trials['duration'][longest]:g} s in row "
            f"{trials['row'][longest]} of {run.events}. Check that durations are in seconds."
        )


def _no_response(run: Run, timing: Timing, trials: pd.DataFrame, seen: np.ndarray) -> BoldError:
    """The error for a run whose trials cannot be seen; it names the trial that is seen most."""
    best = int(seen.argmax())
    row, onset, duration = (trials[name][best] for name in ("row", "onset", "duration"))
    return BoldError(
        f"{run.name} must have trials whose responses are in its {timing.n * timing.tr:g} s, got none of {len(trials)} "
        f"in {run.events}: row {row} at {onset:g} s for {duration:g} s has {max(seen[best], 0):.0%} of its response in "
        "volumes that are fitted. Check that onsets and durations are in seconds, from the first volume."
    )


def trial_names(n: int) -> list[str]:
    """Names of the trials in nilearn's design matrix."""
    return [f"trial{k:05d}" for k in range(n)]


def _first_level(timing: Timing, events: Events, confounds: Confounds, params: BoldParams) -> pd.DataFrame:
    from nilearn.glm.first_level import make_first_level_design_matrix

    own = events.trials[["onset", "duration"]].assign(trial_type=trial_names(len(events.trials)))
    other = events.others.assign(trial_type="other_" + events.others["trial_type"].astype(str))
    with warnings.catch_warnings():
        # of events without duration or response, which are told of in words of our own
        warnings.simplefilter("ignore")
        return make_first_level_design_matrix(
            timing.frames,
            pd.concat([own, other], ignore_index=True),
            hrf_model=params.hrf_model,
            drift_model=None if params.drift == "none" else params.drift,
            high_pass=params.high_pass,
            drift_order=params.drift_order,
            add_regs=confounds.table if len(confounds.table.columns) else None,
        ).reset_index(drop=True)


@lru_cache(maxsize=4096)
def response(hrf_model: str, duration: float) -> tuple[float, float]:
    """Largest value of the response to one trial, and the integral over time of its square at a peak of 1 (s)."""
    from nilearn.glm.first_level import compute_regressor

    frames = np.arange(0, RESPONSE_SECONDS + duration, FINE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curve = compute_regressor(np.array([[0.0], [duration], [1.0]]), hrf_model.split(" ")[0], frames)[0][:, 0]
    peak = float(curve.max())
    return peak, float(((curve / peak) ** 2).sum() * FINE)


def _unseen(trials: pd.DataFrame, usable: np.ndarray, seen: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "row": int(trials["row"][k]),
            "onset": float(trials["onset"][k]),
            "stimulus": trials["stimulus"][k],
            "reason": f"only {max(seen[k], 0):.0%} of its response is in volumes that are fitted",
        }
        for k in np.flatnonzero(~usable)
    ]
