"""Ridge decoding against himalaya and scikit-learn on one problem with the same penalties, and a whole subject.

    python benchmarks/ridge.py [--json FILE] [--quick] [--pairs N] [--device cpu|cuda] [--full FOLDER]

Rows: fit with the choice of 8 penalties, and prediction of 100 more stimuli, each contender once a round.  `group` is
one penalty for all columns, `target` one for each, as both others have.  himalaya's KernelRidgeCV runs on its torch
backend with 5 folds, scikit-learn's RidgeCV leaves one out.  Ratios are of processor time; set OMP_NUM_THREADS=1.
The floor is what our algorithm must at least take: its products at the rate that this machine was measured to
multiply matrices with, and the eigendecomposition of a matrix of this size.

--full writes a simulated subject of 9,000 training and 1,000 test stimuli, 15,724 voxels and 305,920 targets to FOLDER
(5.5 GB, deleted in the end unless --keep), streams it, and gives the seconds of every stage and the peak memory so
far; --rank and --penalty choose what is fitted.  With --keep a second call goes on with the decoder of the first.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import scipy.linalg

from benchmarks.common.timing import ratio
from napari_neuraldiffuser.core.decoding import RidgeDecoder, load, ridge, solver
from napari_neuraldiffuser.core.decoding.fitting import Fitting
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile, dataset_name
from napari_neuraldiffuser.core.nsd.betas import Betas
from napari_neuraldiffuser.core.params import LAYERS, DecodingParams

LATENTS = 64
ROWS = 200
DECODER = "decoder.h5"


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
    n = size.n
    train, test = parted(x, size)
    y = np.concatenate(list(flat.values()), 1)[:n]
    shaped = {name: values[:n].reshape(n, *size.shapes[name]) for name, values in flat.items()}
    ours = Embeddings(shaped["z"], shaped["c"], {}, train.stimulus_ids)
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
                f"{row['case']}: {seconds['median']:.2f} s ({min(cpu):.2f} to {max(cpu):.2f}; "
                f"{seconds['over_floor']:.2f} of the floor), {compared['median']:.1f}x "
                f"({compared['q25']:.1f} to {compared['q75']:.1f}) {baseline}",
                file=sys.stderr,
                flush=True,
            )
    return out


# ---- a whole subject ----------------------------------------------------------------------------------------------


def parted(x: np.ndarray, size: Size) -> tuple[Betas, Betas]:
    """Training and test betas."""
    ids = np.arange(len(x))
    return Betas(x, ids, ids >= size.n, np.ones_like(ids)).split()


def write_subject(size: Size, folder: Path) -> tuple[Betas, Path]:
    """Training betas in memory, and their targets in a file as `extract` writes it, block by block."""
    seen, x = betas(size, 7)
    path = folder / "targets.h5"
    with h5py.File(path, "w") as file:
        file["stimulus_id"] = np.arange(size.n)
        for k, (name, shape) in enumerate(size.shapes.items()):
            dtype = np.float32 if name == "z" else np.float16
            out = file.create_dataset(dataset_name(name), (size.n, *shape), dtype)
            for start, values in targets(seen[: size.n], shape, k):
                out[start : start + len(values)] = values.astype(dtype).reshape(-1, *shape)
    return parted(x, size)[0], path


class Stages:
    """Seconds and peak memory of every stage, told as they end, and of parts inside of a stage."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def __call__(self, name: str, call: Callable[[], object]) -> object:
        before = clocks()
        result = call()
        self._tell(name, before)
        return result

    def _tell(self, name: str, before: tuple[float, float]) -> None:
        cpu, wall = (after - start for after, start in zip(clocks(), before, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.rows.append({"stage": name, "cpu": cpu, "wall": wall, "peak_gb": peak})
        print(f"{name}: {cpu:.1f} CPU s, {wall:.1f} s, peak {peak:.2f} GB", file=sys.stderr, flush=True)

    @contextmanager
    def inside(self, **parts: tuple[object, str]) -> Iterator[None]:
        """Count the seconds of functions, given as their owner and name, and tell their sums in the end."""
        spent = dict.fromkeys(parts, (0.0, 0.0))
        with ExitStack() as stack:
            for part, (owner, name) in parts.items():
                real = getattr(owner, name)

                def counted(*args, part=part, real=real, **named):
                    before = clocks()
                    result = real(*args, **named)
                    spent[part] = tuple(
                        sum_ + after - start for sum_, after, start in zip(spent[part], clocks(), before, strict=True)
                    )
                    return result

                stack.enter_context(mock.patch.object(owner, name, counted))
            yield
        for part, seconds in spent.items():
            self._tell(f"  of which {part}", tuple(now - each for now, each in zip(clocks(), seconds, strict=True)))


def told(done: int, total: int, what: str) -> None:
    print(f"  {what} {done}/{total}", file=sys.stderr, flush=True)


def gigabytes(path: Path) -> float:
    return path.stat().st_size / 1e9


def fit_subject(size: Size, folder: Path, params: DecodingParams, stage: Stages) -> None:
    """Write the subject, and fit its decoder, which refers to the targets."""
    train, path = stage("simulate and write", lambda: write_subject(size, folder))
    with stage.inside(Gram=(solver, "gram"), eigendecomposition=(solver, "_eigh")):
        stage("decompose", lambda: ridge.decompose(train, folder / "spectrum.h5", params))
    with TargetFile(path) as file:
        fitted = lambda: RidgeDecoder(params).fit(train, file, told, spectrum=folder / "spectrum.h5")  # noqa: E731
        parts = {"penalties": (Fitting, "_penalised"), "alignment": (Fitting, "_alignment")}
        with stage.inside(**parts):
            decoder = stage("fit", fitted)
        (folder / "spectrum.h5").unlink()
        stage("save", lambda: decoder.save(folder / DECODER, "refer"))
    size_gb, half = gigabytes(folder / DECODER), 2 * size.n * size.targets / 1e9
    print(
        f"  decoder file {size_gb:.2f} GB with refer; counted: {size_gb + half:.2f} with half, "
        f"{size_gb + gigabytes(path):.2f} with copy",
        file=sys.stderr,
    )


def use_subject(size: Size, folder: Path, rank: int, stage: Stages) -> None:
    """Predict with the decoder, and with one reduced to `rank` directions unless that is 0."""
    test = parted(betas(size, 7)[1], size)[1]
    exact = predict(size, folder / DECODER, test, stage, "")
    if rank:
        exact.params = exact.params.but(ridge_rank=rank)
        stage(f"reduce to {rank} directions", lambda: exact._reduce(told))
        exact.save(folder / "reduced.h5")
        print(f"  {exact.compact_said()}; file {gigabytes(folder / 'reduced.h5'):.2f} GB", file=sys.stderr)
        predict(size, folder / "reduced.h5", test, stage, ", reduced").close()
    exact.close()


def predict(size: Size, path: Path, test: Betas, stage: Stages, how: str) -> RidgeDecoder:
    """Load a decoder, and predict one stimulus several times, 100 and all."""
    loaded = stage(f"load{how}", lambda: load(path))
    for k in range(3):
        one = test.subset(test.stimulus_ids[k : k + 1])
        stage(f"predict one stimulus{how}", lambda one=one: loaded.predict(one))
    for m in (min(100, size.m), size.m):
        some = test.subset(test.stimulus_ids[:m])
        stage(f"predict {m:,} stimuli{how}", lambda some=some: loaded.predict(some))
    return loaded


def whole_subject(size: Size, folder: Path, params: DecodingParams, rank: int) -> list[dict]:
    """A row for each stage, beside no other: none runs at this size."""
    stage = Stages()
    if not (folder / DECODER).is_file():
        fit_subject(size, folder, params, stage)
    use_subject(size, folder, rank, stage)
    return [
        {"benchmark": "ridge-full", "case": f"{row['stage']}: {size}", "baseline": None, "ratio": None}
        | {"ours": row, "unit": "CPU s"}
        for row in stage.rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="a small problem, under a minute")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where products run")
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="a whole subject, written to this folder")
    parser.add_argument("--stimuli", type=int, default=FULL.n, help="with --full: training stimuli")
    parser.add_argument("--rank", type=int, default=0, help="with --full: reduce to so many directions, too")
    parser.add_argument("--keep", action="store_true", help="with --full: keep the files, or use those that are there")
    parser.add_argument("--penalty", default="group", choices=("group", "block", "target"), help="with --full")
    args = parser.parse_args()
    if args.full:
        params = DecodingParams(penalty=args.penalty, decoder_device=args.device)
        size = replace(FULL, n=900, m=100, p=1500) if args.quick else replace(FULL, n=args.stimuli)
        with nullcontext(args.full) if args.keep else tempfile.TemporaryDirectory(dir=args.full) as folder:
            result = whole_subject(size, Path(folder), params, args.rank)
    else:
        result = [row for size in (QUICK if args.quick else SIZES) for row in compare(size, args.pairs, args.device)]
    if args.json:
        temporary = args.json.with_name(args.json.name + ".tmp")
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, args.json)


if __name__ == "__main__":
    main()
