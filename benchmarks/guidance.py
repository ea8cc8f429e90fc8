"""What guidance adds: rules, strengths, schedules, starts and decoders on simulated subjects, beside every control.

    python benchmarks/guidance.py FOLDER [--parts validation confirmation] [--n 24] [--n-test 100]

First the cells of `common/guidance_plan.py` on training stimuli that the decoder was fitted without, then the chosen
arms once on test stimuli of subjects that nothing was chosen on.  FOLDER keeps the subjects and every cell, so that the
same command goes on where it was stopped; `--only SEED ...` computes those seeds alone, for a second process.
Writes FOLDER/guidance.md, guidance.json and, after the confirmation, guidance.png.  Gains are paired by stimulus; in
brackets they are in standard errors over stimuli.  Seconds are of one processor, of the diffusion alone.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common.guidance_cells import CONTROLS, ONCE, Cell, Result, measure
from common.guidance_figure import draw
from common.guidance_plan import BASE, CONFIRMATION, REFERENCE, VALIDATION, cell
from common.guidance_subjects import TEST, Case
from common.guidance_subjects import VALIDATION as HELD_OUT
from common.guidance_tables import (
    against,
    as_json,
    by_seed,
    markdown,
    reached,
)

from napari_neuraldiffuser.core.networks import models

CONFIRMED = "confirmation"
PARTS = (HELD_OUT, CONFIRMED)
GOALS = (
    "Guided above unguided by more than 3 standard errors in PixCorr, SSIM and edges: {over unguided} of {of} seeds. "
    "Guided above the decoded start by more than 3 in edges and identification: {over the decoded start} of {of}."
)


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    networks = models.load(args.models)
    found: dict[str, Any] = {"models": networks.digest, "base": BASE, "plan": VALIDATION, "confirmed": CONFIRMATION}
    lines: list[str] = []
    for part, make in ((HELD_OUT, validation), (CONFIRMED, confirmation)):
        if part in args.parts:
            more, found[part] = make(args, networks)
            lines += more
    if args.only is None:
        print("\n".join(lines))
        (args.folder / "guidance.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (args.folder / "guidance.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="demo")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--validation-seeds", nargs="+", type=int, default=[201, 202, 203], metavar="SEED")
    parser.add_argument("--seeds", nargs="+", type=int, default=[301, 302, 303, 304, 305], metavar="SEED")
    parser.add_argument("--n", type=int, default=24, help="held-out training stimuli of each validation seed")
    parser.add_argument("--n-test", type=int, default=100, help="test stimuli of each fresh seed")
    parser.add_argument("--few", type=int, default=1, help="fresh seeds that have every arm and control")
    parser.add_argument("--only", nargs="*", type=int, help="compute these seeds alone, and write no tables")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def validation(args: argparse.Namespace, networks: models.Models) -> tuple[list[str], dict[str, Any]]:
    """Every setting on training stimuli that were left out."""
    cases = opened(args, args.validation_seeds, HELD_OUT, args.n, networks)
    once = {name: {**changes, "repeats": 1} for name, changes in VALIDATION.items()}
    rows, baseline = measured(once, cases, ONCE)
    if not cases:
        return [], {}
    first, *others = VALIDATION
    lines = ["## Validation", "", *markdown(rows, baseline), "", *against(rows, others, first), ""]
    return lines, {"n": args.n, "arms": as_json(rows, [case.seed for case in cases], baseline)}


def confirmation(args: argparse.Namespace, networks: models.Models) -> tuple[list[str], dict[str, Any]]:
    """The chosen setting on fresh seeds, and on the first few of them the others and the controls that take long."""
    cases = opened(args, args.seeds, TEST, args.n_test, networks)
    chosen, *others = CONFIRMATION
    whole, baseline = measured({chosen: CONFIRMATION[chosen]}, cases, ONCE)
    few = [case for case in cases if case.seed in args.seeds[: args.few]]
    rows, baselines = measured(CONFIRMATION, few, CONTROLS)
    if args.only is not None or not cases:
        return [], {}
    seeds = [case.seed for case in cases]
    goals = reached(whole, chosen, "unguided", "start")
    lines = ["## Confirmation", "", *markdown(whole, baseline), ""]
    pairs = [(chosen, "unguided", ("pixcorr", "ssim", "edges", "twoway_edges", "twoway_demo"))]
    pairs += [(chosen, "start", ("pixcorr", "ssim", "edges", "twoway_edges", "twoway_demo"))]
    lines += [*by_seed(whole, seeds, pairs), "", GOALS.format(**goals), ""]
    lines += [f"The first {len(few)} of these seeds:", "", *markdown(rows, baselines), ""]
    lines += [*against(rows, [name for name in CONFIRMATION if name != REFERENCE], REFERENCE), ""]
    draw({**rows, **whole}, cases, chosen, args.folder / "guidance.png")
    about = {"arms": as_json(whole, seeds, baseline), "few": as_json(rows, seeds[: args.few], baselines)}
    return lines, {"n": args.n_test, "goals": goals, **about}


def opened(args: argparse.Namespace, seeds: Sequence[int], which: str, n: int, networks: models.Models) -> list[Case]:
    """Cases of the seeds that are asked for."""
    return [Case(args.folder, seed, which, n, networks) for seed in seeds if args.only is None or seed in args.only]


def measured(
    plan: Mapping[str, Mapping[str, Any]], cases: Sequence[Case], controls: Sequence[str]
) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """Results of every arm and of its diffusion without guidance, and the name of the latter by arm.

    The first arm has the controls.
    """
    rows: dict[str, list[Result]] = {}
    baseline: dict[str, str] = {}
    known: dict[str, str] = {}
    for name, changes in plan.items():
        own = cell(dict(changes))
        unguided = own.as_control("unguided")
        key = str((unguided.params(), unguided.decoder))
        if not rows:
            rows |= {control: results(own.as_control(control), cases, control) for control in ONCE}
        if key not in known:
            known[key] = f"{name}, unguided" if known else "unguided"
            rows[known[key]] = results(unguided, cases, known[key])
        rows[name], baseline[name] = results(own, cases, name), known[key]
        if len(baseline) == 1:
            for control in (c for c in controls if c not in (*ONCE, "unguided")):
                rows[control], baseline[control] = results(own.as_control(control), cases, control), known[key]
    return rows, baseline


def results(own: Cell, cases: Sequence[Case], name: str) -> list[Result]:
    found = []
    for case in cases:
        found.append(measure(own, case))
        print(f"seed {case.seed} {case.which}: {name}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
