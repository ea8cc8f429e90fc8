"""One benchmarked case as rows, and the rows against the targets."""

import sys
from dataclasses import dataclass
from functools import partial

import torch

from common.case import Case
from common.timing import Plan, fastest, interleave, launches, quartiles, ratio

COPY = "copy of the same bytes"
PIECE = 1 << 29  # bytes of the largest buffer of the copy


# ---- measuring --------------------------------------------------------------------------------------------------


def copy_bytes(moved: int, device: str):
    """A call that moves as many bytes as the operation, half of them read, with `Tensor.copy_`."""
    pieces = max(1, -(-moved // (2 * PIECE)))
    source = torch.ones(moved // (8 * pieces), device=device)
    target = torch.empty_like(source)

    def call():
        for _ in range(pieces):
            target.copy_(source)
        return (target,)

    return call


def check(name: str, case: Case, got, exact, limit: float) -> None:
    """Raise unless every result for the last image agrees with the formula in float64."""
    for i, (value, want) in enumerate(zip(got, exact, strict=True)):
        error = float((value[-1:].detach().double() - want).norm() / want.norm())
        if not error <= limit:
            raise RuntimeError(
                f"{case.benchmark}, {case.label}: result {i} of {name} must agree with the formula in float64 to "
                f"{limit:g}, got a relative difference of {error:.2g}. Its time would mean nothing."
            )


def fastest_compiled(case: Case, plan: Plan, clock):
    """The quickest of the compiled expressions, each compiled for exactly these shapes."""
    torch._dynamo.reset()

    def wrap(function):
        return torch.compile(function, dynamic=False)

    return fastest({name: partial(build, wrap) for name, build in case.compiled.items()}, plan, clock)


def contenders(case: Case, plan: Plan, clock, compiled: bool) -> tuple[dict, dict]:
    """Calls by baseline name, and the formulations that were chosen."""
    calls, chosen = {"ours": case.ours, "eager": case.eager}, {"eager": "the formula"}
    chosen["best eager"], calls["best eager"] = fastest(case.best, plan, clock)
    if compiled:
        try:
            chosen["torch.compile"], calls["torch.compile"] = fastest_compiled(case, plan, clock)
        except Exception as error:  # any of many, where it finds no compiler: the other columns are still worth having
            print(f"torch.compile left out: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    if case.note:
        chosen = {name: f"{text}, {case.note}" for name, text in chosen.items()}
    return calls, chosen


def check_all(case: Case, calls: dict, half: bool) -> None:
    """Check every contender: the compiled kernel tightly, the baselines as their own rounding allows."""
    exact = [t.detach() for t in case.exact()]
    for name, call in calls.items():
        limit = (4e-3 if half else 5e-5) if name == "ours" else (5e-2 if half else 1e-4)
        check(name, case, call(), exact, limit)


def measure(case: Case, plan: Plan, clock, compiled: bool = True) -> list[dict]:
    """Rows of one case: ours against every baseline and against a copy."""
    calls, chosen = contenders(case, plan, clock, compiled)
    check_all(case, calls, "float32" not in case.label)
    calls[COPY], chosen[COPY] = copy_bytes(case.moved, plan.device), f"{case.moved / 1e6:.1f} MB"
    times = interleave(calls, plan, clock)
    ours = quartiles([1e3 * t for t in times["ours"]])
    if plan.device == "cuda":
        ours["launches"] = launches(case.ours)
    return [
        {
            "benchmark": case.benchmark,
            "case": case.label,
            "baseline": name,
            "formulation": chosen[name],
            "ratio": ratio(times[name], times["ours"]),
            "ours": ours | {"baseline_median": 1e3 * quartiles(times[name])["median"]},
            "unit": "ms",
            "batch": case.batch,
            "device": plan.device,
        }
        for name in chosen
    ]


# ---- targets ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """Least ratio over every row of a baseline, or over those of one batch size."""

    device: str
    benchmark: str
    baseline: str
    least: float
    batch: int | None = None


TARGETS = (
    Target("cpu", "feature_loss_grad", "eager", 3.0),
    Target("cpu", "feature_loss_grad", "torch.compile", 1.5),
    Target("cpu", "feature_loss_grad", COPY, 0.8, 16),
    Target("cpu", "guided_step", "eager", 4.0),
    Target("cpu", "guided_step", "torch.compile", 1.3),
    Target("cpu", "prepare_image", "eager", 4.0),
    Target("cpu", "prepare_image", "torch.compile", 4.0),
    Target("cpu", "group_norm_silu", "eager", 1.5),
    Target("cuda", "feature_loss_grad", COPY, 0.8, 64),
    Target("cuda", "guided_step", COPY, 0.8, 64),
    Target("cuda", "prepare_image", COPY, 0.6, 64),
)
LAUNCHES = {"feature_loss_grad": 1, "guided_step": 1, "prepare_image": 2}  # forward and backward


def verdict(target: Target, rows: list[dict]) -> str:
    """One line: met or missed, and the worst row; a target without a row is not measured."""
    where = "every size" if target.batch is None else f"B={target.batch}"
    text = f"{target.benchmark}: at least {target.least:g}x {target.baseline} at {where}"
    wanted = [
        row
        for row in rows
        if (row["device"], row["benchmark"], row["baseline"]) == (target.device, target.benchmark, target.baseline)
        and target.batch in (None, row["batch"])
    ]
    if not wanted:
        return f"not measured  {text}"
    worst = min(wanted, key=lambda row: row["ratio"]["median"])
    met = sum(row["ratio"]["median"] >= target.least for row in wanted)
    word = "met" if met == len(wanted) else "missed"
    return f"{word:<14}{text}: {met} of {len(wanted)} rows, worst {worst['ratio']['median']:.2f} ({worst['case']})"


def verdicts(rows: list[dict], device: str) -> list[str]:
    """Every target of a device with its outcome."""
    lines = [verdict(target, rows) for target in TARGETS if target.device == device]
    for benchmark, allowed in LAUNCHES.items() if device == "cuda" else ():
        counts = [row["ours"]["launches"] for row in rows if row["benchmark"] == benchmark]
        word = "not measured" if not counts else "met" if max(counts) <= allowed else "missed"
        lines.append(f"{word:<14}{benchmark}: launches {max(counts, default=0)}, allowed {allowed}")
    return lines
