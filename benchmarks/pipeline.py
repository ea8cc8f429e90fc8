"""Pictures of the published loop, of the package, and of its fast options: time, operations, memory and scores.

    python benchmarks/pipeline.py [--parts time operations memory scores] [--subject NSD_DIR]
    python benchmarks/pipeline.py --size full --parts operations time [--device cuda --dtype bfloat16]

The first arm is the published loop in plain PyTorch (common/published_loop.py): the ratios of all others are to it.
Every arm takes 37 of 50 steps and guides 7 of them where its name does not say otherwise; the published loop and
"exact, published" use self-attention guidance, the others do not.

time        seconds per image; arms in turn, in an order that moves on. Processor time of one thread on the CPU. Of
            the full size on a CPU one step of each kind is taken, and counted as often as it occurs.
operations  counted for Stable Diffusion 1.4 with CLIP ViT-B/32 at 512 px, whatever the size: two for a multiplication
            with its sum, backward included.
memory      peak beyond the networks, of the published loop for one image at a time and of the others for one image
            and for all repeats of a stimulus; each in a process of its own.
scores      of the bundled models on test stimuli of a simulated subject (`neuraldiffuser simulate NSD_DIR`), against
            those of the arm "exact" and paired by stimulus; NSD_DIR keeps what was decoded.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import pipeline_arms as arms  # noqa: E402
from common.pipeline_scores import score_differences  # noqa: E402
from common.resident import peak_of  # noqa: E402
from common.timing import quartiles, ratio  # noqa: E402

from napari_neuraldiffuser.core.base.files import write_json  # noqa: E402

PARTS = ("time", "operations", "memory", "scores")
DEFAULT_PARTS = ("time", "operations", "memory")


def main() -> int:
    args = parse()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(memory(args.memory_of, args)))
        return 0
    table: dict[str, dict[str, Any]] = {name: {} for name in args.arms}
    for part in args.parts:
        for name, found in MEASURES[part](args).items():
            table[name] |= found
        print(f"{part}: done", file=sys.stderr, flush=True)
    for name, found in table.items():
        print(line(name, found, table[arms.PLAIN]), flush=True)
    if args.json:
        write_json(args.json, [row for name in table for row in rows(name, table, args)])
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="one round of three arms, nothing counted")
    parser.add_argument("--size", choices=list(arms.SIZES), default="demo", help="bundled models, or those of SD 1.4")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(DEFAULT_PARTS))
    parser.add_argument("--arms", nargs="+", choices=list(arms.ARMS), default=list(arms.ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="images of the one stimulus that is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of our arms")
    parser.add_argument("--subject", type=Path, help="folder of a simulated subject, for scores")
    parser.add_argument("--n-stimuli", type=int, default=24, help="for scores")
    parser.add_argument("--memory-of", choices=list(arms.ARMS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.repeats, args.arms, args.parts = 1, 1, list(arms.ARMS)[:3], ["time", "memory"]
    if "scores" in args.parts and not args.subject:
        parser.error("scores need --subject NSD_DIR, written by `neuraldiffuser simulate NSD_DIR`.")
    args.arms = [arms.PLAIN, *(name for name in args.arms if name != arms.PLAIN)]
    return args


# ---- time -------------------------------------------------------------------------------------------------------


def times(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Seconds per image of every arm, round by round."""
    opened = {kind: arms.open_models(args.size, args.device, kind) for kind in dtypes(args)}
    shortened = args.size == "full" and args.device == "cpu"
    found: dict[str, list[float]] = {name: [] for name in args.arms}
    for turn in range(args.rounds + (args.device == "cuda")):
        first = turn % len(args.arms)
        for name in args.arms[first:] + args.arms[:first]:
            networks = opened[dtype_of(name, args)]
            seconds = (shortened_seconds if shortened else whole_seconds)(name, networks, args)
            if turn or args.device == "cpu":  # the first round on a GPU chooses algorithms
                found[name].append(seconds)
    return {name: {"seconds": values} for name, values in found.items()}


def dtype_of(name: str, args: argparse.Namespace) -> torch.dtype:
    return torch.float32 if name == arms.PLAIN else getattr(torch, args.dtype)


def dtypes(args: argparse.Namespace) -> set[torch.dtype]:
    return {dtype_of(name, args) for name in args.arms}


def whole_seconds(name: str, networks: Any, args: argparse.Namespace) -> float:
    """Per image, of one stimulus with all its repeats (of which the published loop draws one after the other)."""
    decoded = arms.random_targets(networks)
    return seconds(partial(arms.draw, name, args.size, networks, decoded, args.repeats), args.device) / args.repeats


