"""`neuraldiffuser crossval`: every stimulus of a small set decoded by a decoder that has not seen it."""

import argparse
from dataclasses import fields
from pathlib import Path

from napari_neuraldiffuser.cli_options import STAGES, add_params, given, settings_from
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.cli_run import Commands, add_own_files, command, own_scans
from napari_neuraldiffuser.core.base.names import nsd_name
from napari_neuraldiffuser.core.params import CrossvalParams, Settings

OPTIONS = tuple(f.name for f in fields(CrossvalParams))
USED = ("betas", "features", "decoding")
"""Stages of a run whose parameters matter here."""


def add_crossval(commands: Commands) -> None:
    """Add the command `crossval`."""
    about = "decode every stimulus by a decoder fitted without it: for small sets, and those without test stimuli"
    parser = command(commands, "crossval", crossval, about)
    parser.add_argument(
        "nsd_dir", type=Path, metavar="NSD_DIR|BETAS.nii.gz", help="NSD folder, or a 4-D NIfTI of own scans"
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--participant-label", default="subj01", help="one subject (default: %(default)s)")
    parser.add_argument("--models", default="demo", help="model folder, hub id or demo (default: %(default)s)")
    parser.add_argument("--guide", help="CLIP vision model, where the model folder has no image_encoder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="targets and decoded folds (default: OUT_DIR/work)")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="keep decoded folds")
    add_own_files(parser)
    add_params(parser, CrossvalParams, OPTIONS)
    for stage in USED:
        add_params(parser, *STAGES[stage])


def crossval(args: argparse.Namespace) -> int:
    """Cross-validate one subject and print where the results are."""
    from napari_neuraldiffuser.core.job.crossval import run_crossval
    from napari_neuraldiffuser.core.job.spec import Job

    label = nsd_name(args.participant_label)
    job = Job(
        nsd_dir=args.nsd_dir,
        out_dir=args.out_dir,
        subject=label,
        settings=settings_from(args, Settings()),
        models=args.models,
        guide=args.guide,
        device=args.device,
        work_dir=args.work_dir,
        resume=args.resume,
        command=args.typed,
        source=own_scans(args, [label]),
    )
    progress = ConsoleProgress()
    written = run_crossval(job, CrossvalParams(**given(args, CrossvalParams, OPTIONS)), progress)
    progress.close()
    for path in (written.page, written.scores, written.embeddings):
        print(path)
    return 0
