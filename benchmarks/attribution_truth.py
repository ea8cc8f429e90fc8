"""What every attribution method finds of what is known to be true, and how often it finds what is not there.

    python benchmarks/attribution_truth.py [--out FOLDER] [--subjects 20] [--drawn 200] [--write docs/contribution.md]

Subjects are drawn as arrays (`common.attribution_subjects`): regions that carry two latent variables each with a
strength of their own, two redundant ones, one that has only another's noise, and noise.  What the best linear
decoder of a region alone has, and what the best of all voxels loses without it, follow from the covariances.  Rank
correlations are over the regions of a subject and target, mean over targets; mean over subjects with a 95 % interval
of t.  False positives are counted on more, smaller subjects, with regions of noise among regions of signal, and with
no signal at all; their interval is a bootstrap over subjects.  "weights" are the raw squared weights of the decoder,
which the program does not offer.

What is computed is kept in FOLDER, one file a subject, and a stopped run goes on.  --write puts the tables between
the two marks of a page.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common.attribution_subjects import KINDS, NOISE, SMALL, WHOLE, WIDTHS, Size, Subject, subject
from scipy.stats import rankdata, t

from napari_neuraldiffuser.core import attribution
from napari_neuraldiffuser.core.base.files import read_json, write_json
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams

METHODS = ("additive", "haufe", "roi-only", "leave-out", "unique")
WEIGHTS = "weights"
MARKS = "<!-- tables -->", "<!-- /tables -->"
LEVEL = 0.05
PERMUTATIONS = {"additive": 199, "haufe": 199, "roi-only": 199, "unique": 39}
"""Of which 5 % of p are at most 5 % under the null; the test of leave-out is that of unique."""
Rows = list[dict[str, Any]]


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    whole = [
        kept(args.out / f"subject-{k:03d}.json", lambda k=k: found(k, WHOLE, METHODS)) for k in range(args.subjects)
    ]
    counted = ("additive", "haufe", "roi-only", "unique")
    mixed = [kept(args.out / f"mixed-{k:04d}.json", lambda k=k: found(k, SMALL, counted)) for k in range(args.drawn)]
    none = [
        kept(args.out / f"none-{k:04d}.json", lambda k=k: found(k, SMALL, counted, encodes=False))
        for k in range(args.drawn)
    ]
    text = "\n\n".join([truth_table(whole), kind_table(whole), false_table(mixed, none)])
    print(text)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        args.write.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("attribution_truth"))
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--drawn", type=int, default=200)
    parser.add_argument("--write", type=Path)
    return parser.parse_args()


def kept(path: Path, work: Callable[[], Rows]) -> Rows:
    """What `work` gives, from its file if it was done before."""
    if not path.is_file():
        write_json(path, {"rows": work()})
    return read_json(path)["rows"]


def found(seed: int, size: Size, methods: tuple[str, ...], encodes: bool = True) -> Rows:
    """A row per method, target and region: truth, share and p values."""
    one = subject(seed, size, encodes)
    decoder = RidgeDecoder(DecodingParams(align="none")).fit(one.train, one.train_targets)
    rows = weights(one, decoder) if size is WHOLE else []
    for method in methods:
        params = ContributionParams(
            method=method,
            roi_permutations=PERMUTATIONS.get(method, 0),
            random_sets=0,
            bootstrap=50,
            seed=seed,
        )
        started = time.process_time()
        table = attribution.map(decoder, one.test, one.rois, one.test_targets, params).table
        seconds = time.process_time() - started
        for target in WIDTHS:
            own = table[(table.target == target) & ~table.roi.str.startswith("outside")].reset_index(drop=True)
            for k, kind in enumerate(one.kinds):
                values = {name: float(own[name][k]) for name in ("share", *of_tests(own)) if np.isfinite(own[name][k])}
                rows.append({**told(one, target, k, kind), "method": method, "seconds": seconds, **values})
    return rows


def of_tests(table: pd.DataFrame) -> list[str]:
    return [name for name in ("p", "p_fdr", "p_max", "random_p", "shared") if name in table]


def told(one: Subject, target: str, k: int, kind: str) -> dict[str, Any]:
    return {
        "target": target,
        "region": k,
        "kind": kind,
        "alone": float(one.alone[target][k]),
        "unique": float(one.unique[target][k]),
    }


def weights(one: Subject, decoder: RidgeDecoder) -> Rows:
    """Shares of the squared weights."""
    masks = one.rois.of(one.train)
    rows = []
    for target, width in WIDTHS.items():
        w = decoder.pull_back(target, np.eye(width, dtype=np.float32))
        energy = np.array([(w[:, mask] ** 2).sum() for mask in masks.values()]) / (w**2).sum()
        for k, kind in enumerate(one.kinds):
            rows.append({**told(one, target, k, kind), "method": WEIGHTS, "seconds": 0.0, "share": float(energy[k])})
    return rows


# ---- tables -------------------------------------------------------------------------------------------------------


def truth_table(subjects: list[Rows]) -> str:
    lines = [
        f"Rank correlation over {len(KINDS)} regions with the truth, {len(subjects)} subjects: mean [95 %].",
        "",
        "| method | with R² of the region alone | with R² that only it adds | CPU s a subject |",
        "|---|---|---|---|",
    ]
    frames = [pd.DataFrame(rows) for rows in subjects]
    for method in (*METHODS, WEIGHTS):
        own = [frame[frame.method == method] for frame in frames]
        cells = [interval([correlation(one, truth) for one in own]) for truth in ("alone", "unique")]
        seconds = np.mean([one.seconds.iloc[0] for one in own])
        lines.append(f"| {method} | {cells[0]} | {cells[1]} | {seconds:.1f} |")
    return "\n".join(lines)


def correlation(rows: pd.DataFrame, truth: str) -> float:
    """Spearman's correlation of shares with the truth over regions, mean over targets."""
    found = [np.corrcoef(rankdata(own.share), rankdata(own[truth].round(9)))[0, 1] for _, own in rows.groupby("target")]
    return float(np.mean(found))


