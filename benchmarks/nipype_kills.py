"""kill -9 at random moments of `neuraldiffuser run`, then the same command again: are all files those of a quiet run?

    python benchmarks/nipype_kills.py [--json FILE] [--quick] [--kills N] [--seed S] [--engines NAME ...] [--folder DIR]

A small simulated subject with the bundled models.  For each engine one run is left in peace; then, in turn, a run is
started in an empty folder, its whole process group is killed at a moment drawn from its part of the run's duration, and
the same command is run to the end.  Every file outside of the work folder is compared byte by byte.  A run that was
over before its moment is started again and killed earlier.  The exit status is 1 where a file differs, a rerun fails,
or a finished node was run again.  With --folder all runs are kept there, and the same command goes on after the last
round that was finished.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common.runs as runs

from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.nsd import simulate
from napari_neuraldiffuser.core.params import SimulationParams

SUBJECT = SimulationParams(n_sessions=1, n_test=8, train_repeats=3, image_size=32)
OPTIONS = "--guidance demo --n-stimuli 6 --repeats 1 --n-steps 12 --batch-size 1 --chunk-size 1".split()
QUICK = "--guidance demo --n-stimuli 4 --repeats 1 --n-steps 6 --batch-size 1 --chunk-size 1".split()
HEADER = ("kill", "engine", "at s", "under way", "nodes kept", "chunks kept", "run again", "equal", "load")


def moments(n: int, seed: int) -> list[float]:
    """Shares of a run's duration: one in each of n equal parts, in random order."""
    rng = random.Random(seed)
    found = [(k + rng.random()) / n for k in range(n)]
    rng.shuffle(found)
    return found


def wait(process: subprocess.Popen, seconds: float) -> None:
    """Until the process has ended, at most so long."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def start_and_kill(case: runs.Case, folder: Path, engine: str, seconds: float) -> float:
    """Start in an empty folder and kill after so many seconds, or earlier if it was over by then; when that was."""
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        process, begin = case.start(folder, engine), time.perf_counter()
        wait(process, seconds)
        if runs.kill(process):
            return time.perf_counter() - begin
        if process.returncode:
            raise RuntimeError(f"a run must end well or be killed, got {process.returncode}: see {folder}/log.txt.")
        seconds *= 0.9


def kill_and_rerun(case: runs.Case, folder: Path, engine: str, seconds: float) -> dict[str, Any]:
    """One round: what was finished and under way at the kill, and what the rerun did."""
    after = start_and_kill(case, folder, engine, seconds)
    before, busy = runs.finished(folder), runs.under_way(folder)
    rerun = case.finish(folder, engine).wall
    again = runs.redone(before, runs.finished(folder))
    return {
        "engine": engine,
        "seconds": after,
        "under_way": busy,
        "kept_nodes": len(before) - len(again),
        "kept_chunks": len(set(runs.chunks(before)) - set(again)),
        "run_again": again,
        "rerun_seconds": rerun,
        "load": os.getloadavg()[0],
    }


def once(path: Path, make: Callable[..., dict[str, Any]], *values: Any) -> dict[str, Any]:
    """What an earlier call left in the JSON file, or what `make(*values)` gives."""
    if not path.exists():
        write_json(path, make(*values))
    return json.loads(path.read_text(encoding="utf-8"))


def different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of files that only one has, or that differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def left_in_peace(case: runs.Case, folder: Path, engine: str) -> dict[str, float]:
    """A run from an empty folder to the end."""
    shutil.rmtree(folder / f"quiet-{engine}", ignore_errors=True)
    return {"seconds": case.finish(folder / f"quiet-{engine}", engine).wall}


def study(case: runs.Case, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rounds; the engines take turns."""
    quiet = {
        engine: once(folder / f"quiet-{engine}.json", left_in_peace, case, folder, engine)["seconds"]
        for engine in args.engines
    }
    wanted = runs.outputs(folder / f"quiet-{args.engines[0]}")
    if not wanted:
        raise RuntimeError(f"a run that is left in peace must write files, got none in {folder}/quiet-*/out.")
    for engine in args.engines[1:]:
        differing = different(wanted, runs.outputs(folder / f"quiet-{engine}"))
        print(f"left in peace, {engine} differs from {args.engines[0]} in {len(differing)} of {len(wanted)} files")
    print("left in peace: " + ", ".join(f"{engine} {s:.0f} s" for engine, s in quiet.items()), flush=True)
    print(" | ".join(HEADER), flush=True)
    found = []
    for k, share in enumerate(moments(args.kills, args.seed)):
        engine, place = args.engines[k % len(args.engines)], folder / f"kill-{k}"
        result = once(Path(f"{place}.json"), kill_and_rerun, case, place, engine, share * quiet[engine])
        result |= {"kill": k + 1, "different": different(wanted, runs.outputs(place)), "files": len(wanted)}
        print(line(result), flush=True)
        found.append(result)
    return found


def line(result: dict[str, Any]) -> str:
    """A round as a line of the table."""
    busy = ", ".join(result["under_way"]) or "between nodes"
    equal = "yes" if not result["different"] else "NO: " + ", ".join(result["different"][:5])
    cells = [result["kill"], result["engine"], f"{result['seconds']:.1f}", busy, result["kept_nodes"]]
    again = len(result["run_again"]) and ", ".join(result["run_again"])
    return " | ".join(
        map(str, [*cells, result["kept_chunks"], again, f"{equal} ({result['files']} files)", f"{result['load']:.1f}"])
    )


def rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row: equal runs over all, where 1 is the goal; and the rounds themselves."""
    good = [not r["different"] and not r["run_again"] for r in found]
    share = sum(good) / len(good)
    ratio = {"median": share, "q25": share, "q75": share, "n": len(good)}
    row = {"benchmark": "nipype_kills", "case": f"{len(good)} kills", "baseline": "undisturbed run", "ratio": ratio}
    return [row | {"ours": {"median": sum(good)}, "unit": "equal runs", "rounds": found}]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="one kill of a smaller run; about two minutes")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", nargs="+", choices=runs.ENGINES, default=list(runs.ENGINES))
    parser.add_argument("--folder", type=Path, help="keep all runs here and go on with rounds that are missing")
    args = parser.parse_args()
    if args.quick:
        args.kills, args.engines = 1, ["Linear"]
    return args


def prepare(args: argparse.Namespace, folder: Path) -> runs.Case:
    """Write the subject, and refuse a folder of other rounds."""
    options = QUICK if args.quick else OPTIONS
    what = {"options": options, "kills": args.kills, "seed": args.seed, "engines": list(args.engines)}
    folder.mkdir(parents=True, exist_ok=True)
    there = once(folder / "rounds.json", dict, what)
    if there != what:
        raise SystemExit(f"--folder must be empty or have rounds of {what}, got {there} in {folder}. Name another one.")
    simulate.write_subjects(folder / "nsd", SUBJECT)  # one that is there is kept
    return runs.Case(str(folder / "nsd"), "demo", tuple(options))


def main() -> int:
    args = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder.resolve() if args.folder else Path(name)
        found = study(prepare(args, folder), args, folder)
    result = rows(found)
    print(f"{result[0]['ours']['median']} of {len(found)} equal; load average {os.getloadavg()[0]:.1f}")
    if args.json:
        write_json(Path(args.json), result)
    return int(result[0]["ratio"]["median"] < 1)


if __name__ == "__main__":
    sys.exit(main())
