"""`neuraldiffuser tune`: guidance strength and schedule for model folders, chosen on training stimuli."""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

from napari_neuraldiffuser.cli_options import STAGES, add_params, given, settings_from
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.cli_run import Commands, add_own_files, command, own_scans
from napari_neuraldiffuser.core.base.names import nsd_name
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.networks.chosen import DEFAULT
from napari_neuraldiffuser.core.params import PRESETS, Settings, TuneParams

OPTIONS = tuple(f.name for f in fields(TuneParams))
USED = ("betas", "features", "decoding")
"""Stages of a run whose parameters matter here."""


def add_tune(commands: Commands) -> None:
    """Add the command `tune`."""
    about = "choose guidance strength and schedule for model folders, on training stimuli only"
    parser = command(commands, "tune", tune, about)
    parser.add_argument(
        "nsd_dir",
        type=Path,
        metavar="NSD_DIR|BETAS",
        help="NSD folder, or betas of own scans as run takes them; their test stimuli are not read",
    )
    parser.add_argument("models", nargs="+", metavar="MODELS", help="model folders, hub ids or demo, one after another")
    parser.add_argument("--out-dir", type=Path, default=Path("tune_output"), help="table and page (%(default)s)")
    parser.add_argument(
        "--participant-label", nargs="+", default=["subj01"], help="subjects, scored together (default: subj01)"
    )
    starts = [name for name in PRESETS if name != "none"]
    parser.add_argument(
        "--guidance", nargs="+", choices=starts, default=[DEFAULT], help=f"presets to start from (default: {DEFAULT})"
    )
    parser.add_argument("--guide", help="CLIP vision model, where a model folder has no image_encoder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="decoder and scores of every setting (default: OUT_DIR/work)")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="keep scores made before")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record the choice as neuraldiffuser.json in the model folder, where runs find it; for the bundled models "
        "and folders that cannot be written, in your state folder",
    )
    parser.add_argument("--record", type=Path, metavar="FILE.json", help="record it in this file instead")
    add_own_files(parser)
    add_params(parser, TuneParams, OPTIONS)
    for stage in USED:
        add_params(parser, *STAGES[stage])


def tune(args: argparse.Namespace) -> int:
    """Tune every model folder, and print where page, table and record are."""
    from napari_neuraldiffuser.core.job.tune import TuneJob
    from napari_neuraldiffuser.core.job.tune import tune as search

    labels = list(dict.fromkeys(nsd_name(label) for label in args.participant_label))
    own = own_scans(args, labels)
    sources = [replace(own, subject=s) if own else Source(nsd_dir=str(args.nsd_dir), subject=s) for s in labels]
    progress = ConsoleProgress()
    for models in args.models:
        job = TuneJob(
            sources=sources,
            out_dir=args.out_dir,
            models=models,
            guide=args.guide,
            device=args.device,
            settings=settings_from(args, Settings()),
            starts=args.guidance,
            params=TuneParams(**given(args, TuneParams, OPTIONS)),
            write=args.write,
            record=args.record,
            work_dir=args.work_dir,
            resume=args.resume,
            command=args.typed,
        )
        result = search(job, progress)
        progress.close()
        print(result.page, result.table, *([result.record] if result.record else []), sep="\n")
        print(f"neuraldiffuser: {models}: {result.note}", file=sys.stderr)
    return 0
