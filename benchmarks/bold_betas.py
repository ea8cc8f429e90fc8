"""Decoding from betas that were estimated from BOLD, against the betas that the BOLD was made from.

    python benchmarks/bold_betas.py [--json FILE] [--quick] [--seeds N] [--tsnr T ...] [--estimators E ...]

For every seed a subject is scanned anew (`neuraldiffuser simulate --bold`), its betas are estimated with the defaults
of BoldParams, and the ridge decoder is fitted to true and to estimated betas.  The figure is the correlation of decoded
with true targets over the held-out stimuli, mean over the numbers of each target; the ratio is estimated over true,
mean over targets.  Control: the same with training stimuli dealt out anew.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from common.held_out import correlations, ratios, scan

from napari_neuraldiffuser.core.networks import models
from napari_neuraldiffuser.core.params import BoldParams, BoldSimulationParams, default_of

QUICK = {"n_sessions": 2, "n_runs": 4}


def measure(seed: int, tsnr: float, estimators: list[str], loaded: models.Models, quick: bool) -> dict[str, dict]:
    """Correlations of true betas, of each estimator's and of its control, for one subject."""
    params = BoldSimulationParams(seed=seed, tsnr=tsnr, **(QUICK if quick else {}))
    with tempfile.TemporaryDirectory() as folder:
        scans = scan(Path(folder), params, loaded)
        found = {"true": correlations(scans, scans.true)}
        for name in estimators:
            source = scans.estimated(BoldParams(estimator=name))
            found[name] = correlations(scans, source)
            found[f"{name}, shuffled"] = correlations(scans, source, shuffle=seed)
        scans.targets.close()
    for name, values in found.items():
        mean = np.mean(list(ratios(values, found["true"]).values()))
        print(f"seed {seed} tsnr {tsnr:g} {name}: ratio {mean:.3f}  " + _text(values), file=sys.stderr, flush=True)
    return found


def _text(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items())


def row(name: str, tsnr: float, subjects: list[dict[str, dict]]) -> dict:
    """One estimator (or its control) over all subjects."""
    ratio = [np.mean(list(ratios(one[name], one["true"]).values())) for one in subjects]
    q25, median, q75 = np.percentile(ratio, [25, 50, 75])
    means = {k: round(float(np.mean([one[name][k] for one in subjects])), 4) for k in subjects[0][name]}
    return {
        "benchmark": "bold_betas",
        "case": f"{name}, t-SNR {tsnr:g}",
        "baseline": "true betas",
        "ratio": {"median": float(median), "q25": float(q25), "q75": float(q75), "n": len(ratio)},
        "ours": means | {"lowest_ratio": float(min(ratio)), "highest_ratio": float(max(ratio))},
        "unit": "correlation",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="one smaller subject, under a minute")
    parser.add_argument("--seeds", type=int, default=5, help="subjects")
    parser.add_argument("--first-seed", type=int, default=100, help="seed of the first one")
    parser.add_argument("--tsnr", type=float, nargs="+", default=[default_of(BoldSimulationParams, "tsnr")])
    parser.add_argument("--estimators", nargs="+", default=["lss", "lsa"])
    args = parser.parse_args()
    loaded, rows = models.load("demo"), []
    for tsnr in args.tsnr:
        seeds = range(args.first_seed, args.first_seed + (1 if args.quick else args.seeds))
        subjects = [measure(seed, tsnr, args.estimators, loaded, args.quick) for seed in seeds]
        rows += [row(name, tsnr, subjects) for name in subjects[0]]
    if args.json:
        temporary = args.json.with_name(args.json.name + ".tmp")
        temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, args.json)


if __name__ == "__main__":
    main()
