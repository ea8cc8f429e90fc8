"""Two worker processes that share one device against one that has it alone: is a GPU filled by one worker?

    python benchmarks/gpu_workers.py [--json FILE] [--quick] [--device cuda] [--models NAME] [--guide NAME] [--rounds N]

The same guided images, made by one process or by two with half of them each; models are opened and one image is made
before the clock starts.  Rows: seconds of one worker over those of two.  The lease of `gpu_lease`
keeps workers from sharing a device by accident; this says what it would gain on purpose.  Embeddings are noise, which
costs what decoded ones cost.
"""

import argparse
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.timing import quartiles, ratio

from napari_neuraldiffuser.core.base.files import write_json

PATIENCE = 900.0
"""Seconds after which a worker that does not come to the start or the end is given up."""


@dataclass(frozen=True)
class Case:
    """What one process does."""

    models: str
    guide: str
    device: str
    stimuli: int
    quick: bool


def noise(models: Any, n: int) -> Any:
    """Embeddings of `n` stimuli of the shapes that the models want."""
    import torch

    from napari_neuraldiffuser.core.networks.embeddings import Embeddings
    from napari_neuraldiffuser.core.params import LAYERS

    rng = np.random.default_rng(0)
    pixels = torch.zeros(1, 3, models.guide_size(), models.guide_size(), device=models.device)
    shape, text = models.features(pixels)[0].shape[1:], models.encode_text(["a red ball"])[0].shape

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=(n, *shape)).astype(np.float32)

    g = {layer: draw(*shape) for layer in LAYERS}
    attrs = {"feature_normalisation": "imagenet", "model_digest": models.digest}
    return Embeddings(draw(*models.latent_shape), draw(*text), g, np.arange(n), attrs)


def work(case: Case, barrier: Any) -> None:
    """One worker: open the models, make an image, wait for the start, make its share, say that it is done."""
    from napari_neuraldiffuser.core import reconstruct
    from napari_neuraldiffuser.core.networks import models
    from napari_neuraldiffuser.core.params import preset

    loaded = models.load(case.models, case.guide or None, case.device)
    diffusion, guidance = preset("demo" if case.models == "demo" else "neuraldiffuser")
    diffusion = diffusion.but(repeats=1, n_steps=6) if case.quick else diffusion.but(repeats=1)
    embeddings = noise(loaded, case.stimuli)
    reconstruct(embeddings.subset([0]), loaded, diffusion, guidance)
    barrier.wait(PATIENCE)
    reconstruct(embeddings, loaded, diffusion, guidance)
    barrier.wait(PATIENCE)


def seconds(case: Case, workers: int) -> float:
    """From the moment that all workers are ready until all are done."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    processes = [context.Process(target=work, args=(case, barrier), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        barrier.wait(PATIENCE)
        begin = time.perf_counter()
        barrier.wait(PATIENCE)
        return time.perf_counter() - begin
    except BaseException:
        barrier.abort()
        raise
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The benchmark's row."""
    whole = Case(args.models, args.guide, args.device, args.stimuli, args.quick)
    half = Case(args.models, args.guide, args.device, args.stimuli // 2, args.quick)
    times = np.array([(seconds(whole, 1), seconds(half, 2)) for _ in range(args.rounds)])
    row = {
        "benchmark": "gpu_workers",
        "case": f"{args.stimuli} guided images with {args.models} on one {args.device}, two workers",
        "baseline": "one worker",
        "ratio": ratio(times[:, 0], times[:, 1]),
    }
    return row | {"ours": quartiles(times[:, 1]), "unit": "s"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="four images of few steps, one round")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu, where it only shows that it runs)")
    parser.add_argument("--models", default="demo")
    parser.add_argument("--guide", default="")
    parser.add_argument("--stimuli", type=int, default=32, help="images of a round, an even number")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.quick:
        args.stimuli, args.rounds = 4, 1
    row = measure(args)
    r = row["ratio"]
    said = f"{row['ours']['median']:.1f} s, one worker / two {r['median']:.2f} ({r['q25']:.2f}-{r['q75']:.2f})"
    print(f"{row['case']}: {said}")
    if args.json:
        write_json(args.json, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
