"""Time the operations of core/ops.py against the same mathematics written as separate eager PyTorch calls."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from napari_neuraldiffuser.core import ops
from napari_neuraldiffuser.core.files import write_json

LAYERS, TOKENS, WIDTH = 6, 50, 768  # CLIP ViT-B/32, six layers


def feature_loss_case(batch: int, device: str) -> tuple[Callable, Callable]:
    """Loss and gradient of all layers: layer by layer through autograd, and in one call."""
    features = [torch.randn(batch, TOKENS, WIDTH, device=device, requires_grad=True) for _ in range(LAYERS)]
    targets = [torch.randn(1, TOKENS, WIDTH, device=device) for _ in range(LAYERS)]
    weights = torch.rand(1, LAYERS, device=device)

    def eager():
        pairs = zip(features, targets, weights[0], strict=True)
        losses = [w * F.mse_loss(f, g.expand_as(f), reduction="none").mean((1, 2)) for f, g, w in pairs]
        return torch.autograd.grad(sum(losses).sum(), features)

    return eager, lambda: ops.feature_loss_grad(features, targets, weights)


def guided_step_case(batch: int, device: str) -> tuple[Callable, Callable]:
    """One guided DDIM step: formula by formula, and as one linear combination."""
    z, uncond, cond, gradient = torch.randn(4, batch, 4, 64, 64, device=device)
    abar, before, scale, kappa = 0.3, 0.35, 7.5, 300.0

    def eager():
        noise = uncond + scale * (cond - uncond) + (1 - abar) ** 0.5 * kappa * gradient
        x0 = (z - (1 - abar) ** 0.5 * noise) / abar**0.5
        return before**0.5 * x0 + (1 - before) ** 0.5 * noise

    coefficients = ops.step_coefficients(abar, before, scale, kappa)
    return eager, lambda: ops.guided_step(z, uncond, cond, gradient, coefficients)


def seconds(call: Callable, repeats: int, device: str) -> float:
    """Mean time of `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def compare(calls: tuple[Callable, Callable], rounds: int, device: str) -> tuple[dict, dict]:
    """Ratio baseline / ours and our time, from interleaved rounds."""
    baseline, ours = calls
    repeats = max(1, int(0.02 / max(seconds(baseline, 3, device), 1e-6)))
    pairs = [(seconds(baseline, repeats, device), seconds(ours, repeats, device)) for _ in range(rounds)]
    ratio = _quartiles([a / b for a, b in pairs])
    return ratio, _quartiles([1e6 * b for _, b in pairs])


def _quartiles(values: list[float]) -> dict:
    q25, median, q75 = statistics.quantiles(values, n=4)
    return {"median": median, "q25": q25, "q75": q75, "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True, help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = []
    for name, case in (("feature_loss_grad", feature_loss_case), ("guided_step", guided_step_case)):
        for batch in (1, 5, 16):
            ratio, ours = compare(case(batch, args.device), 5 if args.quick else 30, args.device)
            label = f"B={batch} float32 {args.device}"
            row = {"benchmark": name, "case": label, "baseline": "eager, step by step", "ratio": ratio}
            rows.append(row | {"ours": ours, "unit": "microseconds"})
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
