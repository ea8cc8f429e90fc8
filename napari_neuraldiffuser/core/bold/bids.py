"""Finds the runs of a subject in BIDS folders: preprocessed BOLD, masks and confounds in derivatives, events there or
in the raw data set.  Files are matched by the entities of their names, and tables by BIDS's inheritance."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from napari_neuraldiffuser.core.base.files import located
from napari_neuraldiffuser.core.bold.runs import BoldError, Run
from napari_neuraldiffuser.core.bold.tables import read_whole

NIFTI = (".nii.gz", ".nii")
BOLD = "sub-*_desc-preproc_bold"
CONFOUNDS = ("desc-confounds_timeseries.tsv", "desc-confounds_regressors.tsv")
"""Of fMRIPrep today and before 20.2."""
DERIVED = ("space", "res", "den", "desc", "cohort")
"""Entities that preprocessing adds: events have none of them."""
TABLE_COLUMNS = ("bold", "events", "confounds", "mask", "session", "run", "task")

Entities = dict[str, str]


def entities(name: str) -> Entities:
    """Entity to label of a BIDS file name, such as {"sub": "01", "run": "2"}."""
    return dict(re.findall(r"(?:^|_)([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)(?=[_.]|$)", name))


def participants(folder: str | Path) -> list[str]:
    """Labels of the subjects that have preprocessed BOLD in a BIDS folder.

    Raises
    ------
    BoldError
        If there is none, with what is there instead.
    """
    root = derivatives_root(folder)
    return sorted({entities(path.name)["sub"] for path in _bold_files(root)})


def find_runs(
    folder: str | Path,
    participant: str,
    *,
    events_dir: str | Path = "",
    space: str = "",
    task: str = "",
    mask: str = "",
) -> list[Run]:
    """The runs of one subject, by session and run.

    Parameters
    ----------
    folder : path
        BIDS derivatives (fMRIPrep's layout), or a BIDS folder that has them in `derivatives/`; or a table of runs
        (.tsv) with the columns of `Run`, its paths relative to it.
    participant : str
        Label, with or without `sub-`.
    events_dir : path
        Raw BIDS folder with the events; found where they lie in the derivatives or the derivatives in it.
    space, task : str
        Which, where there are several.
    mask : str
        A mask for all runs instead of their own.

    Raises
    ------
    BoldError
        For what is missing or ambiguous.
    """
    if str(folder).lower().endswith(".tsv"):
        return runs_of_table(folder, mask)
    root, label = derivatives_root(folder), participant.removeprefix("sub-")
    found = [path for path in _bold_files(root) if entities(path.name)["sub"] == label]
    if not found:
        raise BoldError(
            f"participant must be one of {participants(folder)} in {root}, got {label!r}. Choose one of them."
        )
    found = _of_space(found, space, root)
    roots = _event_roots(root, Path(folder), events_dir)
    found = _of_task(found, task, roots)
    _check_distinct(found)
    runs = [_run(path, roots, mask) for path in found]
    return sorted(runs, key=lambda run: (_order(run.session), _order(run.run), run.bold))


def derivatives_root(folder: str | Path) -> Path:
    """The folder that holds `sub-*` with preprocessed BOLD: itself, or the one below its `derivatives`."""
    root = Path(located(folder))
    if not root.is_dir():
        raise BoldError(f"BIDS folder must be an existing folder, got {folder}. Give the derivatives of fMRIPrep.")
    if _bold_files(root):
        return root
    below = [path for path in sorted((root / "derivatives").glob("*")) if path.is_dir() and _bold_files(path)]
    if len(below) > 1:
        names = ", ".join(path.name for path in below)
        raise BoldError(f"BIDS folder must hold one set of preprocessed BOLD, got {names} in {root}. Give one of them.")
    if below:
        return below[0]
    if root.name.startswith("sub-"):
        raise BoldError(
            f"BIDS folder must hold sub-XX, got {root}, which is one of them. Give the folder above it, {root.parent}, "
            f"with --participant-label {root.name.removeprefix('sub-')}."
        )
    surface = next(root.rglob("sub-*_bold.func.gii"), None) or next(root.rglob("sub-*_bold.dtseries.nii"), None)
    instead = f"only surfaces such as {surface.name}" if surface else "none"
    raise BoldError(
        f"BIDS folder must hold preprocessed BOLD, sub-*/func/*_desc-preproc_bold.nii.gz, got {instead} in {root}. "
        "Run fMRIPrep with a volume space such as T1w, or give a table of runs (docs/own-scans.md)."
    )


def _bold_files(root: Path) -> list[Path]:
    places = ("sub-*/func", "sub-*/ses-*/func")
    found = [path for place in places for suffix in NIFTI for path in root.glob(f"{place}/{BOLD}{suffix}")]
    return sorted(found)


def space_of(path: Path) -> str:
    """Space of a file by its name, with its resolution; `native` where it names none."""
    found = entities(path.name)
    return found.get("space", "native") + (f":res-{found['res']}" if "res" in found else "")


def _of_space(found: list[Path], space: str, root: Path) -> list[Path]:
    spaces = sorted({space_of(path) for path in found})
    if space and space not in spaces:
        raise BoldError(f"space must be one of {spaces} in {root}, got {space!r}. Choose one of them.")
    if not space and len(spaces) > 1:
        raise BoldError(f"BOLD must be of one space, got {', '.join(spaces)} in {root}. Choose one as space (--space).")
    return [path for path in found if space_of(path) == (space or spaces[0])]


def _of_task(found: list[Path], task: str, roots: list[Path]) -> list[Path]:
    """The runs of one task; rest has no events and is not asked about."""
    tasks = sorted({entities(path.name).get("task", "") for path in found})
    if task and task not in tasks:
        raise BoldError(f"task must be one of {tasks}, got {task!r}. Choose one of them.")
    if not task and len(tasks) > 1:
        with_events = {entities(path.name).get("task", "") for path in found if inherited(path, roots, "events.tsv")}
        tasks = sorted(with_events) or tasks
        if len(tasks) > 1:
            raise BoldError(f"BOLD must be of one task, got {', '.join(tasks)}. Choose one as task (--task).")
    wanted = task or tasks[0]
    return [path for path in found if entities(path.name).get("task", "") == wanted]


def _event_roots(root: Path, folder: Path, events_dir: str | Path) -> list[Path]:
    """Where events may be: the given folder, else the derivatives and the data set that they lie in."""
    if events_dir:
        given = Path(located(events_dir))
        if not given.is_dir():
            raise BoldError(f"events folder must be an existing folder, got {events_dir}. Give the raw BIDS folder.")
        return [given]
    raw = [one for one in (Path(located(folder)), *root.parents[:2]) if any(one.glob("sub-*")) or one == root.parent]
    return list(dict.fromkeys([root, *raw]))


def inherited(path: Path, roots: Iterable[Path], suffix: str) -> list[Path]:
    """Files of a suffix that apply to a BOLD file by BIDS's inheritance, the most specific first."""
    wanted = {key: value for key, value in entities(path.name).items() if key not in DERIVED}
    levels: tuple[str, ...] = ("", f"sub-{wanted['sub']}")
    levels += tuple(f"sub-{wanted['sub']}/ses-{wanted['ses']}" for _ in range("ses" in wanted))
    levels += (f"{levels[-1]}/func",)
    found = []
    for root in roots:
        for depth, level in enumerate(levels):
            for one in sorted((root / level).glob(f"*{suffix}")):
                known = entities(one.name)
                if (
                    one.name.endswith(f"_{suffix}")
                    and not set(known) & set(DERIVED)
                    and known.items() <= wanted.items()
                ):
                    found.append((-depth, -len(known), str(one)))
    return [Path(one) for _, _, one in sorted(found)]


def _run(path: Path, roots: list[Path], mask: str) -> Run:
    known = entities(path.name)
    events = inherited(path, roots, "events.tsv")
    if not events:
        places = ", ".join(map(str, roots))
        raise BoldError(
            f"events of {path.name} must be a table *_events.tsv of its entities, got none in {places}. "
            "Give the raw BIDS folder with --events-dir."
        )
    return Run(
        bold=str(path),
        events=str(events[0]),
        confounds=_confounds(path),
        mask=mask or _mask(path),
        session=known.get("ses", "1"),
        run=known.get("run", "1"),
        task=known.get("task", ""),
        more=tuple(map(str, inherited(path, roots, "bold.json"))),
    )


def _confounds(path: Path) -> str:
    kept = "_".join(f"{key}-{value}" for key, value in entities(path.name).items() if key not in DERIVED)
    return next((str(one) for end in CONFOUNDS if (one := path.with_name(f"{kept}_{end}")).is_file()), "")


def _mask(path: Path) -> str:
    stem = path.name.split("_desc-preproc")[0]
    found = [path.with_name(f"{stem}_desc-brain_mask{suffix}") for suffix in NIFTI]
    mask = next((one for one in found if one.is_file()), None)
    if mask is None:
        raise BoldError(f"mask of {path.name} must be beside it, got no {found[0].name}. Give one for all with --mask.")
    return str(mask)


def _check_distinct(found: list[Path]) -> None:
    seen: dict[tuple[str, ...], Path] = {}
    for path in found:
        known = entities(path.name)
        key = tuple(known.get(name, "") for name in ("ses", "run"))
        if key in seen:
            raise BoldError(
                f"runs must have labels of their own, got {seen[key].name} and {path.name} as one run. Move one of "
                "them away, or list the runs in a table (docs/own-scans.md)."
            )
        seen[key] = path


def _order(label: str) -> tuple[int, str]:
    return (int(label), "") if label.isdigit() else (10**9, label)


def runs_of_table(path: str | Path, mask: str = "") -> list[Run]:
    """Runs that a table lists, a row each: the columns of `Run`, of which bold and events must be there."""
    table = read_whole(path, ("bold", "events"))
    unknown = [name for name in table.columns if name not in TABLE_COLUMNS]
    if unknown:
        raise BoldError(f"table of runs must have columns among {list(TABLE_COLUMNS)}, got {unknown} in {path}.")
    base = Path(located(path)).parent
    runs = [_row_run(row, number, base, mask, path) for number, row in enumerate(table.to_dict("records"), 1)]
    names = [run.name for run in runs]
    double = next((name for name in names if names.count(name) > 1), None)
    if double:
        raise BoldError(f"table of runs must name each session and run once, got {double} twice in {path}.")
    return runs


def _row_run(row: dict[str, str], number: int, base: Path, mask: str, path: str | Path) -> Run:
    given = {name: value for name, value in row.items() if not pd.isna(value)}
    files: dict[str, str] = {
        name: str(base / given[name]) for name in ("bold", "events", "confounds", "mask") if name in given
    }
    if mask:
        files["mask"] = mask
    missing = next((name for name in ("bold", "events", "mask") if name not in files), None)
    if missing:
        raise BoldError(f"table of runs must give {missing} in every row, got none in row {number} of {path}. Add it.")
    absent = next((name for name, file in files.items() if not Path(file).is_file()), None)
    if absent:
        raise BoldError(
            f"table of runs must name existing files, got {absent} {files[absent]} in row {number} of {path}."
        )
    labels: dict[str, str] = {name: given[name] for name in ("session", "run", "task") if name in given}
    return Run.from_dict({**files, "run": str(number), **labels})
