"""`neuraldiffuser evaluate`: scores of any tool's folder of reconstructions, and the comparison of two."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_neuraldiffuser.cli_options import add_params, given
from napari_neuraldiffuser.cli_progress import ConsoleProgress
from napari_neuraldiffuser.cli_run import Commands, command
from napari_neuraldiffuser.core.params import EvaluationParams

OPTIONS = tuple(f.name for f in fields(EvaluationParams))
SCORES, DIFFERENCES = ("mean", "se", "n", "chance"), ("mean", "se", "n", "worse")


def add_evaluate(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "evaluate", evaluate, "score any folder of reconstructions, from any tool")
    parser.add_argument("recon_dir", type=Path)
    parser.add_argument("seen_dir", type=Path)
    parser.add_argument("--json", action="store_true", help="print the whole summary as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a page (HTML) with all of it, too")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="another folder of reconstructions of the same stimuli: also print recon_dir minus it, paired by stimulus",
    )
    for option, which in (("--pattern", "reconstructions"), ("--seen-pattern", "seen pictures")):
        text = f"how the {which} are named, such as img_{{stimulus}}_{{repeat}}; * is anything (default: whole names)"
        parser.add_argument(option, default="", help=text)
    add_params(parser, EvaluationParams, OPTIONS)


def evaluate(args: argparse.Namespace) -> int:
    """Score a folder of reconstructions against a folder of seen images."""
    from napari_neuraldiffuser.core.evaluation.comparison import check_alike, compare
    from napari_neuraldiffuser.core.evaluation.folders import evaluate_folders, find_folders
    from napari_neuraldiffuser.core.evaluation.work import nth

    params = EvaluationParams(**given(args, EvaluationParams, OPTIONS))
    how = {"pattern": args.pattern, "seen_pattern": args.seen_pattern, "device": _device_of(params)}
    folders, progress = [folder for folder in (args.recon_dir, args.against) if folder], ConsoleProgress()
    if args.against:  # told before anything is scored
        pairs = [find_folders(folder, args.seen_dir, args.pattern, args.seen_pattern) for folder in folders]
        check_alike(*((one.names, list(one.arms)) for one in pairs))
    found = [
        evaluate_folders(folder, args.seen_dir, params=params, progress=nth(progress, k, len(folders)), **how)
        for k, folder in enumerate(folders)
    ]
    compared = compare(*found) if args.against else {}
    progress.close()
    notes = [note for scored in found for note in [*scored.notes, *scored.warnings]]
    for note in dict.fromkeys(notes):
        print(note, file=sys.stderr)
    summary = found[0].summary()
    if args.page:
        _write_page(args, summary, [note for scored in found for note in scored.notes], compared)
    if args.json:
        more = {"against": found[1].summary(), "compared": compared} if args.against else {}
        print(json.dumps({**summary, **more}, indent=2))
        return 0
    _print("arm", summary["arms"], SCORES)
    if compared:
        _print("difference", compared, DIFFERENCES)
    return 0


def _write_page(args: argparse.Namespace, summary: dict[str, Any], notes: list[str], compared: dict[str, Any]) -> None:
    from napari_neuraldiffuser.core.outputs.report.folders import write_folder_page

    folders = [str(folder) for folder in (args.recon_dir, args.seen_dir, args.against) if folder]
    print(write_folder_page(args.page, summary, folders, notes, args.typed, compared), file=sys.stderr)


def _print(what: str, arms: Mapping[str, Mapping[str, Mapping[str, Any]]], columns: tuple[str, ...]) -> None:
    print(what, "metric", *columns, sep="\t")
    for arm, scores in arms.items():
        for metric, value in scores.items():
            print(arm, metric, *("n/a" if (x := value[one]) is None else f"{x:.6g}" for one in columns), sep="\t")


def _device_of(params: EvaluationParams) -> str:
    """Where the networks of the scores run: on the GPU where there is one; torch is not imported without networks."""
    if not params.metric_weights:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
