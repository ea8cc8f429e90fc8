"""The simulated experiment in the scanner: which image is shown when, run by run."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.nsd.reading.design import N_STIMULI
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.params import BoldSimulationParams

LEAD_IN, TAIL = 8.0, 16.0
"""Seconds of a run before its first trial and after its last one began."""
BLANKS = 0.1
"""Share of blank trials, in which nothing is shown: they tell the response from the mean."""
TEST_REPEATS = 3


@dataclass(frozen=True)
class ScanRun:
    """One run: `session` and `run` 1-based, `events` a row per trial and blank, `n_volumes`."""

    session: int
    run: int
    events: pd.DataFrame
    n_volumes: int

    @property
    def trials(self) -> pd.DataFrame:
        """Rows with an image: onset, duration, trial_type, stim_file, test, image (0-based 73k id)."""
        return self.events[self.events["image"] >= 0].reset_index(drop=True)


def make_runs(params: BoldSimulationParams) -> list[ScanRun]:
    """Draw images, their order and the blanks from the seed; the same for every subject.

    Raises
    ------
    NSDError
        If the runs have too few trials for the test images.
    """
    rng = np.random.default_rng([params.seed, 20])
    n = params.n_sessions * params.n_runs * params.n_trials
    left = n - TEST_REPEATS * params.n_test
    if left < params.train_repeats:
        raise NSDError(
            f"n_test must leave trials for training, got {params.n_test} test images x {TEST_REPEATS} in {n} trials. "
            "Raise n_sessions, n_runs or n_trials, or lower n_test."
        )
    n_train = -(-left // params.train_repeats)
    ids = rng.permutation(N_STIMULI)[: params.n_test + n_train]
    train = np.repeat(ids[params.n_test :], params.train_repeats)[:left]
    order = rng.permutation(np.concatenate([np.repeat(ids[: params.n_test], TEST_REPEATS), train]))
    held_out = set(ids[: params.n_test].tolist())
    parts = order.reshape(params.n_sessions * params.n_runs, params.n_trials)
    return [
        _run(k // params.n_runs + 1, k % params.n_runs + 1, part, held_out, params, rng) for k, part in enumerate(parts)
    ]


def label_of(image: int) -> str:
    """File name of an image's picture."""
    return f"scene{image:05d}.png"


def _run(
    session: int,
    run: int,
    images: np.ndarray,
    held_out: set[int],
    params: BoldSimulationParams,
    rng: np.random.Generator,
) -> ScanRun:
    n_blank = round(BLANKS * len(images))
    shown = np.insert(images, np.sort(rng.choice(np.arange(1, len(images)), n_blank, replace=False)), -1)
    onset = LEAD_IN + params.trial_spacing * np.arange(len(shown))
    seen = shown >= 0
    events = pd.DataFrame(
        {
            "onset": onset,
            "duration": params.trial_duration,
            "trial_type": np.where(seen, "scene", "blank"),
            "stim_file": [label_of(one) if one >= 0 else None for one in shown.tolist()],
            "test": [int(one in held_out) if one >= 0 else None for one in shown.tolist()],
            "image": shown,
        }
    )
    events["test"] = events["test"].astype("Int64")
    return ScanRun(session, run, events, int(np.ceil((onset[-1] + TAIL) / params.tr)))
