"""A subject of NSD's size from simulation to napari: time and peak memory of every stage, each a process of its own.

    make full-size
    .venv/bin/python scripts/full_size.py [--out DIR] [--json FILE] [--quick] [--stages simulate load ...]

The subject is simulated on NSD's own 1.8 mm matrix with four sessions of 750 trials.  Targets have the sizes of Stable
Diffusion 1.4 with CLIP ViT-B/32 (305,920 numbers an image): no such models are here, so they are a fixed random linear
expansion of the bundled models' own, which keeps what can be decoded.  `run` is the whole job with the bundled models.
Scores and page of 1,000 stimuli are made from drawn pictures of 512 px.  What is there already is made again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import full_size_stages

ROOT = Path(__file__).resolve().parents[1]
ALLOWED_GB, ALLOWED_MINUTES = 8.0, 30.0


@dataclass(frozen=True)
class Spent:
    """What one process, with those that it started, took."""

    wall: float
    cpu: float
    peak: float
    told: dict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "full-size", help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="rows (default: OUT/rows.json)")
    parser.add_argument("--quick", action="store_true", help="a small grid, small targets and few stimuli")
    parser.add_argument("--stages", nargs="+", choices=full_size_stages.STAGES, default=list(full_size_stages.STAGES))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.json or args.out / "rows.json"
    known = json.loads(path.read_text()) if path.is_file() and len(args.stages) < len(full_size_stages.STAGES) else []
    for stage in args.stages:
        spent = child(stage, args.out, args.quick)
        known = [row for row in known if row["case"] != stage] + rows(stage, spent)
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(markdown(known))
    return verdict(known)


def child(stage: str, out: Path, quick: bool) -> Spent:
    """Run a stage; the last line it prints says what it found."""
    command = [sys.executable, full_size_stages.__file__, stage, str(out), *(["--quick"] if quick else [])]
    log, began = out / f"{stage}.log", time.perf_counter()
    print(f"== {stage}", file=sys.stderr, flush=True)
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=out)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        sys.exit(f"{stage} must end well, got exit status {process.returncode}: see {log}.\n{text[-2000:]}")
    told = json.loads(text.rstrip().splitlines()[-1])
    # Linux counts in KiB
    return Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9, told)


def rows(stage: str, spent: Spent) -> list[dict]:
    """Time and memory of a stage as rows of a benchmark."""

    def one(value: float, ratio: float) -> dict:
        ours, against = (dict.fromkeys(("median", "q25", "q75"), round(x, 3)) | {"n": 1} for x in (value, ratio))
        return {"benchmark": "full_size", "case": stage, "ours": ours, "ratio": against, "told": spent.told}

    return [
        one(spent.cpu, spent.wall / max(spent.cpu, 1e-9)) | {"baseline": "wall clock", "unit": "s"},
        one(spent.peak, ALLOWED_GB / spent.peak) | {"baseline": f"{ALLOWED_GB:g} GB allowed", "unit": "GB"},
    ]


def markdown(known: list[dict]) -> str:
    """The table of stages."""
    lines = ["| stage | CPU s | wall s | peak GB | what |", "| --- | --- | --- | --- | --- |"]
    for stage in dict.fromkeys(row["case"] for row in known):
        seconds, memory = (next(r for r in known if r["case"] == stage and r["unit"] == unit) for unit in ("s", "GB"))
        cpu, wall = seconds["ours"]["median"], seconds["ours"]["median"] * seconds["ratio"]["median"]
        what = ", ".join(f"{name} {value}" for name, value in seconds["told"].items())
        lines.append(f"| {stage} | {cpu:.1f} | {wall:.1f} | {memory['ours']['median']:.2f} | {what} |")
    return "\n".join(lines)


def verdict(known: list[dict]) -> int:
    """0 where time and memory are kept."""
    seconds = [row["ours"]["median"] * row["ratio"]["median"] for row in known if row["unit"] == "s"]
    over = [row["case"] for row in known if row["unit"] == "GB" and row["ours"]["median"] > ALLOWED_GB]
    if over:
        print(f"memory must stay below {ALLOWED_GB:g} GB, but not in: {', '.join(over)}", file=sys.stderr)
    if sum(seconds) > 60 * ALLOWED_MINUTES:
        print(f"all stages must take {ALLOWED_MINUTES:g} minutes at most, got {sum(seconds) / 60:.0f}", file=sys.stderr)
    return 1 if over or sum(seconds) > 60 * ALLOWED_MINUTES else 0


if __name__ == "__main__":
    sys.exit(main())
