"""The command line: `neuraldiffuser demo | simulate | run | evaluate | doctor`.

Exit status: 0 done; 1 some stimuli failed; 2 bad input or usage; 130 interrupted.  Progress goes to stderr, stdout has
the paths of what was written.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from napari_neuraldiffuser import __version__
from napari_neuraldiffuser.core.console import ConsoleProgress
from napari_neuraldiffuser.core.errors import UserError
from napari_neuraldiffuser.core.options import STAGES, add_params, given, settings_from
from napari_neuraldiffuser.core.params import PRESETS, EvaluationParams, Settings, SimulationParams

OWN_FILES = {
    # field of Source -> what it is; options of `run` where the scans are one NIfTI and not an NSD folder
    "mask": "mask on the betas' grid",
    "trials": "tab-separated table of trial, stimulus, session and test",
    "images": "folder of one image per stimulus label",
    "captions": "JSON of stimulus label to captions",
    "anatomy": "T1 in the betas' space",
}
SIMULATION_OPTIONS = ("n_subjects", "seed", "grid", "n_sessions", "n_test", "noise")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    args.typed = shlex.join(["neuraldiffuser", *argv])
    try:
        return args.command(args)
    except UserError as error:
        if args.debug:
            raise
        print(f"neuraldiffuser: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nneuraldiffuser: interrupted; the same command continues where it stopped.", file=sys.stderr)
        return 130


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
    _add_run(commands)
    _add_evaluate(commands)
    _add_doctor(commands)
    return parser


def _command(commands, name: str, function, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser.set_defaults(command=function)
    return parser


def _add_run_options(parser: argparse.ArgumentParser, preset: str) -> None:
    parser.add_argument(
        "--guidance", choices=sorted(PRESETS), default=preset, help="named settings (default: %(default)s)"
    )
    parser.add_argument("--n-stimuli", type=int, help="only the first so many test stimuli")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="targets, decoder and stage records (default: OUT_DIR/work)")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="skip complete stages")
    for cls, names in STAGES.values():
        add_params(parser, cls, names)


def _add_demo(commands) -> None:
    parser = _command(commands, "demo", demo, "the whole job on a simulated subject with the bundled models")
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path("demo_output"), help="default: %(default)s")
    _add_run_options(parser, "demo")


def _add_simulate(commands) -> None:
    parser = _command(commands, "simulate", simulate, "write simulated subjects in NSD's own formats")
    parser.add_argument("nsd_dir", type=Path)
    parser.add_argument("--subjects", type=int, dest="n_subjects", default=argparse.SUPPRESS, help="how many subjects")
    add_params(parser, SimulationParams, SIMULATION_OPTIONS[1:])


def _add_run(commands) -> None:
    parser = _command(commands, "run", run, "decode, reconstruct, score and map a subject of an NSD tree, or own scans")
    parser.add_argument(
        "nsd_dir", type=Path, metavar="NSD_DIR|BETAS.nii.gz", help="NSD folder, or a 4-D NIfTI of own scans"
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("level", choices=["participant"], help="analysis level")
    parser.add_argument("--participant-label", nargs="+", default=["subj01"], help="default: subj01")
    parser.add_argument("--models", default="demo", help="model folder, hub id or demo (default: %(default)s)")
    parser.add_argument("--guide", help="CLIP vision model, where the model folder has no image_encoder")
    parser.add_argument("--decoder", choices=["ridge"], default="ridge", help="default: %(default)s")
    own = parser.add_argument_group("own scans", "files beside BETAS.nii.gz (docs/nsd.md)")
    for name, what in OWN_FILES.items():
        own.add_argument(f"--{name}", default="", metavar="FILE" if name != "images" else "DIR", help=what)
    own.add_argument("--roi-volumes", nargs="+", default=[], metavar="FILE", help="label volumes on the betas' grid")
    _add_run_options(parser, "neuraldiffuser")


def _add_evaluate(commands) -> None:
    parser = _command(commands, "evaluate", evaluate, "score any folder of reconstructions, from any tool")
    parser.add_argument("recon_dir", type=Path)
    parser.add_argument("seen_dir", type=Path)
    parser.add_argument("--json", action="store_true", help="print the whole summary as JSON")
    add_params(parser, EvaluationParams, ("size",))


def _add_doctor(commands) -> None:
    parser = _command(commands, "doctor", doctor, "versions, kernel backend and why, GPU, model folder")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--models", default="demo", help="model folder to check (default: %(default)s)")


def _settings(args: argparse.Namespace) -> Settings:
    from napari_neuraldiffuser.core.guidance import preset

    diffusion, guidance = preset(args.guidance)
    return settings_from(args, Settings(diffusion=diffusion, guidance=guidance))


def _job(args: argparse.Namespace, nsd_dir: Path, subject: str, **more):
    from napari_neuraldiffuser.core.job import Job

    return Job(
        nsd_dir=nsd_dir,
        out_dir=args.out_dir,
        subject=subject,
        settings=_settings(args),
        device=args.device,
        n_stimuli=args.n_stimuli,
        work_dir=args.work_dir,
        resume=args.resume,
        command=args.typed,
        **more,
    )


def _run_jobs(jobs) -> int:
    from napari_neuraldiffuser.core.job import run_subject

    progress, failed = ConsoleProgress(), 0
    for job in jobs:
        result = run_subject(job, progress)
        progress.close()
        print(result.page)
        print(result.summary)
        if result.failed:
            failed += len(result.failed)
            print(job.places.failed)
    return 1 if failed else 0


def demo(args: argparse.Namespace) -> int:
    """Simulate a subject beside the output, then run it with the bundled models."""
    from napari_neuraldiffuser.core.files import make_folder
    from napari_neuraldiffuser.core.nsd import simulate as simulation

    nsd_dir = make_folder(args.out_dir) / "nsd"
    simulation.write_subjects(nsd_dir, SimulationParams(), ConsoleProgress())
    return _run_jobs([_job(args, nsd_dir, "subj01")])


def simulate(args: argparse.Namespace) -> int:
    """Write simulated subjects."""
    from napari_neuraldiffuser.core.nsd import simulate as simulation

    params = SimulationParams(**given(args, SimulationParams, SIMULATION_OPTIONS))
    simulation.write_subjects(args.nsd_dir, params, ConsoleProgress())
    print(args.nsd_dir)
    return 0


def run(args: argparse.Namespace) -> int:
    """Run the participants one after another."""
    labels = [f"subj{label.removeprefix('sub-').removeprefix('subj')}" for label in args.participant_label]
    more = {"models": args.models, "guide": args.guide, "source": _own_scans(args, labels)}
    return _run_jobs([_job(args, args.nsd_dir, s, **more) for s in labels])


def _own_scans(args: argparse.Namespace, labels: list[str]):
    """The Source that the options describe, or None for an NSD folder."""
    from napari_neuraldiffuser.core.recipe import Source

    files = {name: getattr(args, name) for name in OWN_FILES}
    given = [f"--{name}" for name, value in {**files, "roi-volumes": args.roi_volumes}.items() if value]
    if not args.nsd_dir.name.lower().endswith((".nii", ".nii.gz")):
        if given:
            raise UserError(
                f"{', '.join(given)} must stand beside a NIfTI of own betas, got {args.nsd_dir}. Give BETAS.nii.gz."
            )
        return None
    if len(labels) > 1:
        raise UserError(f"--participant-label must be one label for own scans, got {len(labels)}. Run them one by one.")
    return Source(subject=labels[0], betas=str(args.nsd_dir), rois=tuple(args.roi_volumes), **files)


def evaluate(args: argparse.Namespace) -> int:
    """Score a folder of reconstructions against a folder of seen images."""
    from napari_neuraldiffuser.core.image_folders import evaluate_folders

    params = EvaluationParams(**given(args, EvaluationParams, ("size",)))
    scored = evaluate_folders(args.recon_dir, args.seen_dir, params=params, progress=ConsoleProgress())
    for note in scored.notes:
        print(note, file=sys.stderr)
    summary = scored.summary()
    if args.json:
        print(json.dumps(summary, indent=2))
        return 0
    for arm, scores in summary["arms"].items():
        for metric, value in scores.items():
            print(f"{arm}\t{metric}\t{value['mean']}\t{value['se']}\t{value['n']}")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Say what would run here."""
    from napari_neuraldiffuser.core.doctor import as_json, as_text
    from napari_neuraldiffuser.core.doctor import doctor as examine

    report = examine(args.models)
    print(as_json(report) if args.json else as_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
