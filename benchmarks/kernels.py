"""The operations of core/networks/kernels against eager PyTorch, its best formulation, torch.compile and a plain copy.

    python benchmarks/kernels.py [--json FILE] [--quick] [--device cpu|cuda] [--threads N] [--only NAME ...]

Ratios are baseline / ours, larger is better: medians and quartiles over interleaved rounds, in which every contender
runs once.  Each contender is first compared with the formula in float64.  "best eager" is the fastest eager
formulation in common/step_cases.py and common/decoder_cases.py; torch.compile (default mode) is warm; the copy is
`Tensor.copy_` of as many bytes as the operation has inputs and outputs, so that its ratio is the share of the copy
rate that is reached.  On CPUs times are processor time of one thread (wall-clock with more);
on CUDA device times with a flushed cache.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial

import torch
from common.case import Case
from common.decoder_cases import group_norm_silu, prepare_image
from common.kernel_rows import COPY, measure, verdicts
from common.step_cases import feature_loss_grad, guided_step
from common.timing import Plan, make_clock, settle_allocator

from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.networks.kernels import ops

DTYPES = (torch.float32, torch.bfloat16)
NORMS = ((512, 64, 64), (256, 256, 256), (128, 512, 512))  # of the Stable Diffusion 1.4 decoder
MEMORY = 8_000_000_000  # bytes that one case may take: about ten tensors of the size of its input
OPERATIONS = ("feature_loss_grad", "guided_step", "prepare_image", "group_norm_silu")
COLUMNS = ("eager", "best eager", "torch.compile", COPY)

Build = Callable[[], Case]


def full_cases(device: str) -> Iterator[tuple[str, Build]]:
    """Every operation at every size that fits."""
    batches = (1, 5, 16, 64) if device == "cuda" else (1, 5, 16)
    sizes = [(batch, dtype, device) for batch in batches for dtype in DTYPES]
    for make in (feature_loss_grad, guided_step, prepare_image):
        yield from ((make.__name__, partial(make, *size)) for size in sizes)
    yield "prepare_image", partial(prepare_image, 1, torch.float32, device, channels_last=True)
    for shape in NORMS:
        for batch, dtype, _ in sizes:
            if 10 * batch * torch.Size(shape).numel() * dtype.itemsize <= MEMORY:
                yield "group_norm_silu", partial(group_norm_silu, batch, dtype, device, shape)


def quick_cases(device: str) -> Iterator[tuple[str, Build]]:
    """One size of every operation."""
    for make in (feature_loss_grad, guided_step, prepare_image):
        yield make.__name__, partial(make, 1, torch.float32, device)
    yield "group_norm_silu", partial(group_norm_silu, 1, torch.float32, device, NORMS[0])


def line(rows: list[dict]) -> str:
    """A case as one line of the table: our time, then ratio and quartiles for every baseline."""
    cells = {row["baseline"]: row["ratio"] for row in rows}
    text = f"{rows[0]['benchmark']:<18} {rows[0]['case']:<30} {rows[0]['ours']['median']:>9.3f} ms"
    for name in COLUMNS:
        r = cells.get(name)
        text += f"  {r['median']:>6.2f} ({r['q25']:.2f}-{r['q75']:.2f})".ljust(23) if r else "  -".ljust(23)
    return text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="one size of each operation, under a minute")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--only", nargs="+", choices=OPERATIONS, default=OPERATIONS, metavar="NAME")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # for the processes that torch.compile starts
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settle_allocator()
    plan = Plan(args.device, rounds=7, burst=0.01, budget=3) if args.quick else Plan(args.device)
    info = ops.backend_info()
    print(f"backend: {info['backend']} ({info['reason']}) torch {info['torch']}, {args.threads} thread(s)")
    print(f"{'operation':<18} {'case':<30} {'ours':>12}" + "".join(f"  {name}".ljust(23) for name in COLUMNS))
    clock, rows = make_clock(args.device), []
    for name, build in (quick_cases if args.quick else full_cases)(args.device):
        if name in args.only:
            case_rows = measure(build(), plan, clock, not args.no_compile)
            print(line(case_rows), flush=True)
            rows += [row | {"backend": info["backend"]} for row in case_rows]
            if args.json:  # after every case: a run that is cut short keeps what it has
                write_json(args.json, rows)
    print("\ntargets", *verdicts(rows, args.device), sep="\n")


if __name__ == "__main__":
    main()
