"""The command line: `neuraldiffuser demo | simulate | betas | pretrain | tune | run | crossval | evaluate | doctor`.

Exit status: 0 done; 1 some stimuli, nodes or subjects failed, the machine lacked something, or the doctor found a
problem; 2 bad input or usage; 130 interrupted; 141 nobody read the output any more, as behind `| head`.  Progress goes
to stderr, stdout has the paths of what was written.
"""

import argparse
import os
import select
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.cli_betas import add_betas, add_bold_simulation, check_scanner_options, simulate_bold
from napari_neuraldiffuser.cli_crossval import add_crossval
from napari_neuraldiffuser.cli_evaluate import add_evaluate
from napari_neuraldiffuser.cli_options import add_params, given
from napari_neuraldiffuser.cli_pretrain import add_pretrain
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.cli_run import OWN_FILES as OWN_FILES
from napari_neuraldiffuser.cli_run import Commands, add_run, add_run_options, command, job_of
from napari_neuraldiffuser.cli_tune import add_tune
from napari_neuraldiffuser.core.base.errors import UserError, said
from napari_neuraldiffuser.core.base.files import full_disk, is_full
from napari_neuraldiffuser.core.base.remedies import machines_remedy
from napari_neuraldiffuser.core.params import SimulationParams

if TYPE_CHECKING:
    from napari_neuraldiffuser.core.job.spec import Job

READER_GONE = 141
"""As a shell tells of a program that SIGPIPE ended."""
SIMULATION_OPTIONS = tuple(f.name for f in fields(SimulationParams))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    ended: SystemExit | None = None
    try:
        status = _main(argv)
    except SystemExit as end:  # of argparse, which has printed something, too
        status, ended = 0, end
    except BrokenPipeError:
        if not any(map(_unread, (sys.stdout, sys.stderr))):
            raise
        status = READER_GONE
    # what is still to be written is told here, and not when Python ends
    lost, _ = _let_go(sys.stdout), _let_go(sys.stderr)
    if ended and not lost:
        raise ended
    return READER_GONE if lost else status


def _unread(stream: TextIO | None) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)  # type: ignore[union-attr]  # None has no fileno either
    except (AttributeError, OSError, ValueError):
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _let_go(stream: TextIO | None) -> bool:
    """Write what is left; where nobody reads it, let the stream lead nowhere, and say so."""
    try:
        if stream:
            stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]
        return True
    return False


def _main(argv: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    args.typed = shlex.join(["neuraldiffuser", *argv])
    try:
        status = args.command(args)
        if sys.stdout:
            sys.stdout.flush()  # a disk that is full is told below
        return status
    except UserError as error:
        if args.debug:
            raise
        print(f"neuraldiffuser: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nneuraldiffuser: interrupted; the same command continues where it stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        wanting = _full(error) if is_full(error) else machines_remedy(error)
        if args.debug or not wanting or isinstance(error, BrokenPipeError):
            raise
        print(f"neuraldiffuser: {said(error)}; {wanting}", file=sys.stderr)
        return 1


def _full(error: Exception) -> str:
    """What is full: the disk of the file that the error names, or where standard output goes."""
    if name := getattr(error, "filename", None):
        return full_disk(name)
    try:
        print(flush=True)  # a stream that has failed may have thrown away what it could not write
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "standard output goes to a full disk. Free space there, or send it elsewhere."
    return full_disk(Path.cwd())


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="neuraldiffuser", description="See what a person saw, from the person's fMRI."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_simulate(commands)
    add_betas(commands)
    add_pretrain(commands)
    add_tune(commands)
    add_run(commands)
    add_crossval(commands)
    add_evaluate(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    parser = command(commands, "demo", demo, "the whole job on a simulated subject with the bundled models")
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path("demo_output"), help="default: %(default)s")
    add_run_options(parser, "demo")


def _add_simulate(commands: Commands) -> None:
    parser = command(commands, "simulate", simulate, "write simulated subjects in NSD's own formats")
    parser.add_argument("nsd_dir", type=Path)
    parser.add_argument("--subjects", type=int, dest="n_subjects", default=argparse.SUPPRESS, help="how many subjects")
    add_params(parser, SimulationParams, SIMULATION_OPTIONS[1:])
    add_bold_simulation(parser)


def _add_doctor(commands: Commands) -> None:
    parser = command(commands, "doctor", doctor, "versions, kernel backend and why, GPU, model folder")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--models", default="demo", help="model folder or hub id to check (default: %(default)s)")
    parser.add_argument("--guide", help="CLIP vision model, where the model folder has no image_encoder")


def _run_jobs(jobs: Iterable["Job"]) -> int:
    from napari_neuraldiffuser.core.job.run import run_subject

    progress, failed = ConsoleProgress(), 0
    for job in jobs:
        for sentence in job.told:
            print(f"neuraldiffuser: {sentence}", file=sys.stderr)
        result = run_subject(job, progress)
        progress.close()
        print(result.page)
        print(result.summary)
        for note in result.notes:
            print(f"neuraldiffuser: {note}", file=sys.stderr)
        if result.failed:
            failed += len(result.failed)
            print(job.places.failed)
    return 1 if failed else 0


def demo(args: argparse.Namespace) -> int:
    """Simulate a subject beside the output, then run it with the bundled models."""
    from napari_neuraldiffuser.core.base.files import make_folder
    from napari_neuraldiffuser.core.job.check import check_settings
    from napari_neuraldiffuser.core.nsd import simulate as simulation
    from napari_neuraldiffuser.core.outputs.description import check_place

    nsd_dir = args.out_dir / "nsd"
    job = job_of(args, nsd_dir, "subj01")
    check_settings(job.settings)
    check_place(job.out_dir)
    make_folder(args.out_dir)
    simulation.write_subjects(nsd_dir, SimulationParams(), ConsoleProgress())
    return _run_jobs([job])


def simulate(args: argparse.Namespace) -> int:
    """Write simulated subjects."""
    if args.bold and getattr(args, "synthetic", False):
        raise UserError("--synthetic must stand without --bold, got both: its session is written as betas. Leave one.")
    if args.bold:
        return simulate_bold(args, SIMULATION_OPTIONS)
    check_scanner_options(args)
    from napari_neuraldiffuser.core.nsd import simulate as simulation
    from napari_neuraldiffuser.core.nsd.simulation.space import GB, LARGE, needed_bytes

    params = SimulationParams(**given(args, SimulationParams, SIMULATION_OPTIONS))
    if (needed := needed_bytes(params)) > LARGE:
        print(f"neuraldiffuser: up to {needed / GB:.1f} GB will be written to {args.nsd_dir}", file=sys.stderr)
    simulation.write_subjects(args.nsd_dir, params, ConsoleProgress())
    print(args.nsd_dir)
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Say what would run here."""
    from napari_neuraldiffuser.doctor import as_json, as_text
    from napari_neuraldiffuser.doctor import doctor as examine

    report = examine(args.models, args.guide)
    print(as_json(report) if args.json else as_text(report))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
