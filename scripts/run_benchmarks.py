"""Run every script of benchmarks/ and print the rows they write as one table."""

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
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    scripts = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if not p.name.startswith("_"))
    if not scripts:
        print("benchmarks/ holds no script.", file=sys.stderr)
        return 1
    failed = [script.name for script in scripts if not run(script, args)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(script: Path, args: argparse.Namespace) -> bool:
    """Run one script; True when it ended well (or cannot use the wanted device)."""
    target = args.out / f"{script.stem}.json"
    command = [sys.executable, str(script), "--json", str(target)]
    if args.quick:
        command.append("--quick")
    if args.device:
        if "--device" not in script.read_text(encoding="utf-8"):
            print(f"{script.name}: no --device option, skipped", file=sys.stderr)
            return True
        command += ["--device", args.device]
    print(f"== {script.name}", flush=True)
    if subprocess.run(command, cwd=ROOT).returncode:
        return False
    print_rows(json.loads(target.read_text(encoding="utf-8")))
    return True


def print_rows(rows: list[dict]) -> None:
    """One line a row: larger ratios are better."""
    for row in rows:
        ratio = row["ratio"]
        spread = f"{ratio['median']:.2f}x (quartiles {ratio['q25']:.2f}-{ratio['q75']:.2f}, n {ratio['n']})"
        print(f"{row['benchmark']:<22}{row['case']:<34}{row['baseline']:<22}{spread}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
