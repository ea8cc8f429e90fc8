"""What guidance adds: rules, strengths, schedules, starts and decoders on simulated subjects, beside every control.

    python benchmarks/guidance.py FOLDER [--parts validation confirmation] [--n 20] [--n-test 60]

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
    GUIDED_OVER_START,
    GUIDED_OVER_UNGUIDED,
    as_json,
    by_seed,
    markdown,
    reached,
)

from napari_neuraldiffuser.core.networks import models

PARTS = (HELD_OUT, "confirmation")


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    networks = models.load(args.models)
    found: dict[str, Any] = {"models": networks.digest, "base": BASE}
    lines: list[str] = []
    for part, plan, seeds, n in (
        (HELD_OUT, VALIDATION, args.validation_seeds, args.n),
        ("confirmation", CONFIRMATION, args.seeds, args.n_test),
    ):
        if part not in args.parts:
            continue
        which = HELD_OUT if part == HELD_OUT else TEST
        seeds = [seed for seed in seeds if args.only is None or seed in args.only]
        cases = [Case(args.folder, seed, which, n, networks) for seed in seeds]
        rows, baseline = measured(plan, cases, part)
        lines += [f"## {part}", "", *markdown(rows, baseline), ""]
        found[part] = {"seeds": seeds, "n": n, "arms": as_json(rows, seeds, baseline)}
        if part != HELD_OUT and cases:
            more, found[part]["goals"] = confirmed(rows, seeds, plan)
            lines += more
            draw(rows, cases, next(iter(plan)), args.folder / "guidance.png")
    print("\n".join(lines))
    if args.only is None:
        (args.folder / "guidance.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (args.folder / "guidance.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="demo")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--validation-seeds", nargs="+", type=int, default=[201, 202, 203], metavar="SEED")
    parser.add_argument("--seeds", nargs="+", type=int, default=[301, 302, 303, 304, 305], metavar="SEED")
    parser.add_argument("--n", type=int, default=20, help="held-out training stimuli of each validation seed")
    parser.add_argument("--n-test", type=int, default=60, help="test stimuli of each fresh seed")
    parser.add_argument("--only", nargs="*", type=int, help="compute these seeds alone, and write no tables")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measured(
    plan: Mapping[str, Mapping[str, Any]], cases: Sequence[Case], part: str
) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """Results of every arm, with the arm without guidance of the same diffusion, and which that is by arm.

    The first arm of the confirmation has all controls; other parts have those that take no diffusion.
    """
    rows: dict[str, list[Result]] = {}
    baseline: dict[str, str] = {}
    known: dict[str, str] = {}
    for name, changes in plan.items():
        own = cell(dict(changes))
        wanted = CONTROLS if part != HELD_OUT else ONCE
        if not rows:
            rows |= {control: results(own.as_control(control), cases, control) for control in ONCE}
        unguided = own.as_control("unguided")
        key = str((unguided.params(), unguided.decoder))
        if key not in known:
            known[key] = "unguided" if not known else f"{name}, unguided"
            rows[known[key]] = results(unguided, cases, known[key])
        rows[name], baseline[name] = results(own, cases, name), known[key]
        if len(baseline) == 1:
            for control in (c for c in wanted if c not in (*ONCE, "unguided")):
                rows[control], baseline[control] = results(own.as_control(control), cases, control), known[key]
    return rows, baseline


def results(own: Cell, cases: Sequence[Case], name: str) -> list[Result]:
    found = []
    for case in cases:
        found.append(measure(own, case))
        print(f"seed {case.seed} {case.which}: {name}", file=sys.stderr, flush=True)
    return found


def confirmed(
    rows: Mapping[str, Sequence[Result]], seeds: Sequence[int], plan: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Gains by seed, and which goals were reached."""
    chosen = next(iter(plan))
    pairs = [(chosen, "unguided", GUIDED_OVER_UNGUIDED), (chosen, "start", ("pixcorr", "ssim", *GUIDED_OVER_START))]
    pairs += [(name, REFERENCE, ("pixcorr", "ssim", "edges", "twoway_demo")) for name in plan if name != REFERENCE]
    goals = reached(rows, chosen, "unguided", "start")
    told = (
        f"Guided above unguided by more than 3 standard errors in PixCorr, SSIM and edges: {goals['over unguided']} of "
        f"{goals['of']} seeds; above the decoded start in edges and identification: {goals['over the decoded start']}."
    )
    return [*by_seed(rows, seeds, pairs), "", told, ""], goals


if __name__ == "__main__":
    main()
