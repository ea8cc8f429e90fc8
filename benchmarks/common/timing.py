"""Interleaved timing on CPUs and CUDA devices: every contender once a round, ratios from round to round."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Call = Callable[[], object]

SLEEP_CYCLES = 4_000_000  # about 2 ms: the host fills the queue meanwhile and its overhead is not measured
FLUSH_BYTES = 256 << 20  # larger than any second-level cache


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    device: str = "cpu"
    rounds: int = 30
    least_rounds: int = 5  # when the budget is spent
    burst: float = 0.02  # seconds of one contender in one round, on CPUs
    budget: float = 20.0  # seconds of one case


def quartiles(values) -> dict:
    """Median, quartiles and count."""
    q25, median, q75 = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return {"median": float(median), "q25": float(q25), "q75": float(q75), "n": len(values)}


def ratio(baseline, ours) -> dict:
    """Quartiles of baseline / ours, round by round: larger is better."""
    return quartiles(np.asarray(baseline) / np.asarray(ours))


def seconds_cpu(call: Call, repeats: int) -> float:
    """Mean time of `repeats` calls, in seconds: processor time of a single thread, else wall-clock time.

    Processor time has the page faults in it and leaves out what other processes take from a shared machine.
    """
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = now()
    for _ in range(repeats):
        call()
    return (now() - start) / repeats


class CudaClock:
    """Device time of one call after the cache was flushed, without the host's overhead, in seconds."""

    def __init__(self):
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Call, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.flush.zero_()
            torch.cuda._sleep(SLEEP_CYCLES)
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return float(np.median(times))


def make_clock(device: str) -> Callable[[Call, int], float]:
    """The function that times `repeats` calls on a device."""
    return CudaClock() if device == "cuda" else seconds_cpu


def repeats(call: Call, clock, plan: Plan) -> int:
    """Calls that fill one burst, after a warm-up."""
    clock(call, 1)
    if plan.device == "cuda":
        return 5
    return max(1, round(plan.burst / max(clock(call, 2), 1e-7)))


def interleave(calls: dict[str, Call], plan: Plan, clock) -> dict[str, list[float]]:
    """Seconds of every contender in every round, in an order that moves on by one from round to round."""
    count = {name: repeats(call, clock, plan) for name, call in calls.items()}
    times = {name: [] for name in calls}
    names = list(calls)
    begin = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        for turn in range(plan.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(clock(calls[name], count[name]))
            if turn + 1 >= plan.least_rounds and time.perf_counter() - begin > plan.budget:
                break
    finally:
        gc.enable()
    return times


def fastest(builders: dict[str, Callable[[], Call]], plan: Plan, clock) -> tuple[str, Call]:
    """The quickest of several formulations by a short trial; one is held in memory at a time, beside the best."""
    best = None
    for name, build in builders.items():
        call = build()
        count = repeats(call, clock, plan)
        seconds = min(clock(call, count) for _ in range(3))
        if best is None or seconds < best[0]:
            best = (seconds, name, call)
    return best[1], best[2]


def settle_allocator() -> None:
    """Bring glibc's malloc to where a process is that has run a model: freed blocks below 32 MB stay mapped.

    Before that, whether an output costs page faults depends on what was freed earlier, for every contender.
    """
    for size in (1 << 20, 31 << 20):
        torch.empty(size, dtype=torch.uint8)  # its release raises the threshold to its size


def launches(call: Call) -> int:
    """Kernels, copies and fills that one warm call puts on the CUDA device."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())