def shortened_seconds(name: str, networks: Any, args: argparse.Namespace) -> float:
    """Of one image, of which one step of each kind is taken."""
    with arms.layers_of(name, networks):
        run = arms.run_of(name, args.size, networks, arms.random_targets(networks))
        return arms.spread_over_steps(run, arms.kinds(name), partial(seconds, device=args.device))


def seconds(call: Any, device: str = "cpu") -> float:
    """Processor time of a single thread on a CPU, else the time until the device is done."""
    now = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = now()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - start


# ---- operations, memory, scores ---------------------------------------------------------------------------------


def operations(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """TFLOP per image of Stable Diffusion 1.4's size."""
    networks = arms.open_models("full", "meta")
    decoded = arms.random_targets(networks)
    return {name: {"tflop": arms.operations_of(name, networks, decoded) / 1e12} for name in args.arms}


def memories(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """MiB per image beyond the networks, each arm in a process of its own."""
    own = ["--size", args.size, "--repeats", args.repeats, "--threads", args.threads, "--device", args.device]
    own += ["--dtype", args.dtype]
    found = {}
    for name in args.arms:
        command = [sys.executable, __file__, "--memory-of", name, *map(str, own)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Of this process, for one image and for a whole batch of repeats, per image."""
    networks = arms.open_models(args.size, args.device, dtype_of(name, args))
    decoded, found = arms.random_targets(networks), {}
    for key, repeats in (("peak", 1), ("peak_batch", args.repeats)):
        if name == arms.PLAIN and repeats > 1:
            continue
        with arms.layers_of(name, networks):
            run = arms.run_of(name, args.size, networks, decoded, repeats)
            # the first step is guided, and no other needs more
            call = partial(lambda run: run.finish(run.take(run.take(run.start, 0), run.n_steps - 1)), run)
            found[key] = peak_of(call, args.device) / repeats / 2**20
    return found


def scores(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Mean difference from the exact arm of every metric, with its standard error over stimuli."""
    names = [name for name in args.arms if name != arms.PLAIN]
    return score_differences(args.subject, names, args.n_stimuli, args.device, getattr(torch, args.dtype))


MEASURES = {"time": times, "operations": operations, "memory": memories, "scores": scores}


# ---- what is printed and kept -----------------------------------------------------------------------------------


def line(name: str, found: dict[str, Any], plain: dict[str, Any]) -> str:
    """A row of the table in Markdown; what was not measured is empty."""
    return f"| {name} | {' | '.join(cells(found, plain))} |"


def cells(found: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    out = []
    if "seconds" in found:
        own, faster = quartiles(found["seconds"]), ratio(plain["seconds"], found["seconds"])
        out += [f"{own['median']:.3g}", f"{faster['median']:.2f} ({faster['q25']:.2f} to {faster['q75']:.2f})"]
    if "tflop" in found:
        out += [f"{found['tflop']:.1f}", f"{plain['tflop'] / found['tflop']:.2f}"]
    if "peak" in found:
        batch = found.get("peak_batch")
        out += [f"{found['peak']:.0f}", f"{found['peak'] / plain['peak']:.2f}"]
        out += [f"{batch:.0f}", f"{batch / plain['peak']:.2f}"] if batch else ["", ""]
    if "scores" in found:
        out += [f"{mean:+.3f} ({error:.3f})" for mean, error in found["scores"].values()]
    return out


def rows(name: str, table: dict[str, dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one arm as run_benchmarks.py prints them."""
    found, plain = table[name], table[arms.PLAIN]
    common = {"case": name, "baseline": arms.PLAIN, "device": args.device, "size": args.size, "dtype": args.dtype}
    units = {"seconds": ("seconds per image", "s"), "tflop": ("operations at SD 1.4 size", "TFLOP")}
    units |= {"peak": ("peak memory, one image", "MiB"), "peak_batch": ("peak memory per image of a batch", "MiB")}
    made = []
    for key, (what, unit) in units.items():
        if key in found:
            base = plain.get(key, plain.get("peak"))
            own, other = np.atleast_1d(found[key]), np.atleast_1d(base)
            row = {"benchmark": f"pipeline, {what}", "ratio": ratio(other, own), "ours": quartiles(own), "unit": unit}
            made.append(common | row)
    if made and "scores" in found:
        made[0]["scores"] = found["scores"]
    return made


if __name__ == "__main__":
    sys.exit(main())
