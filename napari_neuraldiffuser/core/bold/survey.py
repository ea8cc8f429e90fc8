"""What the runs of a subject are, before any volume is read: their grid, mask, designs and held-out stimuli."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.files import array_digest, file_versions, fingerprint
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION
from napari_neuraldiffuser.core.base.registry import ESTIMATORS
from napari_neuraldiffuser.core.base.tables import add_flags
from napari_neuraldiffuser.core.bold.confounds import read_confounds
from napari_neuraldiffuser.core.bold.design import RunDesign, make_design
from napari_neuraldiffuser.core.bold.events import Events, check_types, read_events
from napari_neuraldiffuser.core.bold.linear import Estimator
from napari_neuraldiffuser.core.bold.runs import BoldError, Grid, Run, grid_of, open_run, timing
from napari_neuraldiffuser.core.nsd.betas import mask_voxels
from napari_neuraldiffuser.core.nsd.reading.captions import label_parts
from napari_neuraldiffuser.core.nsd.reading.volumes import check_grid, read_inside
from napari_neuraldiffuser.core.params import BoldParams

HOW_TEST = "Choose --test-rule column or repeats, or --test-rule none and mark them in the table of trials."


@dataclass
class Survey:
    """Everything but the volumes.

    Attributes
    ----------
    designs : list of RunDesign
        In the order of the runs.
    mask : (X, Y, Z) bool
        Voxels inside the mask of every run.
    affine : (4, 4) float
    params : BoldParams
    test_rule : str
        How held-out stimuli were found: column, repeats or none.
    notes : list of str
    """

    designs: list[RunDesign]
    mask: np.ndarray
    affine: np.ndarray
    params: BoldParams
    test_rule: str
    notes: list[str] = field(default_factory=list)

    @property
    def voxels(self) -> np.ndarray:
        """(n_voxels, 3) positions in the mask."""
        return mask_voxels(self.mask)

    @property
    def estimator(self) -> Estimator:
        """The one that the parameters name."""
        return ESTIMATORS[self.params.estimator]

    @property
    def groups(self) -> list[list[int]]:
        """Runs that are fitted together: one by one, or those of a session."""
        if not self.estimator.by_session:
            return [[k] for k in range(len(self.designs))]
        sessions = [design.run.session for design in self.designs]
        return [[k for k, one in enumerate(sessions) if one == name] for name in dict.fromkeys(sessions)]

    def alone(self, group: int) -> "Survey":
        """One group as it is fitted: its own runs, at the voxels inside every run's mask."""
        return replace(self, designs=[self.designs[k] for k in self.groups[group]], notes=[])

    def name(self, group: int) -> str:
        """Name of a group for files and messages."""
        runs = [self.designs[k].run for k in self.groups[group]]
        return f"ses-{runs[0].session}" + (f"_run-{runs[0].run}" if not self.estimator.by_session else "")

    def made_from(self, group: int) -> dict[str, Any]:
        """What decides the betas of a group."""
        runs = [self.designs[k].run for k in self.groups[group]]
        params = self.params.to_dict()
        params.pop("n_jobs")
        return {
            "version": ALGORITHM_VERSION,
            "files": file_versions(file for run in runs for file in run.files),
            "runs": [run.to_dict() for run in runs],
            "mask": array_digest(self.mask),
            "params": params,
        }

    @property
    def stamp(self) -> str:
        """Digest of names, sizes and times of all files, and of the choices."""
        return fingerprint([self.made_from(k) for k in range(len(self.groups))])

    @property
    def trials(self) -> pd.DataFrame:
        """A row per volume of the betas: what `core.nsd.user` reads, with onset, duration and design row beside."""
        parts = [_trial_rows(design) for design in self.designs]
        table = pd.concat(parts, ignore_index=True)
        table.insert(0, "trial", np.arange(len(table)))
        return table

    @property
    def dropped(self) -> pd.DataFrame:
        """Trials without betas: session, run, row of the events table, onset, stimulus, reason."""
        rows = [
            {"session": one.run.session, "run": one.run.run, **dropped}
            for one in self.designs
            for dropped in one.dropped
        ]
        return pd.DataFrame(rows, columns=["session", "run", "row", "onset", "stimulus", "reason"])


def _trial_rows(design: RunDesign) -> pd.DataFrame:
    trials = design.trials
    return pd.DataFrame(
        {
            "stimulus": trials["stimulus"],
            "session": design.run.session,
            "run": design.run.run,
            "test": trials["test"].astype(int),
            "onset": trials["onset"],
            "duration": trials["duration"],
        }
    )


def survey(runs: Sequence[Run], params: BoldParams) -> Survey:
    """Read headers, masks and tables of all runs, and check that they fit each other.

    Raises
    ------
    BoldError
        For what is missing, contradicts itself or cannot be estimated.
    NSDError
        For files that cannot be read, or lie on different grids.
    """
    if not runs:
        raise BoldError("runs must be given, got none. Give a BIDS folder or a table of runs.")
    counts: Counter[str] = Counter()
    designs, grid, every = _designs(runs, params)
    for events in every:
        # before a design drops those whose response it cannot see
        counts.update(events.trials["stimulus"])
        counts.update(one["stimulus"] for one in events.dropped)
    check_types(frozenset().union(*(events.types for events in every)), params, runs)
    _check_labels(counts)
    rule = mark_test(designs, counts, params.test_rule)
    _check_sessions(designs)
    found = Survey(designs, _joint_mask(runs, grid), np.asarray(grid[1]), params, rule)
    notes = _notes(found, sum(events.n_left for events in every))
    found.notes = [note for design in designs for note in design.notes] + notes
    if params.estimator == "glmsingle":
        from napari_neuraldiffuser.core.bold.single import common_step, need_glmsingle

        need_glmsingle()
        for group in range(len(found.groups)):
            common_step(found.alone(group).designs)
    return found


