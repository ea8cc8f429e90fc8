"""The benchmarks' own arithmetic: ratios, rotation of the contenders, choice of a rival, targets, tables."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def load(monkeypatch):
    """Import a script of benchmarks/ or scripts/ as if it had been started, and forget it afterwards."""
    folders = [str(ROOT / name) for name in ("benchmarks", "scripts")]
    before = set(sys.modules)
    for folder in folders:
        monkeypatch.syspath_prepend(folder)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(tuple(folders)):
            del sys.modules[name]


def row(**changes):
    ratio = {"median": 2.0, "q25": 1.5, "q75": 2.5, "n": 9}
    base = {"benchmark": "guided_step", "case": "B=1", "baseline": "eager", "ratio": ratio, "batch": 1}
    return base | {"ours": {"median": 0.5, "launches": 1}, "unit": "ms", "device": "cpu"} | changes


def with_median(value, **changes):
    return row(ratio={"median": value, "q25": value, "q75": value, "n": 9}, **changes)


def test_ratio_is_baseline_over_ours_round_by_round(load):
    ratio = load("_timing").ratio([2.0, 40.0, 8.0], [1.0, 10.0, 1.0])
    assert ratio == {"median": 4.0, "q25": 3.0, "q75": 6.0, "n": 3}


def test_every_contender_runs_once_a_round_and_the_order_rotates(load):
    timing = load("_timing")
    plan, order = timing.Plan(rounds=3, budget=60.0), []

    def clock(call, repeats):
        order.append(call)
        return 1.0

    times = timing.interleave({"a": "A", "b": "B", "c": "C"}, plan, clock)
    assert order[-9:] == ["A", "B", "C", "B", "C", "A", "C", "A", "B"]
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0] * 3}


def test_a_spent_budget_ends_after_the_least_rounds(load):
    timing = load("_timing")
    times = timing.interleave({"a": None}, timing.Plan(budget=0.0, least_rounds=4), lambda call, repeats: 1.0)
    assert len(times["a"]) == 4


def test_the_fastest_formulation_is_chosen(load):
    timing = load("_timing")
    builders = {"slow": lambda: 3.0, "fast": lambda: 1.0, "medium": lambda: 2.0}
    assert timing.fastest(builders, timing.Plan(), lambda call, repeats: call) == ("fast", 1.0)


def test_copy_moves_as_many_bytes_as_asked(load, monkeypatch):
    rows = load("_kernel_rows")
    assert rows.copy_bytes(8000, "cpu")()[0].numel() == 1000  # 4 kB read and 4 kB written
    monkeypatch.setattr(rows, "PIECE", 1000)
    assert rows.copy_bytes(8000, "cpu")()[0].numel() == 250  # in four pieces


def test_a_wrong_kernel_is_not_measured(load, monkeypatch):
    case = load("_step_cases").guided_step(2, torch.float32, "cpu")
    wrong = replace(case, ours=lambda: (case.eager()[0] * 1.001,))
    rows, timing = load("_kernel_rows"), load("_timing")
    monkeypatch.setattr(rows, "interleave", lambda *_: pytest.fail("measured"))
    with pytest.raises(RuntimeError, match="of ours must agree with the formula"):
        rows.measure(wrong, timing.Plan(burst=1e-4), timing.seconds_cpu, compiled=False)


@pytest.mark.parametrize("name", ["feature_loss_grad", "guided_step"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_a_case(load, name, dtype):
    case = getattr(load("_step_cases"), name)(2, dtype, "cpu")
    timing = load("_timing")
    rows = load("_kernel_rows").measure(case, timing.Plan(rounds=2, burst=1e-4), timing.seconds_cpu, compiled=False)
    assert [r["baseline"] for r in rows] == ["eager", "best eager", "copy of the same bytes"]
    assert all(r["ratio"]["n"] == 2 and r["ratio"]["median"] > 0 and r["ours"]["median"] > 0 for r in rows)
    json.dumps(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_rival_of_the_decoder_cases_computes_the_same(load, dtype):
    cases, rows = load("_decoder_cases"), load("_kernel_rows")
    for case in (
        cases.prepare_image(1, dtype, "cpu", channels_last=True),
        cases.group_norm_silu(2, dtype, "cpu", (64, 8, 8)),
    ):
        calls = {name: build() for name, build in case.best.items()}
        calls |= {f"uncompiled {name}": build(lambda f: f) for name, build in case.compiled.items()}
        rows.check_all(case, calls | {"ours": case.ours, "eager": case.eager}, half=dtype != torch.float32)


def test_bytes_that_an_operation_must_move(load):
    case = load("_step_cases").guided_step(2, torch.bfloat16, "cpu")
    assert case.moved == 2 * 4 * 64 * 64 * (3 * 4 + 2 * 2)  # z, gradient and result in float32, predictions in bfloat16
    case = load("_step_cases").feature_loss_grad(3, torch.float32, "cpu")
    assert case.moved == 6 * 50 * 768 * 4 * (3 + 3 + 1)


def test_a_target_is_judged_by_its_worst_row(load):
    rows = load("_kernel_rows")
    target = rows.Target("cpu", "guided_step", "eager", 4.0)
    both = [with_median(9.0), with_median(3.9, case="B=16"), with_median(0.1, baseline="torch.compile")]
    assert rows.verdict(target, both).startswith("missed")
    assert "1 of 2 rows, worst 3.90 (B=16)" in rows.verdict(target, both)
    assert rows.verdict(target, both[:1]).startswith("met")
    assert rows.verdict(target, []).startswith("not measured")
    assert rows.verdict(rows.Target("cpu", "guided_step", "eager", 4.0, batch=16), both).startswith("not measured")


def test_launches_are_judged_on_cuda_only(load):
    rows = load("_kernel_rows")
    assert not any("launches" in line for line in rows.verdicts([row()], "cpu"))
    lines = rows.verdicts([row(device="cuda"), row(device="cuda", ours={"launches": 2})], "cuda")
    assert any(line.startswith("missed") and "guided_step: launches 2, allowed 1" in line for line in lines)


def test_markdown_has_a_column_for_each_baseline(load):
    rows = [row(), with_median(3.0, baseline="copy"), with_median(1.0, case="B=5", baseline="copy")]
    lines = load("run_benchmarks").markdown(rows).splitlines()
    assert lines[2] == "| case | ours | eager | copy |"
    assert lines[4] == "| B=1 | 0.5 ms | 2.00 (1.50-2.50) | 3.00 (3.00-3.00) |"
    assert lines[5] == "| B=5 | 0.5 ms |  | 1.00 (1.00-1.00) |"
