"""A whole guided step with and without the compiled kernels: time, peak memory, bytes kept for backward, difference.

The configuration is that of Stable Diffusion 1.4 and CLIP ViT-B/32 with random weights, float32, one image, on the CPU
(--quick: the bundled demo models).  The baseline is plain PyTorch in the layers of diffusers.  Times are interleaved in
one process; memory is that of a process of its own for each side.  The exit status is 1 where the results differ by
more than 1e-4.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.timing import quartiles, ratio, seconds_cpu  # noqa: E402

from napari_neuraldiffuser.core.base.files import write_json  # noqa: E402
from napari_neuraldiffuser.core.diffusion import build, pipeline
from napari_neuraldiffuser.core.diffusion.loop import sample, schedule  # noqa: E402
from napari_neuraldiffuser.core.networks import models  # noqa: E402
from napari_neuraldiffuser.core.networks.embeddings import Embeddings  # noqa: E402
from napari_neuraldiffuser.core.networks.kernels import backend
from napari_neuraldiffuser.core.networks.lean import lean, restore  # noqa: E402
from napari_neuraldiffuser.core.params import LAYERS, DiffusionParams, GuidanceParams  # noqa: E402

ARMS = ("plain", "kernels")
LARGEST_DIFFERENCE = 1e-4


def open_models(size: str) -> models.Models:
    """The networks of a benchmark."""
    if size == "demo":
        return models.load("demo")
    from tests.support.session.full_size import full_size_models

    return full_size_models()


def make_step(networks: models.Models) -> Callable[[], torch.Tensor]:
    """The first guided step of one image whose z, c and g are random numbers."""
    rng = np.random.default_rng(0)
    vision = models.vision_model(networks.image_encoder).config
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    text = networks.text_encoder.config

    def draw(*shape):
        return rng.standard_normal((1, *shape), dtype=np.float32)

    c = draw(text.max_position_embeddings, text.hidden_size)
    g = {layer: draw(tokens, vision.hidden_size) for layer in LAYERS}
    decoded = Embeddings(draw(*networks.latent_shape), c, g, np.array([13]))
    diffusion, guidance = DiffusionParams(repeats=1), GuidanceParams(normalise="rms", guidance_scale=1.0)
    plan = schedule(networks.scheduler, diffusion)
    start = pipeline.start_latents(decoded, networks, diffusion, plan)
    denoiser = build.build_denoiser(decoded, networks, diffusion, guidance)
    return lambda: sample(start, plan.steps[:1], denoiser)


@contextmanager
def arm(name: str, networks: models.Models):
    """Inside the block the networks are those of one side, and so is the backend."""
    decoder = networks.vae.decoder
    (restore if name == "plain" else lean)(decoder)
    with backend.reference_only() if name == "plain" else nullcontext():
        yield


def kept_bytes(networks: models.Models, compute: Callable[[], object]) -> int:
    """Bytes of the distinct storages, without parameters, that autograd keeps while `compute` runs."""
    parts = (networks.vae, networks.unet, networks.image_encoder)
    own = {p.untyped_storage().data_ptr() for part in parts for p in part.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        # all are alive until the one backward pass, so an address stands for one storage
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(kept.values())


def memory(name: str, size: str) -> dict[str, float]:
    """Of one step in this process: peak resident memory and bytes kept for backward, in GB."""
    networks = open_models(size)
    step = make_step(networks)
    with arm(name, networks):
        kept = kept_bytes(networks, step)
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "kept": kept / 1e9}


def memory_elsewhere(name: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--memory-of", name, "--threads", str(args.threads)]
    command += ["--quick"] if args.quick else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def times_and_difference(size: str, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each side in every round, and the relative difference of their results."""
    networks = open_models(size)
    step, results = make_step(networks), {}
    times: dict[str, list[float]] = {name: [] for name in ARMS}
    for turn in range(rounds):
        for name in ARMS if turn % 2 == 0 else reversed(ARMS):
            with arm(name, networks):
                times[name].append(seconds_cpu(lambda name=name: results.update({name: step()}), 1))
    plain, ours = (results[name].double() for name in ARMS)
    return times, float((ours - plain).norm() / plain.norm())


def rows(args: argparse.Namespace) -> list[dict]:
    size = "demo" if args.quick else "full"
    times, difference = times_and_difference(size, args.rounds)
    used = {name: memory_elsewhere(name, args) for name in ARMS}
    case = f"B=1 float32, {'demo models' if args.quick else 'SD 1.4'}, {args.threads} thread"
    common = {"case": case, "baseline": "plain PyTorch"}
    found = [
        {
            "benchmark": "guided step, time",
            **common,
            "ratio": ratio(times["plain"], times["kernels"]),
            "ours": quartiles(times["kernels"]),
            "unit": "s",
            "relative_difference": difference,
        }
    ]
    for key, label in (("peak", "peak memory of the process"), ("kept", "bytes kept for backward")):
        plain, ours = ([used[name][key]] for name in ARMS)
        row = {"benchmark": f"guided step, {label}", **common, "ratio": ratio(plain, ours)}
        found.append(row | {"ours": quartiles(ours), "unit": "GB"})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="the bundled demo models, in under a minute")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", choices=ARMS, help="only print the memory of one side, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if backend.extension() is None:  # here and in every process that measures memory
        print(f"there is nothing to compare: {backend.why_not()}", file=sys.stderr)
        return 1
    if args.memory_of:
        print(json.dumps(memory(args.memory_of, "demo" if args.quick else "full")))
        return 0
    found = rows(args)
    for row in found:
        print(f"{row['benchmark']}: {row['ours']['median']:.3g} {row['unit']}, ratio {row['ratio']['median']:.2f}")
    difference = found[0]["relative_difference"]
    print(f"relative difference of the result: {difference:.2e}")
    if args.json:
        write_json(args.json, found)
    return int(difference > LARGEST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
