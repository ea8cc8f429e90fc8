"""The benchmarks' own arithmetic: ratios, rotation, choice of a rival, targets, tables, virtual time, killed runs."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_neuraldiffuser.core.params import preset
from tests.support import ROOT
from tests.support.small_network import SMALL, bent_data


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
    ratio = load("common.timing").ratio([2.0, 40.0, 8.0], [1.0, 10.0, 1.0])
    assert ratio == {"median": 4.0, "q25": 3.0, "q75": 6.0, "n": 3}


def test_every_contender_runs_once_a_round_and_the_order_rotates(load):
    timing = load("common.timing")
    plan, order = timing.Plan(rounds=3, budget=60.0), []

    def clock(call, repeats):
        order.append(call)
        return 1.0

    times = timing.interleave({"a": "A", "b": "B", "c": "C"}, plan, clock)
    assert order[-9:] == ["A", "B", "C", "B", "C", "A", "C", "A", "B"]
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0] * 3}


def test_a_spent_budget_ends_after_the_least_rounds(load):
    timing = load("common.timing")
    times = timing.interleave({"a": None}, timing.Plan(budget=0.0, least_rounds=4), lambda call, repeats: 1.0)
    assert len(times["a"]) == 4


def test_the_fastest_formulation_is_chosen(load):
    timing = load("common.timing")
    builders = {"slow": lambda: 3.0, "fast": lambda: 1.0, "medium": lambda: 2.0}
    assert timing.fastest(builders, timing.Plan(), lambda call, repeats: call) == ("fast", 1.0)


def test_copy_moves_as_many_bytes_as_asked(load, monkeypatch):
    rows = load("common.kernel_rows")
    assert rows.copy_bytes(8000, "cpu")()[0].numel() == 1000  # 4 kB read and 4 kB written
    monkeypatch.setattr(rows, "PIECE", 1000)
    assert rows.copy_bytes(8000, "cpu")()[0].numel() == 250  # in four pieces


def test_a_wrong_kernel_is_not_measured(load, monkeypatch):
    case = load("common.step_cases").guided_step(2, torch.float32, "cpu")
    wrong = replace(case, ours=lambda: (case.eager()[0] * 1.001,))
    rows, timing = load("common.kernel_rows"), load("common.timing")
    monkeypatch.setattr(rows, "interleave", lambda *_: pytest.fail("measured"))
    with pytest.raises(RuntimeError, match="of ours must agree with the formula"):
        rows.measure(wrong, timing.Plan(burst=1e-4), timing.seconds_cpu, compiled=False)


@pytest.mark.parametrize("name", ["feature_loss_grad", "guided_step"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_a_case(load, name, dtype):
    case = getattr(load("common.step_cases"), name)(2, dtype, "cpu")
    timing = load("common.timing")
    rows = load("common.kernel_rows").measure(
        case, timing.Plan(rounds=2, burst=1e-4), timing.seconds_cpu, compiled=False
    )
    assert [r["baseline"] for r in rows] == ["eager", "best eager", "copy of the same bytes"]
    assert all(r["ratio"]["n"] == 2 and r["ratio"]["median"] > 0 and r["ours"]["median"] > 0 for r in rows)
    json.dumps(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_rival_of_the_decoder_cases_computes_the_same(load, dtype):
    cases, rows = load("common.decoder_cases"), load("common.kernel_rows")
    for case in (
        cases.prepare_image(1, dtype, "cpu", channels_last=True),
        cases.group_norm_silu(2, dtype, "cpu", (64, 8, 8)),
    ):
        calls = {name: build() for name, build in case.best.items()}
        calls |= {f"uncompiled {name}": build(lambda f: f) for name, build in case.compiled.items()}
        rows.check_all(case, calls | {"ours": case.ours, "eager": case.eager}, half=dtype != torch.float32)


def test_bytes_that_an_operation_must_move(load):
    case = load("common.step_cases").guided_step(2, torch.bfloat16, "cpu")
    assert case.moved == 2 * 4 * 64 * 64 * (3 * 4 + 2 * 2)  # z, gradient and result in float32, predictions in bfloat16
    case = load("common.step_cases").feature_loss_grad(3, torch.float32, "cpu")
    assert case.moved == 6 * 50 * 768 * 4 * (3 + 3 + 1)


def test_a_target_is_judged_by_its_worst_row(load):
    rows = load("common.kernel_rows")
    target = rows.Target("cpu", "guided_step", "eager", 4.0)
    both = [with_median(9.0), with_median(3.9, case="B=16"), with_median(0.1, baseline="torch.compile")]
    assert rows.verdict(target, both).startswith("missed")
    assert "1 of 2 rows, worst 3.90 (B=16)" in rows.verdict(target, both)
    assert rows.verdict(target, both[:1]).startswith("met")
    assert rows.verdict(target, []).startswith("not measured")
    assert rows.verdict(rows.Target("cpu", "guided_step", "eager", 4.0, batch=16), both).startswith("not measured")


def test_launches_are_judged_on_cuda_only(load):
    rows = load("common.kernel_rows")
    assert not any("launches" in line for line in rows.verdicts([row()], "cpu"))
    lines = rows.verdicts([row(device="cuda"), row(device="cuda", ours={"launches": 2})], "cuda")
    assert any(line.startswith("missed") and "guided_step: launches 2, allowed 1" in line for line in lines)


def test_markdown_has_a_column_for_each_baseline(load):
    rows = [row(), with_median(3.0, baseline="copy"), with_median(1.0, case="B=5", baseline="copy")]
    lines = load("run_benchmarks").markdown(rows).splitlines()
    assert lines[2] == "| case | ours | eager | copy |"
    assert lines[4] == "| B=1 | 0.5 ms | 2.00 (1.50-2.50) | 3.00 (3.00-3.00) |"
    assert lines[5] == "| B=5 | 0.5 ms |  | 1.00 (1.00-1.00) |"


# ---- simulated clusters and killed runs -------------------------------------------------------------------------


def node(name, gpu=False):
    return SimpleNamespace(name=name, is_gpu_node=lambda: gpu)


def test_cost_of_an_image_is_counted_step_by_step(load):
    census, diffusion, guidance = load("common.census"), *preset("neuraldiffuser")
    gradient = 2 * 0.77 - 1.50 + 0.89 + 2.13 + 2.17 + 0.018
    guided, plain = census.image_tflop(diffusion, guidance)
    assert plain == pytest.approx(37 * 1.50 + 2.13)
    assert guided == pytest.approx(plain + 7 * gradient)
    held, _ = census.image_tflop(diffusion, guidance.but(guide_every=2))
    assert held == pytest.approx(plain + 4 * gradient)
    again, _ = census.image_tflop(diffusion, guidance.but(rule="freedom", recurrence=3))
    assert again == pytest.approx(plain + 21 * gradient + 14 * 1.50)
    assert census.share_unguided(diffusion, guidance.but(guidance_scale=0.0)) == 1.0
    assert census.gpu_hours(2.0, 3600, 0.5) == 3.0


def test_a_virtual_job_waits_for_a_place_of_its_kind(load):
    virtual = load("common.virtual_cluster")
    cluster = virtual.Cluster(gpus=2, cpus=1, duration=lambda node: 10.0)
    jobs = [cluster.place(node(f"_recon{k}", gpu=True), now=1.0) for k in range(3)]
    assert [(job.start, job.end) for job in jobs] == [(1.0, 11.0), (1.0, 11.0), (11.0, 21.0)]
    assert all(job.name == "recon" and job.item for job in jobs)
    other = cluster.place(node("evaluate"), now=2.0)
    assert (other.name, other.item, other.gpu, other.start) == ("evaluate", False, False, 2.0)


def test_the_virtual_clock_skips_waiting_and_the_inside_of_jobs(load, monkeypatch):
    virtual, real = load("common.virtual_cluster"), [100.0]
    monkeypatch.setattr(virtual.time, "process_time", lambda: real[0])
    clock = virtual.Clock(poll=5.0)
    real[0] += 2.0
    clock.sleep(3.0)  # nothing runs: only to the next look
    assert clock.now() == 5.0
    clock.next_end = lambda: 31.0
    clock.sleep(3.0)  # looks at 8, 13, 18, 23, 28 and 33
    assert clock.now() == 33.0
    with clock.job():
        real[0] += 50.0
    assert (clock.now(), clock.engine()) == (33.0, 2.0)


@pytest.mark.slow
def test_a_dataset_is_scheduled_through_nipypes_engine(load):
    schedule = load("cluster_schedule")
    costs = schedule.Costs(image=10.0, unguided=0.5)
    one, two = (schedule.simulate(schedule.Study(1, 8, 5), gpus, 2, costs) for gpus in (1, 2))
    items = two.of("recon")
    assert all(job.item for job in items)  # the lists of their results are no jobs
    assert len(two.of("fit")) == 1  # a list of one runs as one job
    assert [job.seconds for job in items] == [costs.start + costs.load + 2 * 5 * 15.0] * 4
    assert all(job.gpu for job in items)
    assert two.window("recon") == pytest.approx(one.window("recon") / 2, rel=0.1)
    assert min(job.start for job in items) > max(job.end for job in two.jobs if job.name == "fit")
    assert 0.8 * two.makespan < two.bound(2, "recon") <= two.makespan < one.makespan
    assert one.bound(1, "recon") <= one.makespan
    assert two.engine > 0


def test_kills_are_spread_over_the_run(load):
    shares = load("nipype_kills").moments(10, seed=3)
    assert sorted(int(10 * share) for share in shares) == list(range(10))
    assert shares != sorted(shares)
    assert shares == load("nipype_kills").moments(10, seed=3)


def test_what_a_killed_run_left_is_read_from_its_folder(load, tmp_path):
    runs = load("common.runs")
    places = tmp_path / "out" / "work" / "wf" / "sub_01_wf"

    def make(name, *files):
        (places / name).mkdir(parents=True)
        for file in files:
            (places / name / file).write_text("")

    make("reconstruct_wf/recon/mapflow/_recon0", "_0xa.json", "result__recon0.pklz")
    make("reconstruct_wf/recon/mapflow/_recon1", "_0xb_unfinished.json", "result__recon1.pklz")
    (places / "reconstruct_wf/recon/_0xc_unfinished.json").write_text("")
    make("load_wf/index", "_0xd.json", "result_index.pklz")  # runs every time
    make("decode", "result_decode.pklz")
    before = runs.finished(tmp_path)
    assert list(before) == runs.chunks(before) == ["reconstruct_wf/_recon0"]
    assert runs.under_way(tmp_path) == ["reconstruct_wf/_recon1"]
    assert runs.redone(before, runs.finished(tmp_path)) == []
    (places / "reconstruct_wf/recon/mapflow/_recon0/result__recon0.pklz").unlink()
    assert runs.redone(before, runs.finished(tmp_path)) == ["reconstruct_wf/_recon0"]


def test_files_outside_of_the_work_folder_are_compared(load, tmp_path):
    for name in ("a.png", "work/x.pklz", "sub-01/work/b.png"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    found = load("common.runs").outputs(tmp_path)
    assert list(found) == ["a.png", "sub-01/work/b.png"]
    assert load("nipype_kills").different(found, found | {"a.png": "0", "c": "1"}) == ["a.png", "c"]


class Sleeper:
    """A case whose run takes `seconds`, and ends with `status`."""

    def __init__(self, seconds, status=0):
        self.code, self.starts = f"import sys, time; time.sleep({seconds}); sys.exit({status})", 0

    def start(self, folder, engine):
        folder.mkdir()
        self.starts += 1
        return subprocess.Popen([sys.executable, "-c", self.code], start_new_session=True)


def test_a_run_is_killed_at_its_moment(load, tmp_path):
    case = Sleeper(60)
    after = load("nipype_kills").start_and_kill(case, tmp_path / "kill", "Linear", 0.2)
    assert 0.2 <= after < 30
    assert case.starts == 1


def test_a_run_that_was_over_is_killed_earlier(load, tmp_path, monkeypatch):
    kills, case, waited = load("nipype_kills"), Sleeper(0), []

    def wait(process, seconds):
        waited.append(seconds)
        if len(waited) < 3:
            process.wait()
        if len(waited) == 2:
            case.code = Sleeper(60).code  # the next one is still running

    monkeypatch.setattr(kills, "wait", wait)
    kills.start_and_kill(case, tmp_path / "kill", "Linear", 10.0)
    assert waited == pytest.approx([10.0, 9.0, 8.1])


def test_a_run_that_fails_is_no_killed_one(load, tmp_path):
    with pytest.raises(RuntimeError, match="must end well or be killed, got 3"):
        load("nipype_kills").start_and_kill(Sleeper(0, status=3), tmp_path / "failed", "Linear", 30.0)


def test_finished_rounds_are_not_done_again(load, tmp_path):
    kills = load("nipype_kills")
    assert kills.once(tmp_path / "kill-0.json", dict, {"kept": 1}) == {"kept": 1}
    assert kills.once(tmp_path / "kill-0.json", lambda: pytest.fail("again")) == {"kept": 1}


def test_a_folder_of_other_rounds_is_refused(load, tmp_path, monkeypatch):
    kills = load("nipype_kills")
    monkeypatch.setattr(kills.simulate, "write_subjects", lambda folder, params: folder.mkdir(exist_ok=True))
    args = SimpleNamespace(quick=True, kills=2, seed=0, engines=["Linear"])
    for _ in ("new", "there already"):
        case = kills.prepare(args, tmp_path)
        assert (case.nsd, case.models, case.options) == (str(tmp_path / "nsd"), "demo", tuple(kills.QUICK))
    args.seed = 1
    with pytest.raises(SystemExit, match="Name another one"):
        kills.prepare(args, tmp_path)


def test_overhead_is_the_plain_call_over_ours(load):
    overhead, spent = load("nipype_overhead"), load("common.runs").Spent
    row = overhead.compared("Linear", overhead.PLAIN, [spent(10.0, 8.0), spent(20.0, 8.0)], [spent(20.0, 10.0)] * 2)
    assert (row["ratio"]["median"], row["cpu"]["ratio"]["median"]) == (0.75, 0.8)
    assert "overhead 25.0 %" in overhead.line(row)


def test_two_workers_share_the_images_of_one(load, monkeypatch):
    workers, asked = load("gpu_workers"), []

    def seconds(case, n):
        asked.append((case.stimuli, n))
        return 12.0 / n

    monkeypatch.setattr(workers, "seconds", seconds)
    args = SimpleNamespace(models="demo", guide="", device="cuda", stimuli=8, quick=False, rounds=2)
    row = workers.measure(args)
    assert asked == [(8, 1), (4, 2)] * 2
    assert row["ratio"]["median"] == 2.0 and row["ours"]["median"] == 6.0


def test_scores_of_decoded_targets_against_definitions(load):
    decoded = load("common.decoded")
    rng = np.random.default_rng(0)
    true = rng.standard_normal((7, 5))
    guess = true + rng.standard_normal((7, 5))
    found = decoded.scores(true, guess, decoded.resampled(7, 3, 0))
    r = [np.corrcoef(true[:, k], guess[:, k])[0, 1] for k in range(5)]
    assert found["r"][0] == pytest.approx(np.mean(r)) and found["r"].shape == (4,)
    assert found["r2"][0] == pytest.approx(1 - ((true - guess) ** 2).sum() / (true**2).sum())
    between = np.corrcoef(true, guess)[:7, 7:]
    beaten = [(between[i, np.arange(7) != i] < between[i, i]).mean() for i in range(7)]
    assert found["twoway"][0] == pytest.approx(np.mean(beaten))
    # the second row of counts is the set in which a stimulus stands as often as it was drawn
    counts = decoded.resampled(7, 3, 0)[1].astype(int)
    drawn = np.repeat(np.arange(7), counts)
    r = [np.corrcoef(true[drawn, k], guess[drawn, k])[0, 1] for k in range(5)]
    assert found["r"][1] == pytest.approx(np.mean(r))
    same = decoded.compared({"a": found["r"]}, found["r"])["a"]
    assert same["gain"] == 0 and same["gain_se"] == 0 and same["value"] == found["r"][0]


def test_constant_columns_have_no_correlation(load):
    decoded = load("common.decoded")
    true, weights = np.eye(4), decoded.resampled(4, 1, 0)[:1]
    assert decoded.scores(true, np.zeros((4, 4)), weights)["r"][0] == 0
    assert decoded.two_way(true, np.zeros((4, 4))).tolist() == [0.5] * 4


def test_loading_is_not_timed_where_the_values_differ(load, monkeypatch, tmp_path):
    loading = load("loading")
    voxels = loading.mask((9, 8, 7), 40)
    assert len({tuple(one) for one in voxels.tolist()}) == 40 and (voxels < (9, 8, 7)).all() and voxels.min() >= 0
    args = SimpleNamespace(rounds=2, quick=True)
    told = {"whole": {"cpu": 3.0, "peak": 50.0, "sum": 10.0}, "ours": {"cpu": 1.5, "peak": 5.0, "sum": 10.0}}
    monkeypatch.setattr(loading, "measured", lambda how, path, args: told[how])
    found = loading.row("nii", tmp_path, args)
    assert found["ratio"]["median"] == 2.0 and found["ours"]["memory_share"] == 0.1
    told["ours"]["sum"] = 10.1
    with pytest.raises(SystemExit, match="nii must give the same values"):
        loading.row("nii", tmp_path, args)


@pytest.mark.parametrize("layout", ["hdf5-chunked", "hdf5-contiguous", "nii", "nii.gz"])
def test_both_ways_of_loading_read_the_same(load, tmp_path, layout):
    loading = load("loading")
    path = tmp_path / f"betas_session01.{layout if layout.startswith('nii') else 'hdf5'}"
    loading.write(path, layout, (6, 5, 4))
    voxels = loading.mask((6, 5, 4), 17)
    ours, whole = (read(path, voxels, (6, 5, 4)) for read in (loading.ours, loading.whole))
    assert ours.shape == (750, 17) and (ours == whole).all()


def test_pretraining_is_compared_with_its_controls(load, tmp_path):
    """Every way is measured, ridge gains nothing over itself, and networks that are there are taken as they are."""
    pretraining = load("pretraining")
    pool = [((betas, None), targets) for betas, targets in (bent_data(40, subject=k, stimuli=k) for k in (1, 2))]
    folders = pretraining.pretrained(pool, tmp_path, SMALL)
    weights = {name: (folder / "network.safetensors").read_bytes() for name, folder in folders.items()}
    assert weights["true"] != weights["shuffled"]
    assert pretraining.pretrained([], tmp_path, SMALL) == folders
    train, test, targets = bent_data(40, subject=3, stimuli=3, n_test=20)
    found = pretraining.measure((train, test), targets, pretraining.arms(folders, SMALL), samples=5)
    assert found["n_train"] == 40 and set(found["targets"]) == {"z", "c", "g02", "g"}
    for scores in found["targets"].values():
        assert set(scores["r"]) == set(found["seconds"]) and len(scores["r"]) == 5
        assert scores["r"]["ridge"]["gain"] == 0 != scores["r"]["network, tuned"]["gain"]
        assert scores["r"]["network, alone"]["value"] != scores["r"][pretraining.SHUFFLED]["value"]


@pytest.mark.slow
def test_pretraining_is_measured_from_simulated_scans(load, tmp_path, monkeypatch, capsys):
    file = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["pretraining.py", "--quick", "--json", str(file)])
    load("pretraining").main()
    (row,) = json.loads(file.read_text())["1"]
    assert set(row["seconds"]) == {"ridge", *(f"network, {way}" for way in ("alone", "frozen", "tuned", "shuffled"))}
    assert all(-1 <= one["value"] <= 1 for scores in row["targets"].values() for one in scores["r"].values())
    assert "network, tuned" in capsys.readouterr().out
