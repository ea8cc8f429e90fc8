"""From a subject's runs to betas: each group of runs is fitted into a file of its own, and these are joined.

The command line, the Nipype nodes and the plugin's engine call these; the bytes do not depend on who does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.base.files import fingerprint, make_folder
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5, reading_hdf5
from napari_neuraldiffuser.core.base.lock import held, output_lock
from napari_neuraldiffuser.core.base.names import bids_label
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.bold.read import read_run, temporal_snr, usable_voxels
from napari_neuraldiffuser.core.bold.report import write_reports
from napari_neuraldiffuser.core.bold.runs import BoldError, Run
from napari_neuraldiffuser.core.bold.survey import Survey, survey
from napari_neuraldiffuser.core.bold.write import BetaFiles, write_betas, write_mask, write_table
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.outputs.description import check_place
from napari_neuraldiffuser.core.params import BoldParams

MOST_LOST = 0.5
"""Share of the mask that may lack a signal in some run."""


@dataclass(frozen=True)
class Written:
    """What was written: the files that own scans are opened from, the report, and notes."""

    betas: Path
    mask: Path
    trials: Path
    page: Path
    dropped: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [path for path in (self.betas, self.mask, self.trials, self.page, self.dropped) if path]


def make_betas(
    runs: Sequence[Run],
    out_dir: str | Path,
    subject: str,
    params: BoldParams | None = None,
    progress: Progress | None = None,
    *,
    work_dir: str | Path | None = None,
    resume: bool = True,
    command: str = "",
) -> Written:
    """Single-trial betas of one subject's runs, with mask, table of trials and design report.

    Parameters
    ----------
    runs : sequence of Run
        `find_runs` finds those of a BIDS folder.
    out_dir : path
        Files go to `<out_dir>/sub-<label>/`.
    subject : str
        Label, with or without `sub-`.
    params : BoldParams, optional
    progress : callable, optional
        Called as progress(done, total, what); an exception that it raises stops the work, and finished runs are kept.
    work_dir : path, optional
        Betas of finished runs; `<out_dir>/work` where None.
    resume : bool
        Whether runs that were finished from the same files and choices are kept.
    command : str
        What the user typed, for the report.

    Raises
    ------
    BoldError, NSDError
        For what is missing or unreadable; nothing is written then.
    OutputError
        If a folder cannot be written, or `out_dir` is the data set of another program.
    BusyError
        If another process writes results of the subject to `out_dir`.
    """
    check_place(Path(out_dir))
    label, found = bids_label(subject), survey(runs, params or BoldParams())
    with held(*output_lock(out_dir, label)):
        return _make(found, Path(out_dir), label, work_dir, resume, command, progress or silent)


def _make(
    found: Survey,
    out_dir: Path,
    label: str,
    work_dir: str | Path | None,
    resume: bool,
    command: str,
    report: Progress,
) -> Written:
    """What `make_betas` does once everything is checked and the folder is its own."""
    files = BetaFiles(out_dir, label, found.params.estimator)
    make_folder(out_dir / label)
    work = make_folder(Path(work_dir or out_dir / "work") / label / f"betas-{found.params.estimator}")
    parts = [work / f"{found.name(group)}.h5" for group in range(len(found.groups))]
    todo = _unfinished(found, parts, Records(work, resume))
    _fit_all(found, parts, todo, Records(work, resume), report)
    return join(found, parts, files, report, command)


def _unfinished(found: Survey, parts: Sequence[Path], records: Records) -> list[int]:
    return [
        group
        for group, part in enumerate(parts)
        if not (records.resume and records.is_complete(part.stem, fingerprint(found.made_from(group)), [part]))
    ]


def _fit_all(found: Survey, parts: Sequence[Path], todo: list[int], records: Records, report: Progress) -> None:
    """Fit the groups that are not finished, in processes of their own where several are to run at once."""
    report(len(parts) - len(todo), len(parts), "runs fitted")
    if found.params.n_jobs > 1 and len(todo) > 1:
        from joblib import Parallel, delayed

        works = (delayed(_record)(found.alone(group), parts[group], records) for group in todo)
        done = Parallel(n_jobs=found.params.n_jobs, return_as="generator_unordered")(works)
    else:
        done = (_record(found.alone(group), parts[group], records, report) for group in todo)
    for finished, _ in enumerate(done, len(parts) - len(todo) + 1):
        report(finished, len(parts), "runs fitted")


def _record(group: Survey, part: Path, records: Records, report: Progress = silent) -> bool:
    return records.make(part.stem, group.made_from(0), [part], lambda: estimate(group, part, report))


def estimate(group: Survey, path: Path, progress: Progress | None = None) -> Path:
    """Fit the runs of one group, which `Survey.alone` or `survey_group` gives.

    It writes an HDF5 with `betas` (n_trials, n_voxels), `usable` and `tsnr`.

    Memory is the group's fitted volumes at the voxels of the mask, float32, and its betas.

    Raises
    ------
    BoldError, NSDError
        If volumes cannot be read or fitted.
    """
    report, params, designs = progress or silent, group.params, group.designs
    data = [read_run(design, group.voxels, params, report) for design in designs]
    usable = [usable_voxels(values, design, params) for values, design in zip(data, designs, strict=True)]
    tsnr = [temporal_snr(values, design, params) for values, design in zip(data, designs, strict=True)]
    betas = group.estimator.fit(designs, data, params, report)
    with creating_hdf5(path) as file:
        for name, values in (("usable", usable), ("tsnr", tsnr)):
            file.create_dataset(name, data=np.stack(values), track_times=False)
        file.create_dataset("betas", data=np.concatenate(betas), track_times=False)
    return path


def join(
    found: Survey, parts: Sequence[Path], files: BetaFiles, progress: Progress | None = None, command: str = ""
) -> Written:
    """Write the betas of all groups as one NIfTI, with mask, tables and report.

    Betas of before go first and the table of trials comes last: what is left when a disk fills up lacks one of them,
    and labels never stand beside the betas of other trials.

    Raises
    ------
    BoldError
        If most voxels lack a signal in some run.
    """
    report = progress or silent
    usable, tsnr = (np.concatenate(_read(found, parts, name)) for name in ("usable", "tsnr"))
    mask, notes = _final_mask(found, usable)
    inside = np.all(usable, axis=0)
    trials, dropped = found.trials, found.dropped
    for path in (files.betas, files.trials):
        path.unlink(missing_ok=True)
    write_mask(files.mask, mask, found.affine)
    files.dropped.unlink(missing_ok=True)
    if len(dropped):
        write_table(files.dropped, dropped)
    notes = [*found.notes, *notes]
    write_betas(files.betas, _volumes(found, parts, inside, len(trials), report), len(trials), mask, found.affine)
    write_reports(found, files, tsnr[:, inside], notes, command)
    write_table(files.trials, trials)
    return Written(files.betas, files.mask, files.trials, files.page, files.dropped if len(dropped) else None, notes)


def _run_order(found: Survey) -> list[tuple[int, int]]:
    """Group, and place in the group, of every run."""
    where = {run: (group, place) for group, runs in enumerate(found.groups) for place, run in enumerate(runs)}
    return [where[run] for run in range(len(found.designs))]


def _read(found: Survey, parts: Sequence[Path], name: str) -> list[np.ndarray]:
    """(1, n_voxels) of every run."""
    rows = []
    for group, place in _run_order(found):
        with reading_hdf5(parts[group], "betas of a run") as file:
            rows.append(file[name][place : place + 1])
    return rows


def _final_mask(found: Survey, usable: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The mask without the voxels that lack a signal in some run; `usable` is (n_runs, n_voxels)."""
    lost = int((~usable.all(axis=0)).sum())
    if lost > MOST_LOST * usable.shape[1]:
        worst = found.designs[int(usable.sum(axis=1).argmin())].run
        raise BoldError(
            f"voxels of the mask must have a signal in every run, got {lost} of {usable.shape[1]} without, most of "
            f"them in {worst.bold}. Check that run, or give a smaller --mask."
        )
    mask = found.mask.copy()
    mask[mask] = usable.all(axis=0)
    return mask, [f"{lost} voxels of the mask have no signal in some run: left out"] if lost else []


def _volumes(
    found: Survey, parts: Sequence[Path], inside: np.ndarray, n: int, report: Progress
) -> Iterator[np.ndarray]:
    """Betas of every trial in the order of the table, at the voxels that are usable."""
    done = 0
    for run, (group, place) in enumerate(_run_order(found)):
        before = sum(len(found.designs[k].trials) for k in found.groups[group][:place])
        with reading_hdf5(parts[group], "betas of a run") as file:
            for row in range(before, before + len(found.designs[run].trials)):
                yield file["betas"][row][inside]
        done += len(found.designs[run].trials)
        report(done, n, "trials written")
