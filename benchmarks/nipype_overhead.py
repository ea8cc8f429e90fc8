"""What the workflow of `neuraldiffuser run` costs beside the plain call of the core, and a rerun that is all cached.

    python benchmarks/nipype_overhead.py [--json FILE] [--quick] [--pairs N] [--reruns N] [--n-stimuli N] [--profile]

The simulated subject and the models of the demo, its settings, an empty output folder for every run.  Rows: wall-clock
time of `core.job.run_subject` in a process of its own (the baseline) over that of the workflow with the engine Linear
and with MultiProc (2 workers), in rounds whose order moves on; the goal for Linear is a ratio above 0.87 (overhead
under 15 %).  Then the same command again, when nothing is to be done; the goal is 10 s with the interpreter's start.
--profile prints where a cached rerun spends its time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common.runs as runs
from common.timing import quartiles, ratio

from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import SimulationParams

PLAIN, GOAL = "plain call", 10.0
SMALL = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)


def plain(words: list[str]) -> int:
    """What `neuraldiffuser run` did without a workflow; runs in a process of its own."""
    from napari_neuraldiffuser import cli, cli_run
    from napari_neuraldiffuser.cli_progress import ConsoleProgress
    from napari_neuraldiffuser.core.job.run import run_subject

    args = cli.build_parser().parse_args(words)
    args.typed = "neuraldiffuser run"
    result = run_subject(cli_run.job_of(args, args.nsd_dir, "subj01", models=args.models), ConsoleProgress())
    return 1 if result.failed else 0


def run_plain(case: runs.Case, folder: Path) -> runs.Spent:
    """The plain call, start of the interpreter included."""
    folder.mkdir()
    command = [sys.executable, __file__, "--plain", *case.command[3:]]
    begin = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    return runs.spent(process, begin, folder / "log.txt")


def rounds(case: runs.Case, folder: Path, pairs: int) -> dict[str, list[runs.Spent]]:
    """What every way took in every round."""
    names = [PLAIN, *runs.ENGINES]
    times: dict[str, list[runs.Spent]] = {name: [] for name in names}
    for turn in range(pairs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            place = folder / f"{name.replace(' ', '-')}-{turn}"
            took = run_plain(case, place) if name == PLAIN else case.finish(place, name)
            times[name].append(took)
            load = os.getloadavg()[0]
            print(f"round {turn + 1}, {name}: {took.wall:.1f} s, {took.cpu:.1f} CPU s, load {load:.1f}", flush=True)
    return times


def cached(case: runs.Case, folder: Path, reruns: int) -> list[runs.Spent]:
    """The same command in a finished folder; an error if a node ran again."""
    before = runs.finished(folder)
    times = [case.finish(folder, "Linear") for _ in range(reruns)]
    again = runs.redone(before, runs.finished(folder))
    if again:
        raise RuntimeError(f"a rerun must find every node cached, ran {', '.join(again)}. See {folder}/log.txt.")
    return times


def profile(case: runs.Case, folder: Path) -> str:
    """The 25 functions in which a cached rerun spends most time."""
    command = [sys.executable, "-m", "cProfile", "-s", "cumulative", *case.command[1:]]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return "\n".join(done.stdout.splitlines()[:45])


def rows(times: dict[str, list[runs.Spent]], again: list[runs.Spent], what: str) -> list[dict[str, Any]]:
    """The benchmark's rows; `cpu` has the same of processor seconds."""
    found = [compared(f"{engine}, {what}", PLAIN, times[PLAIN], times[engine]) for engine in runs.ENGINES]
    goal = [runs.Spent(GOAL, GOAL)] * len(again)
    return [*found, compared(f"all-cached rerun, {what}", f"goal {GOAL:g} s", goal, again)]


def compared(case: str, baseline: str, theirs: list[runs.Spent], ours: list[runs.Spent]) -> dict[str, Any]:
    """One row."""
    wall, cpu = (
        {"ratio": ratio([t[k] for t in theirs], [t[k] for t in ours]), "ours": quartiles([t[k] for t in ours])}
        for k in range(2)
    )
    return {"benchmark": "nipype_overhead", "case": case, "baseline": baseline, **wall, "unit": "s", "cpu": cpu}


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    return f"{row['case']}: {said(row, row['baseline'])}; CPU time: {said(row['cpu'], row['baseline'])}"


def said(found: dict[str, Any], baseline: str) -> str:
    """Seconds and ratio, and the overhead over the plain call."""
    r, seconds = found["ratio"], found["ours"]["median"]
    text = f"{seconds:.1f} s, {baseline} / ours {r['median']:.3f} ({r['q25']:.3f}-{r['q75']:.3f})"
    if baseline != PLAIN:
        return text
    low, middle, high = (100 * (1 / r[key] - 1) for key in ("q75", "median", "q25"))
    return f"{text}, overhead {middle:.1f} % ({low:.1f} to {high:.1f} %)"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="one round on a smaller subject; a few minutes")
    parser.add_argument("--pairs", type=int, default=3, help="rounds")
    parser.add_argument("--reruns", type=int, default=5)
    parser.add_argument("--n-stimuli", type=int, default=60, help="test stimuli (default: all)")
    parser.add_argument("--profile", action="store_true", help="print the profile of a cached rerun")
    args = parser.parse_args()
    if args.quick:
        args.pairs, args.reruns, args.n_stimuli = 1, 2, 4
    return args


def main() -> int:
    if sys.argv[1:2] == ["--plain"]:  # what follows are the words of `neuraldiffuser run`
        return plain(sys.argv[2:])
    args = parse()
    options = ("--guidance", "demo", "--n-stimuli", str(args.n_stimuli))
    with tempfile.TemporaryDirectory() as name:
        folder, case = Path(name), runs.Case(str(Path(name) / "nsd"), "demo", options)
        simulate.write_subjects(folder / "nsd", SMALL if args.quick else SimulationParams())
        times = rounds(case, folder, args.pairs)
        again = cached(case, folder / "Linear-0", args.reruns)
        text = profile(case, folder / "Linear-0") if args.profile else ""
    found = rows(times, again, f"{args.n_stimuli} stimuli{' of the small subject' if args.quick else ''}")
    print("\n".join(map(line, found)) + f"\nload average {os.getloadavg()[0]:.1f}\n{text}")
    if args.json:
        write_json(Path(args.json), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
