"""`neuraldiffuser run`: options of a run, and the jobs they describe; the workflow is in `nipype_interfaces`."""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from napari_neuraldiffuser.cli_options import STAGES, add_params, given, settings_from
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import bids_label, nsd_name
from napari_neuraldiffuser.core.base.recipe import BETAS_SUFFIXES
from napari_neuraldiffuser.core.base.registry import TEST_SETS
from napari_neuraldiffuser.core.networks.chosen import DEFAULT, Chosen, chosen, foreign_strength, of_bundled
from napari_neuraldiffuser.core.params import PRESETS, Settings, WorkflowParams, preset

OWN_FILES = {
    # field of Source -> what it is; options of `run` where the scans are one NIfTI and not an NSD folder
    "mask": "mask on the betas' grid",
    "trials": "tab-separated table of trial, stimulus, session and test; beside GLMsingle's DESIGNINFO one of "
    "condition, stimulus and test, or none",
    "images": "folder of one image per stimulus label",
    "captions": "JSON of stimulus label to captions",
    "anatomy": "T1 in the betas' space",
}
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
CUT = tuple(f.name for f in fields(WorkflowParams))


def command(
    commands: Commands, name: str, function: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    """Add a command that `function(args)` runs."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser.set_defaults(command=function)
    return parser


def add_run_options(parser: argparse.ArgumentParser, models: str = "") -> None:
    """The options that every run has, on simulated data and others; `models` where they cannot be chosen."""
    chosen_for = "chosen for the bundled models" if models else "that neuraldiffuser tune chose for the models"
    told = f"default: those {chosen_for}, else {DEFAULT}; defaults below are those of {models or DEFAULT}"
    parser.add_argument("--guidance", choices=sorted(PRESETS), help=f"named settings ({told})")
    parser.add_argument("--n-stimuli", type=int, help="only the first so many test stimuli")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="targets, decoder and stage records (default: OUT_DIR/work)")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="skip complete stages")
    defaults = _of(of_bundled()) if models else _of(Chosen(*preset(DEFAULT)))
    for stage, (cls, names) in STAGES.items():
        add_params(parser, cls, names, getattr(defaults, stage))


def add_run(commands: Commands) -> None:
    """Add the command `run`."""
    about = "decode, reconstruct, score and map subjects of an NSD tree, or own scans"
    parser = command(commands, "run", run, about)
    parser.add_argument(
        "nsd_dir",
        type=Path,
        metavar="NSD_DIR|BETAS",
        help="NSD folder; or betas of own scans: a 4-D NIfTI, or GLMsingle's TYPED_*.npy, .hdf5 or .mat",
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument(
        "level", choices=["participant", "group"], help="participant: each subject; group: table and page over them"
    )
    parser.add_argument(
        "--participant-label", nargs="+", help="default: subj01; at group level every subject of OUT_DIR"
    )
    parser.add_argument("--models", default="demo", help="model folder, hub id or demo (default: %(default)s)")
    parser.add_argument("--guide", help="CLIP vision model, where the model folder has no image_encoder")
    parser.add_argument(
        "--test-set",
        choices=TEST_SETS,
        default=TEST_SETS[0],
        help="what is decoded of an NSD subject: test images of the core experiment, or those of NSD-synthetic or "
        "NSD-imagery, the latter with --trials and --images (docs/nsd.md; default: %(default)s)",
    )
    add_own_files(parser)
    _add_engine(parser)
    add_run_options(parser)


def add_own_files(parser: argparse.ArgumentParser) -> None:
    """The files that stand beside BETAS."""
    own = parser.add_argument_group("own scans", "files beside BETAS (docs/nsd.md)")
    for name, what in OWN_FILES.items():
        own.add_argument(f"--{name}", default="", metavar="FILE" if name != "images" else "DIR", help=what)
    own.add_argument("--roi-volumes", nargs="+", default=[], metavar="FILE", help="label volumes on the betas' grid")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("engine", "where the nodes of the workflow run (docs/cluster.md)")
    engine.add_argument("--nprocs", type=int, metavar="N", help="nodes that run at once on this machine (default: 1)")
    engine.add_argument(
        "--use-plugin",
        type=Path,
        metavar="FILE.yml",
        help="a Nipype engine and its arguments, such as plugins/slurm.yml",
    )
    engine.add_argument(
        "--dry-run", action="store_true", help="print the nodes and what each needs, draw the graph, run nothing"
    )
    add_params(parser, WorkflowParams, CUT)


def _of(one: Chosen) -> Settings:
    return Settings(diffusion=one.diffusion, guidance=one.guidance)


def _settings(args: argparse.Namespace, models: str, guide: str | None = None) -> tuple[Settings, tuple[str, ...]]:
    """What the options say, of the named preset or of what was chosen for the models; and sentences on which."""
    base = Chosen(*preset(args.guidance)) if args.guidance else chosen(models, guide)
    settings = settings_from(args, _of(base))
    return settings, tuple(filter(None, (base.said, foreign_strength(settings.guidance, models, guide))))


def job_of(
    args: argparse.Namespace,
    nsd_dir: Path,
    subject: str,
    models: str = "demo",
    settings: tuple[Settings, tuple[str, ...]] | None = None,
    **more: Any,
) -> Any:
    """The job of one subject that the options describe; `settings` where another job has found them already."""
    found, told = settings or _settings(args, models, more.get("guide"))
    from napari_neuraldiffuser.core.job.spec import Job

    return Job(
        nsd_dir=nsd_dir,
        out_dir=args.out_dir,
        subject=subject,
        settings=found,
        told=told,
        models=models,
        device=args.device,
        n_stimuli=args.n_stimuli,
        work_dir=args.work_dir,
        resume=args.resume,
        command=args.typed,
        **more,
    )


def run(args: argparse.Namespace) -> int:
    """Run participants or the group as a Nipype workflow."""
    labels = [nsd_name(label) for label in args.participant_label or []]
    need_nipype()
    # sets what keeps nipype from asking a server for its newest version, before nipype is imported
    from nipype_interfaces.engines import choice as engines
    from nipype_interfaces.running import front

    plugin, plugin_args = engines.choose(args.use_plugin, args.nprocs)
    how = front.How(args.work_dir or args.out_dir / "work", plugin, plugin_args, args.resume, args.debug, args.dry_run)
    if args.level == "group":
        return front.run_group(args.out_dir, [bids_label(label) for label in labels], how)
    labels = list(dict.fromkeys(labels)) or ["subj01"]
    more, source = {"models": args.models, "guide": args.guide}, own_scans(args, labels)
    sources = [source and replace(source, subject=label) for label in labels]
    more["settings"] = _settings(args, args.models, args.guide)
    jobs = [job_of(args, args.nsd_dir, one, source=its, **more) for one, its in zip(labels, sources, strict=True)]
    return front.run_participants(jobs, WorkflowParams(**given(args, WorkflowParams, CUT)), how)


def need_nipype() -> None:
    """Say what to install where nipype is absent; everything but `run` does without it."""
    missing = [name for name in ("nipype", "yaml") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"neuraldiffuser run needs {' and '.join(missing)}, not installed here. "
            "Run: pip install 'napari-neuraldiffuser[nipype]'"
        )


def own_scans(args: argparse.Namespace, labels: list[str]) -> Any:
    """The Source that the options describe, of the first label, or None for an NSD folder."""
    from napari_neuraldiffuser.core.base.recipe import Source, is_challenge

    files = {name: getattr(args, name) for name in OWN_FILES}
    given = [f"--{name}" for name, value in {**files, "roi-volumes": args.roi_volumes}.items() if value]
    if getattr(args, "test_set", TEST_SETS[0]) != TEST_SETS[0]:
        return _further(args, labels[0], files, given)
    if not args.nsd_dir.name.lower().endswith(BETAS_SUFFIXES):
        if is_challenge(args.nsd_dir) and given in ([], ["--captions"]):
            return Source(nsd_dir=str(args.nsd_dir), subject=labels[0], captions=args.captions)
        if given:
            raise UserError(
                f"{', '.join(given)} must stand beside a file of own betas ({', '.join(BETAS_SUFFIXES)}), got "
                f"{args.nsd_dir}. Give BETAS."
            )
        return None
    if len(labels) > 1:
        raise UserError(f"--participant-label must be one label for own scans, got {len(labels)}. Run them one by one.")
    return Source(subject=labels[0], betas=str(args.nsd_dir), rois=tuple(args.roi_volumes), **files)


def _further(args: argparse.Namespace, subject: str, files: dict[str, str], given: list[str]) -> Any:
    """The Source of an NSD folder with a further test set; only NSD-imagery has files of the user's beside it."""
    from napari_neuraldiffuser.core.base.recipe import Source

    beside = ("trials", "images", "captions") if args.test_set == "imagery" else ()
    if stray := [name for name in given if name.removeprefix("--") not in beside]:
        raise UserError(
            f"{', '.join(stray)} must not stand beside --test-set {args.test_set}, got {args.nsd_dir}. Leave it out."
        )
    named: dict[str, Any] = {name: files[name] for name in beside}
    return Source(nsd_dir=str(args.nsd_dir), subject=subject, test_set=args.test_set, **named)
