"""Ridge decoding at the size of the demo subject against scikit-learn, interleaved, on random data.

    python benchmarks/decoding.py [--json FILE] [--quick] [--pairs N]

Rows: the fit (one of 8 penalties for each of 8 groups by leave-one-out, targets streamed from HDF5) with the
prediction of the test stimuli, against `Ridge` at one given penalty, which chooses nothing; and the fit alone
against `RidgeCV` with the same penalties on as many columns as are scored, which fits no others.  Threads are
left as they are set in the environment; times are wall-clock seconds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV

from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.params import LAYERS, DecodingParams


@dataclass(frozen=True)
class Size:
    """Training and test stimuli, voxels, and the shapes of one stimulus' z, c and layer of g."""

    n: int
    m: int
    p: int
    z: tuple[int, ...]
    c: tuple[int, ...]
    g: tuple[int, ...]

    @property
    def targets(self) -> int:
        """Numbers per stimulus."""
        return int(np.prod(self.z) + np.prod(self.c) + len(LAYERS) * np.prod(self.g))

    def __str__(self) -> str:
        return f"n {self.n}, p {self.p}, T {self.targets}"


DEMO = Size(1350, 60, 2000, (4, 16, 16), (24, 64), (65, 96))
QUICK = Size(500, 60, 800, (4, 16, 16), (8, 64), (17, 64))


def make_problem(size: Size, folder: Path) -> tuple[Betas, Betas, TargetFile]:
    """Random betas whose first voxels carry the targets, and a target file as `extract` writes it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size.n + size.m, size.p), dtype=np.float32)
    latent = x[: size.n, :50]

    def target(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        mix = rng.standard_normal((50, int(np.prod(shape))), dtype=np.float32)
        noise = rng.standard_normal((size.n, mix.shape[1]), dtype=np.float32)
        return (latent @ mix + 10 * noise).astype(dtype).reshape(size.n, *shape)

    g = {layer: target(size.g, np.float16) for layer in LAYERS}
    targets = Embeddings(target(size.z, np.float32), target(size.c, np.float16), g, np.arange(size.n))
    targets.save(folder / "targets.h5")
    ids = np.arange(len(x))
    betas = Betas(x, ids, ids >= size.n, np.ones_like(ids))
    return *betas.split(), TargetFile(folder / "targets.h5")


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(ours, baseline, pairs: int) -> tuple[dict, dict]:
    """Times of both, one after the other in turn, as a ratio with quartiles and our median."""
    times = np.array([(timed(ours), timed(baseline)) for _ in range(pairs)])
    ratio = times[:, 1] / times[:, 0]
    q25, median, q75 = np.percentile(ratio, [25, 50, 75])
    seconds = {"median": float(np.median(times[:, 0])), "baseline_median": float(np.median(times[:, 1]))}
    return {"median": float(median), "q25": float(q25), "q75": float(q75), "n": pairs}, seconds


def rows(size: Size, pairs: int, folder: Path) -> list[dict]:
    """The benchmark's rows."""
    train, test, targets = make_problem(size, folder)
    params = DecodingParams()
    flat = np.concatenate([targets[t][...].reshape(size.n, -1).astype(np.float32) for t in targets], axis=1)
    scored = sum(min(params.cv_targets, int(np.prod(targets[t].shape[1:]))) for t in targets)
    with targets:
        cases = [
            (
                "fit and predict",
                "sklearn Ridge, no penalty search",
                lambda: RidgeDecoder(params).fit(train, targets).predict(test),
                lambda: Ridge(alpha=1e3).fit(train.data, flat).predict(test.data),
            ),
            (
                "fit",
                "sklearn RidgeCV, scored columns",
                lambda: RidgeDecoder(params).fit(train, targets),
                lambda: RidgeCV(params.alphas, alpha_per_target=True).fit(train.data, flat[:, :scored]),
            ),
        ]
        out = []
        for what, against, ours, baseline in cases:
            ratio, seconds = compare(ours, baseline, pairs)
            row = {"benchmark": "decoding", "case": f"{what}: {size}", "baseline": against, "ratio": ratio}
            out.append(row | {"ours": seconds, "unit": "s"})
            print(f"{row['case']}: {seconds['median']:.2f} s, {ratio['median']:.2f}x {against}", file=sys.stderr)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="a smaller subject, under a minute")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved repeats")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = rows(QUICK if args.quick else DEMO, args.pairs, Path(folder))
    if args.json:
        temporary = args.json.with_name(args.json.name + ".tmp")
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, args.json)


if __name__ == "__main__":
    main()
