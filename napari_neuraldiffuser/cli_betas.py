"""`neuraldiffuser betas`, from BOLD to single-trial betas, and `simulate --bold`, which writes BOLD to try it on."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from napari_neuraldiffuser.cli_options import add_params, given
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.cli_run import Commands, command
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.params import BoldParams, BoldSimulationParams, SimulationParams

if TYPE_CHECKING:
    from napari_neuraldiffuser.core.bold import Run

OPTIONS = tuple(f.name for f in fields(BoldParams))
SCANNER = tuple(sorted({f.name for f in fields(BoldSimulationParams)} - {f.name for f in fields(SimulationParams)}))
"""Options that mean something for simulated BOLD only."""


def add_betas(commands: Commands) -> None:
    """Add the command `betas`."""
    about = "preprocessed BOLD and events to single-trial betas, mask and table of trials"
    parser = command(commands, "betas", betas, about)
    parser.add_argument(
        "bids_dir",
        type=Path,
        metavar="BIDS_DIR|RUNS.tsv",
        help="derivatives of fMRIPrep, or a BIDS folder that has them; or a table of runs (docs/own-scans.md)",
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", help="default: every subject of BIDS_DIR")
    parser.add_argument("--events-dir", default="", metavar="DIR", help="raw BIDS folder, where events are not found")
    parser.add_argument("--space", default="", help="of the BOLD, where there are several, such as T1w")
    parser.add_argument("--task", default="", help="where several tasks have events")
    parser.add_argument("--mask", default="", metavar="FILE", help="for all runs, instead of their own")
    parser.add_argument("--work-dir", type=Path, help="betas of finished runs (default: OUT_DIR/work)")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="keep finished runs")
    add_params(parser, BoldParams, OPTIONS)


def betas(args: argparse.Namespace) -> int:
    """Estimate betas of the participants, one after another; 1 where some failed and others did not.

    What all of them lack is told before the first is fitted.
    """
    from napari_neuraldiffuser.core.bold import participants, survey

    table = args.bids_dir.name.lower().endswith(".tsv")
    labels = args.participant_label or (["01"] if table else participants(args.bids_dir))
    if table and len(labels) > 1:
        raise UserError(f"--participant-label must be one label for a table of runs, got {len(labels)}.")
    params, labels = BoldParams(**given(args, BoldParams, OPTIONS)), list(dict.fromkeys(labels))
    alone = len(labels) == 1
    ready = labels if alone else _that_work(args, labels, lambda label: survey(_runs(args, label), params))
    done = _that_work(args, ready, lambda label: _one(args, label, params), alone)
    return 0 if done == labels else 1 if done else 2


def _that_work(
    args: argparse.Namespace, labels: list[str], work: Callable[[str], object], alone: bool = False
) -> list[str]:
    """Do something for each participant; the labels of those for whom nothing was wrong, the others are told of."""
    done = []
    for label in labels:
        try:
            work(label)
            done.append(label)
        except UserError as error:
            if alone or args.debug:
                raise
            print(f"neuraldiffuser: {label}: {error}", file=sys.stderr)
    return done


def _runs(args: argparse.Namespace, label: str) -> "list[Run]":
    from napari_neuraldiffuser.core.bold import find_runs

    return find_runs(args.bids_dir, label, events_dir=args.events_dir, space=args.space, task=args.task, mask=args.mask)


def _one(args: argparse.Namespace, label: str, params: BoldParams) -> None:
    from napari_neuraldiffuser.core.bold import make_betas

    progress = ConsoleProgress()
    written = make_betas(
        _runs(args, label),
        args.out_dir,
        label,
        params,
        progress,
        work_dir=args.work_dir,
        resume=args.resume,
        command=args.typed,
    )
    progress.close()
    for note in written.notes:
        print(note, file=sys.stderr)
    for path in written.paths:
        print(path)


def add_bold_simulation(parser: argparse.ArgumentParser) -> None:
    """Options of `simulate` that write a BIDS data set instead of betas."""
    parser.add_argument("--bold", action="store_true", help="write BOLD in BIDS instead, for the command betas")
    add_params(parser, BoldSimulationParams, SCANNER)


def simulate_bold(args: argparse.Namespace, shared: tuple[str, ...]) -> int:
    """Write simulated scans; `shared` are the options of `simulate` that hold here too."""
    from napari_neuraldiffuser.core.nsd.simulation.bold.files import write_bold_subjects

    params = BoldSimulationParams(**given(args, BoldSimulationParams, shared + SCANNER))
    progress = ConsoleProgress()
    write_bold_subjects(args.nsd_dir, params, progress)
    progress.close()
    print(args.nsd_dir)
    return 0


def check_scanner_options(args: argparse.Namespace) -> None:
    """Options of the scanner without --bold would be dropped in silence."""
    lost = [f"--{name.replace('_', '-')}" for name in SCANNER if hasattr(args, name)]
    if lost:
        raise UserError(f"{', '.join(lost)} must stand beside --bold, got none. Add --bold, or leave them out.")