def interval(values: list[float]) -> str:
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = np.mean(values)
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def kind_table(subjects: list[Rows]) -> str:
    """Mean share of a region of each kind, of the sum over all, and how often p is at most 5 %."""
    every = pd.DataFrame([row for rows in subjects for row in rows])
    kinds = list(dict.fromkeys(KINDS))
    lines = [
        "Mean figure of one region of each kind, and how often its p is at most 5 %.",
        "",
        f"| method | {' | '.join(kinds)} |",
        "|---" * (1 + len(kinds)) + "|",
    ]
    truths = every[every.method == METHODS[0]]
    for truth, name in (("alone", "truth: R² alone"), ("unique", "truth: R² only it adds")):
        lines.append(f"| {name} | {' | '.join(f'{truths[truths.kind == kind][truth].mean():.3f}' for kind in kinds)} |")
    for method in (*METHODS, WEIGHTS):
        own = every[every.method == method]
        cells = [one_kind(own[own.kind == kind]) for kind in kinds]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def one_kind(rows: pd.DataFrame) -> str:
    share = f"{rows.share.mean():.3f}"
    return f"{share}, {(rows.p <= LEVEL).mean():.0%}" if "p" in rows and rows.p.notna().any() else share


def false_table(mixed: list[Rows], none: list[Rows]) -> str:
    lines = [
        f"How often p is at most 5 % where nothing is encoded, {len(mixed)} small subjects each; [95 %] over subjects.",
        "",
        "| method | noise among signal: p | nothing anywhere: p | smallest p_fdr | smallest p_max | tests |",
        "|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for rows in mixed[:1] for row in rows):
        noise = [
            [row["p"] <= LEVEL for row in rows if row["method"] == method and row["kind"] == NOISE] for rows in mixed
        ]
        every = [[row["p"] <= LEVEL for row in rows if row["method"] == method] for rows in none]
        least = [share(smallest(none, method, name)) for name in ("p_fdr", "p_max")]
        count = sum(map(len, noise)), sum(map(len, every))
        lines.append(
            f"| {method} | {share(noise)} | {share(every)} | {least[0]} | {least[1]} | {count[0]:,}; {count[1]:,} |"
        )
    return "\n".join(lines)


def smallest(subjects: list[Rows], method: str, name: str) -> list[list[bool]]:
    """Whether any region of a target passes, per subject and target."""
    return [
        [
            min(row[name] for row in rows if row["method"] == method and row["target"] == target) <= LEVEL
            for target in WIDTHS
        ]
        for rows in subjects
    ]


def share(passed: list[list[bool]]) -> str:
    """Share of tests with a bootstrap interval over subjects."""
    each = np.array([np.mean(one) for one in passed])
    drawn = np.random.default_rng(0).integers(0, len(each), (2000, len(each)))
    low, high = np.quantile(each[drawn].mean(1), [0.025, 0.975])
    return f"{each.mean():.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    main()
