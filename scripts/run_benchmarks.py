"""Run every script of benchmarks/ and print the rows they write as Markdown tables."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of the JSON files")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="passed on to scripts that know --device")
    parser.add_argument("--quick", action="store_true", help="each script in under a minute")
    parser.add_argument("--markdown", action="store_true", help="only print the tables of the rows in --out")
    args = parser.parse_args()
    failed = [] if args.markdown else run_all(args)
    files = sorted(args.out.glob("*.json"))
    if not files:
        print(f"{args.out} must hold rows of a benchmark, got no JSON file. Run without --markdown.", file=sys.stderr)
        return 1
    for path in files:
        print("\n" + markdown(json.loads(path.read_text(encoding="utf-8"))))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_all(args: argparse.Namespace) -> list[str]:
    """Run the scripts; names of those that failed."""
    args.out.mkdir(parents=True, exist_ok=True)
    scripts = sorted((ROOT / "benchmarks").glob("*.py"))
    return [script.name for script in scripts if not run(script, args)]


def run(script: Path, args: argparse.Namespace) -> bool:
    """Run one script; True when it ended well (or cannot use the wanted device)."""
    target = args.out / f"{script.stem}.json"
    target.unlink(missing_ok=True)  # rows of an earlier run must not stand for this one
    command = [sys.executable, str(script), "--json", str(target)]
    if args.quick:
        command.append("--quick")
    if args.device:
        if "--device" not in script.read_text(encoding="utf-8"):
            print(f"{script.name}: no --device option, skipped", file=sys.stderr)
            return True
        command += ["--device", args.device]
    print(f"== {script.name}", flush=True)
    return subprocess.run(command, cwd=ROOT).returncode == 0


# ---- tables -----------------------------------------------------------------------------------------------------


def markdown(rows: list[dict]) -> str:
    """One table for each benchmark: a line for each case, a column of ratios for each baseline."""
    names = dict.fromkeys(row["benchmark"] for row in rows)
    return "\n\n".join(table(name, [row for row in rows if row["benchmark"] == name]) for name in names)


def table(name: str, rows: list[dict]) -> str:
    baselines = list(dict.fromkeys(row["baseline"] for row in rows))
    lines = [["case", "ours", *baselines], ["---"] * (2 + len(baselines))]
    for case in dict.fromkeys(row["case"] for row in rows):
        cells = {row["baseline"]: row for row in rows if row["case"] == case}
        first = next(iter(cells.values()))
        ours = f"{number(first['ours']['median'])} {first['unit']}"
        lines.append([case, ours, *(cell(cells[b]["ratio"]) if b in cells else "" for b in baselines)])
    return f"`{name}`\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(ratio: dict) -> str:
    """Median and quartiles of baseline / ours."""
    return f"{ratio['median']:.2f} ({ratio['q25']:.2f}-{ratio['q75']:.2f})"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