def survey_group(runs: Sequence[Run], mask: str | Path, params: BoldParams) -> Survey:
    """The same of one group, as `Survey.alone`, once `survey` has checked all runs, whose joint mask is `mask`.

    Which stimuli are held out is not known from some of the runs: their trials have no `test`.
    """
    designs, grid, _ = _designs(runs, params)
    inside, affine = read_inside(mask, "mask")
    check_grid("mask", (inside.shape, affine), grid, mask, "BOLD")
    return Survey(designs, inside, np.asarray(grid[1]), params, "none")


def _designs(runs: Sequence[Run], params: BoldParams) -> tuple[list[RunDesign], Grid, list[Events]]:
    """Design and events of every run, and the grid that they share."""
    designs, grids, every = [], [], []
    for run in runs:
        image = open_run(run)
        when = timing(run, image, params.tr)
        grids.append(grid_of(image))
        check_grid(f"BOLD of {run.name}", grids[-1], grids[0], run.bold, f"BOLD of {runs[0].name}")
        every.append(read_events(run, params, when.start + when.n * when.tr))
        designs.append(make_design(run, when, every[-1], read_confounds(run, params, when.n), params))
    return designs, grids[0], every


def _joint_mask(runs: Sequence[Run], grid: Grid) -> np.ndarray:
    """Voxels inside every mask."""
    inside = np.ones(grid[0], dtype=bool)
    for path in dict.fromkeys(run.mask for run in runs):
        values, affine = read_inside(path, "mask")
        check_grid(f"mask {path}", (values.shape, affine), grid, path, "BOLD")
        inside &= values
    if not inside.any():
        raise BoldError(f"masks of the runs must have voxels in common, got none in {len(runs)} runs. Check the masks.")
    return inside


def _check_labels(counts: Counter[str]) -> None:
    """Labels that differ by case or a picture's ending only name one picture twice, or cannot both be files."""
    seen: dict[str, str] = {}
    for label in counts:
        short = label_parts(label)[0].casefold()
        if short in seen:
            raise BoldError(
                f"stimuli must have distinct labels, got {seen[short]!r} and {label!r}. Write one picture in one way "
                "in all events tables."
            )
        seen[short] = label


def mark_test(designs: Sequence[RunDesign], counts: Counter[str], rule: str) -> str:
    """Give every trial its `test`, True or False, and return the rule that was used.

    Parameters
    ----------
    designs : sequence of RunDesign
    counts : Counter
        How often each stimulus was shown, trials without betas included.
    rule : str
        `BoldParams.test_rule`. Of a stimulus that the column marks, n/a in other rows says nothing; one with n/a only
        is not held out.
    """
    told: dict[str, bool] = {}
    for design in designs:
        add_flags(told, design.trials["stimulus"], design.trials["test"], design.run.events, BoldError)
    by_column = any(told.values())
    if rule == "column" and not by_column:
        raise BoldError("the test column must mark some stimuli with 1, got none. " + HOW_TEST)
    most, least = max(counts.values()), min(counts.values())
    if by_column and rule in ("auto", "column"):
        test, used = {label for label, flag in told.items() if flag}, "column"
    elif rule == "none":
        test, used = set(), "none"
    elif most > least:
        test, used = {label for label, n in counts.items() if n == most}, "repeats"
    else:
        raise BoldError(
            f"some stimuli must be shown more often than the others to be held out, got all {len(counts)} shown "
            f"{most} times. {HOW_TEST}"
        )
    if used != "none" and len(test) == len(counts):
        raise BoldError(f"stimuli must be left for training, got all {len(counts)} held out. {HOW_TEST}")
    for design in designs:
        design.trials["test"] = design.trials["stimulus"].isin(test)
    return used


def _check_sessions(designs: Sequence[RunDesign]) -> None:
    trials: Counter[str] = Counter()
    for design in designs:
        trials[design.run.session] += len(design.trials)
    small = [name for name, n in trials.items() if n < 2]
    if small:
        raise BoldError(
            f"sessions must have two usable trials at least, got fewer in {', '.join(small)}. Leave it out."
        )


def _notes(found: Survey, n_left: int) -> list[str]:
    notes, dropped = [], found.dropped
    if n_left:
        notes.append(f"{n_left} events name no stimulus or are no trials: they get no betas")
    if len(dropped):
        notes.append(f"{len(dropped)} of {len(dropped) + len(found.trials)} trials have no betas, see the list")
    rates = sorted({round(design.timing.tr, 4) for design in found.designs})
    if len(rates) > 1:
        notes.append(f"repetition times differ between runs: {', '.join(f'{one:g} s' for one in rates)}")
    if found.test_rule == "none":
        notes.append("no stimulus is held out: the table of trials has no 1 in column test")
    return notes
