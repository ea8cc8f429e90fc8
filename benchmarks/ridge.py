"""Ridge decoding against himalaya and scikit-learn on one problem with the same penalties, and a whole subject.

    python benchmarks/ridge.py [--json FILE] [--quick] [--pairs N] [--device cpu|cuda] [--full FOLDER]

Rows: fit with the choice of 8 penalties, and prediction of 100 more stimuli, each contender once a round.  `group` is
one penalty for all columns, `target` one for each, as both others have.  himalaya's KernelRidgeCV runs on its torch
backend with 5 folds, scikit-learn's RidgeCV leaves one out.  Ratios are of processor time; set OMP_NUM_THREADS=1.
The floor is what our algorithm must at least take: its products at the rate that this machine was measured to
multiply matrices with, and the eigendecomposition of a matrix of this size.

--full writes a simulated subject of 9,000 training and 1,000 test stimuli, 15,724 voxels and 305,920 targets to FOLDER
(6.5 GB, deleted in the end), streams it, and gives the seconds of every stage and the peak memory; --rank and
--penalty choose what is fitted.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import scipy.linalg

from benchmarks.common.timing import ratio
from napari_neuraldiffuser.core.decoding import RidgeDecoder, load, ridge
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile, dataset_name
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.params import LAYERS, DecodingParams

LATENTS = 64
ROWS = 200


@dataclass(frozen=True)
class Size:
    """Training and test stimuli, voxels, and the shapes of a stimulus' targets."""

    n: int
    m: int
    p: int
    shapes: dict[str, tuple[int, ...]]

    @property
    def targets(self) -> int:
        """Numbers per stimulus."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def __str__(self) -> str:
        return f"n {self.n:,}, p {self.p:,}, T {self.targets:,}"


def small(n: int, p: int, t: int) -> Size:
    """A problem of t columns, nearly all of them in one target."""
    return Size(n, 100, p, {"z": (1, 1), "c": (1, t - 1)})


SIZES = (small(2000, 5000, 5000), small(1000, 5000, 10_000))
QUICK = (small(500, 1200, 1000),)
FULL = Size(9000, 1000, 15_724, {"z": (4, 64, 64), "c": (77, 768)} | {layer: (50, 768) for layer in LAYERS})


def betas(size: Size, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What was seen, (n + m, LATENTS), and voxels that carry it under noise of every scale, (n + m, p) float32."""
    rng = np.random.default_rng(seed)
    seen = rng.standard_normal((size.n + size.m, LATENTS), dtype=np.float32)
    x = seen @ rng.standard_normal((LATENTS, size.p), dtype=np.float32) * 0.1
    for start in range(0, len(x), ROWS):
        x[start : start + ROWS] += rng.standard_normal(x[start : start + ROWS].shape, dtype=np.float32)
    return seen, x / x.std(0)


def targets(seen: np.ndarray, shape: tuple[int, ...], seed: int):
    """Blocks of rows (ROWS, T) of a target that depends on what was seen; noise differs between columns."""
    rng = np.random.default_rng(seed)
    width = int(np.prod(shape))
    mix = rng.standard_normal((LATENTS, width), dtype=np.float32)
    noise = rng.uniform(2, 30, width).astype(np.float32)
    for start in range(0, len(seen), ROWS):
        part = seen[start : start + ROWS]
        yield start, part @ mix + noise * rng.standard_normal((len(part), width), dtype=np.float32) + 1


def clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall-clock seconds."""
    before = clocks()
    call()
    after = clocks()
    return after[0] - before[0], after[1] - before[1]


# ---- against others -----------------------------------------------------------------------------------------------


def contenders(size: Size, device: str, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """Fit and predict of each; they give predictions (m, T)."""
    seen, x = betas(size, seed)
    flat = {name: np.concatenate([y for _, y in targets(seen, shape, seed)]) for name, shape in size.shapes.items()}
    ids, n = np.arange(len(x)), size.n
    train, test = Betas(x, ids, ids >= n, np.ones_like(ids)).split()
    y = np.concatenate(list(flat.values()), 1)[:n]
    shaped = {name: values[:n].reshape(n, *size.shapes[name]) for name, values in flat.items()}
    ours = Embeddings(shaped["z"], shaped["c"], {}, ids[:n])
    params = DecodingParams(align="none", align_targets=("g02",), decoder_device=device)
    alphas = np.array(params.alphas)

    def fitted(penalty: str) -> np.ndarray:
        decoder = RidgeDecoder(replace(params, penalty=penalty)).fit(train, ours)
        similarity = decoder.similarity(decoder.centre(test))
        return np.concatenate([decoder.deviations(t, similarity) + decoder.accuracy[t].mean for t in decoder.names], 1)

    def himalaya() -> np.ndarray:
        from himalaya.backend import set_backend
        from himalaya.kernel_ridge import KernelRidgeCV

        set_backend("torch_cuda" if device == "cuda" else "torch")
        mean, offset = x[:n].mean(0), y.mean(0)
        model = KernelRidgeCV(alphas=alphas, kernel="linear", cv=5).fit(x[:n] - mean, y - offset)
        return np.asarray(model.predict(x[n:] - mean).cpu()) + offset

    def sklearn() -> np.ndarray:
        from sklearn.linear_model import RidgeCV

        return RidgeCV(alphas, alpha_per_target=True).fit(x[:n], y).predict(x[n:])

    return {
        "group": lambda: fitted("group"),
        "target": lambda: fitted("target"),
        "himalaya KernelRidgeCV": himalaya,
        "scikit-learn RidgeCV": sklearn,
    }


def rates(n: int) -> dict[str, float]:
    """FLOP/s of products in single and double precision, and seconds of an eigendecomposition (n, n)."""
    rng = np.random.default_rng(0)
    single, double = rng.standard_normal((2048, 2048), dtype=np.float32), rng.standard_normal((2048, 2048))
    best = lambda call: min(timed(call)[0] for _ in range(3))  # noqa: E731
    gram = double @ double.T
    gram = np.pad(gram, (0, max(0, n - 2048)))[:n, :n] + np.diag(np.arange(n, dtype=float))
    return {
        "single": 2 * 2048**3 / best(lambda: single @ single),
        "double": 2048**3 / best(lambda: double @ double.T),
        "eigh": timed(lambda: scipy.linalg.eigh(gram, driver="evd"))[0],
    }


def floor(size: Size, penalty: str, rate: dict[str, float], scored: int) -> float:
    """Seconds of the Gram matrix, its eigendecomposition, rotated targets, and predictions."""
    n, t, m = size.n, size.targets, size.m
    small_side, large_side = sorted((n, size.p))
    rotated = 2 * n**2 * (t if penalty == "target" else scored)
    products = rotated + 2 * m * n * t
    return small_side**2 * large_side / rate["double"] + rate["eigh"] + products / rate["single"]


def compare(size: Size, pairs: int, device: str) -> list[dict]:
    """Rows of one problem."""
    calls = contenders(size, device, seed=pairs)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    predicted: dict[str, np.ndarray] = {}
    for _ in range(pairs):
        for name, call in calls.items():
            before = clocks()
            predicted[name] = call()
            times[name].append(tuple(after - start for after, start in zip(clocks(), before, strict=True)))
    off = np.abs(predicted["target"] - predicted["scikit-learn RidgeCV"]).max()
    print(f"largest difference of `target` from scikit-learn: {off:.1e}", file=sys.stderr)
    rate, out = rates(min(size.n, size.p)), []
    scored = sum(min(DecodingParams().cv_targets, int(np.prod(s))) for s in size.shapes.values())
    for penalty in ("group", "target"):
        cpu = [each[0] for each in times[penalty]]
        least = floor(size, penalty, rate, scored)
        for baseline in ("himalaya KernelRidgeCV", "scikit-learn RidgeCV"):
            compared = ratio([each[0] for each in times[baseline]], cpu)
            row = {"benchmark": "ridge", "case": f"{penalty}: {size}", "baseline": baseline, "ratio": compared}
            seconds = {
                "median": float(np.median(cpu)),
                "wall": float(np.median([each[1] for each in times[penalty]])),
                "baseline_median": float(np.median([each[0] for each in times[baseline]])),
                "over_floor": float(np.median(cpu) / least),
            }
            out.append(row | {"ours": seconds, "unit": "CPU s"})
            print(
                f"{row['case']}: {seconds['median']:.2f} s ({seconds['over_floor']:.2f} of the floor), "
                f"{compared['median']:.1f}x {baseline}",
                file=sys.stderr,
            )
    return out


# ---- a whole subject ----------------------------------------------------------------------------------------------


def write_subject(size: Size, folder: Path) -> tuple[Betas, Betas, Path]:
    """Betas in memory, and targets of the training stimuli in a file as `extract` writes it, block by block."""
    seen, x = betas(size, 7)
    ids = np.arange(len(x))
    path = folder / "targets.h5"
    with h5py.File(path, "w") as file:
        file["stimulus_id"] = ids[: size.n]
        for k, (name, shape) in enumerate(size.shapes.items()):
            dtype = np.float32 if name == "z" else np.float16
            out = file.create_dataset(dataset_name(name), (size.n, *shape), dtype)
            for start, values in targets(seen[: size.n], shape, k):
                out[start : start + len(values)] = values.astype(dtype).reshape(-1, *shape)
    return *Betas(x, ids, ids >= size.n, np.ones_like(ids)).split(), path


class Stages:
    """Seconds and peak memory after every stage, told as they end."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def __call__(self, name: str, call: Callable[[], object]) -> object:
        before = clocks()
        result = call()
        cpu, wall = (after - start for after, start in zip(clocks(), before, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.rows.append({"stage": name, "cpu": cpu, "wall": wall, "peak_gb": peak})
        print(f"{name}: {cpu:.1f} CPU s, {wall:.1f} s, peak {peak:.2f} GB", file=sys.stderr, flush=True)
        return result


def whole_subject(size: Size, folder: Path, params: DecodingParams) -> list[dict]:
    """Stage by stage: decompose, fit, save, load, predict all, predict one."""
    stage = Stages()
    train, test, path = stage("simulate and write", lambda: write_subject(size, folder))
    stage("decompose", lambda: ridge.decompose(train, folder / "spectrum.h5", params))
    with TargetFile(path) as file:
        told = lambda done, total, what: print(f"  {what} {done}/{total}", file=sys.stderr, flush=True)  # noqa: E731
        fitted = lambda: RidgeDecoder(params).fit(train, file, told, spectrum=folder / "spectrum.h5")  # noqa: E731
        decoder = stage("fit", fitted)
        (folder / "spectrum.h5").unlink()
        stage("save", lambda fitted=decoder: fitted.save(folder / "decoder.h5", "refer"))
        del decoder
    print(f"  decoder file {(folder / 'decoder.h5').stat().st_size / 1e9:.2f} GB", file=sys.stderr)
    loaded = stage("load", lambda: load(folder / "decoder.h5"))
    one = test.subset(test.stimulus_ids[:1])
    for _ in range(3):
        stage("predict one stimulus", lambda: loaded.predict(one))
    stage(f"predict {size.m:,} stimuli", lambda: loaded.predict(test))
    loaded.close()
    return stage.rows


def full_rows(size: Size, folder: Path, params: DecodingParams) -> list[dict]:
    """A row for each stage; its ratio is of nothing, as there is no other that runs at this size."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        stages = whole_subject(size, Path(place), params)
    nothing = {"median": float("nan"), "q25": float("nan"), "q75": float("nan"), "n": 1}
    return [
        {"benchmark": "ridge-full", "case": f"{row['stage']}: {size}", "baseline": "none", "ratio": nothing}
        | {"ours": row, "unit": "CPU s"}
        for row in stages
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="a small problem, under a minute")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where products run")
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="a whole subject, written to this folder")
    parser.add_argument("--rank", type=int, default=0, help="with --full: directions that are kept")
    parser.add_argument("--penalty", default="group", choices=("group", "block", "target"), help="with --full")
    args = parser.parse_args()
    if args.full:
        params = DecodingParams(ridge_rank=args.rank, penalty=args.penalty, decoder_device=args.device)
        size = replace(FULL, n=900, m=100, p=1500) if args.quick else FULL
        result = full_rows(size, args.full, params)
    else:
        result = [row for size in (QUICK if args.quick else SIZES) for row in compare(size, args.pairs, args.device)]
    if args.json:
        temporary = args.json.with_name(args.json.name + ".tmp")
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, args.json)


if __name__ == "__main__":
    main()
