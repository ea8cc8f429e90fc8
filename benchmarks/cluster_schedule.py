"""A whole dataset on 1 to 64 GPUs, by simulation: the graph and Nipype's engine are real, queue and jobs are not.

    python benchmarks/cluster_schedule.py [--json FILE] [--quick] [--gpus N ...] [--chunk-sizes N ...]
                                          [--seconds-per-image S --origin TEXT | --device-model NAME] [--thin N]

The graph is that of `init_neuraldiffuser_wf` for 8 subjects x 1,000 stimuli x 5 repeats x 2 arms.  Nipype's batch
engine submits it job by job; the simulated cluster gives every job a duration from a table and a place in a queue, on a
virtual clock that also runs while the engine computes.  Durations are ASSUMED, and those of images are ESTIMATED BY
COUNTING unless --seconds-per-image says otherwise; the time that the engine takes for each node is MEASURED, with one
empty file in place of every 10 images (--thin 1: all 80,000 images of the dataset, some minutes a row).
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common.census as census
from common.virtual_cluster import Clock, Cluster, Schedule, VirtualPlugin, plain_name, stubbed, touch, virtual_time

from napari_neuraldiffuser.core.base.files import write_json
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.params import WorkflowParams, preset
from nipype_interfaces import interfaces
from nipype_interfaces.workflows import init_neuraldiffuser_wf

GPUS, CHUNKS = (1, 2, 4, 8, 16, 32, 64), (20, 10, 50)
POLL, SUBMIT = 5.0, 0.02
"""Seconds between two looks at the queue, as in `nipype_interfaces.slurm.engine`, and of one sbatch call (assumed)."""
CPUS = 64
TRAIN = 9000
TABLE = {
    # node: seconds of its job beside the start, for one subject of the size of NSD (assumed)
    "betas": 600.0,  # 30,000 trials read from disk
    "targets": 600.0,  # 9,000 images encoded on a GPU
    "fit": 900.0,
    "decode": 60.0,
    "test_targets": 70.0,
    "contribution": 300.0,
    "evaluate": 600.0,
    "report": 60.0,
}


@dataclass(frozen=True)
class Costs:
    """Seconds of jobs.

    Attributes
    ----------
    image : float
        One guided image.
    unguided : float
        An unguided one in units of it.
    start : float
        Every job: queue, interpreter, imports.
    load : float
        Opening the models, once a chunk.
    """

    image: float
    unguided: float
    start: float = 15.0
    load: float = 20.0


@dataclass(frozen=True)
class Study:
    """What is reconstructed; one empty file stands for `thin` images."""

    subjects: int = 8
    stimuli: int = 1000
    repeats: int = 5
    thin: int = 10

    @property
    def pairs(self) -> int:
        """Guided images; there are as many unguided ones."""
        return self.subjects * self.stimuli * self.repeats


def duration_of(study: Study, costs: Costs):
    """The function from a node to the seconds of its job."""

    def duration(node: Any) -> float:
        name = plain_name(node)
        if name == "recon":
            images = len(node.inputs.stimulus_ids) * study.repeats
            return costs.start + costs.load + images * costs.image * (1 + costs.unguided)
        return costs.start + TABLE.get(name, 0.0)

    return duration


def outputs_of(study: Study) -> dict[str, Any]:
    """Outputs of nodes that are no single file."""
    tests = list(range(study.stimuli))

    def images(inputs: Any, folder: Path) -> list[str]:
        names = [f"{s}_{k}.png" for s in inputs.stimulus_ids for k in range(max(1, 2 * study.repeats // study.thin))]
        return [touch(folder, name) for name in names]

    def several(what: str, n: int):
        return lambda inputs, folder: [touch(folder, f"{what}{k}") for k in range(n)]

    return {
        "test_ids": tests,
        "stimulus_ids": tests,
        "train_ids": list(range(study.stimuli, study.stimuli + TRAIN)),
        "source": lambda inputs, folder: dict(inputs.source),
        "images": images,
        "failed": [],
        "failed_table": None,
        "maps": several("map", 8),
        "files": several("shown", 2 * study.stimuli // study.thin),  # seen and start of every stimulus
        "page": lambda inputs, folder: touch(folder, "page.html"),
    }


def build(study: Study, chunk_size: int, folder: Path) -> Any:
    """The workflow of the whole dataset, with empty input folders."""
    nsd = folder / "nsd"
    nsd.mkdir()
    (folder / "out").mkdir()
    jobs = [Job(nsd, folder / "out", f"subj{s + 1:02d}", device="cuda") for s in range(study.subjects)]
    wf = init_neuraldiffuser_wf(jobs, WorkflowParams(chunk_size=chunk_size), group=True)
    wf.base_dir = str(folder / "work")
    wf.config["execution"] = {"poll_sleep_duration": str(POLL), "crashdump_dir": str(folder), "crashfile_format": "txt"}
    return wf


def simulate(study: Study, gpus: int, chunk_size: int, costs: Costs) -> Schedule:
    """Run the graph on so many simulated GPUs."""
    clock = Clock(POLL)
    plugin = VirtualPlugin(Cluster(gpus, CPUS, duration_of(study, costs), SUBMIT), clock)
    classes = [getattr(interfaces, name) for name in interfaces.__all__]
    with tempfile.TemporaryDirectory() as folder, stubbed(classes, outputs_of(study)), virtual_time(clock):
        wf = build(study, chunk_size, Path(folder))
        clock.restart()
        wf.run(plugin=plugin)
        engine = clock.engine() - clock.quick
    return Schedule(plugin.placed, plugin.graph, engine, clock.quick)


# ---- rows -------------------------------------------------------------------------------------------------------


def row(case: str, baseline: str, ratio: float, schedule: Schedule, **more: Any) -> dict[str, Any]:
    """One row of hours; a simulation has no spread, so the quartiles are the figure itself."""
    hours = schedule.makespan / 3600
    return {
        "benchmark": "cluster_schedule",
        "case": case,
        "baseline": baseline,
        "ratio": {"median": ratio, "q25": ratio, "q75": ratio, "n": 1},
        "ours": {"median": hours, "gpu_hours": schedule.gpu / 3600},
        "unit": "h",
        **more,
    }


def engine_facts(schedule: Schedule) -> dict[str, float]:
    """What the engine took: measured."""
    jobs = len(schedule.jobs)
    return {
        "jobs": jobs,
        "engine_seconds": schedule.engine,
        "engine_ms_per_job": 1e3 * schedule.engine / jobs,
        "quick_nodes_seconds": schedule.quick,
        "share_of_makespan": (schedule.engine + schedule.quick) / schedule.makespan,
    }


def scaling_row(schedule: Schedule, one: Schedule, gpus: int, chunk: int, baseline: str) -> dict[str, Any]:
    """Speed over one GPU, and efficiencies: of everything, against the bound, of the reconstruction alone."""
    recon = schedule.total("recon") / (gpus * schedule.window("recon"))
    return row(
        f"{gpus} GPUs, chunks of {chunk}",
        baseline,
        one.makespan / schedule.makespan,
        schedule,
        efficiency=one.makespan / (gpus * schedule.makespan),
        efficiency_against_bound=schedule.bound(gpus, "recon") / schedule.makespan,
        efficiency_of_reconstruction=recon,
        **engine_facts(schedule),
    )


def rows(args: argparse.Namespace, study: Study, costs: Costs) -> list[dict[str, Any]]:
    """Every number of GPUs with the first chunk size and the largest with the others, compared with one GPU."""
    found, first, most = [], args.chunk_sizes[0], max(args.gpus)
    one = simulate(study, 1, first, costs)
    cases = [(gpus, first) for gpus in args.gpus] + [(most, chunk) for chunk in args.chunk_sizes[1:]]
    for gpus, chunk in cases:
        schedule = one if (gpus, chunk) == (1, first) else simulate(study, gpus, chunk, costs)
        found.append(scaling_row(schedule, one, gpus, chunk, f"1 GPU, chunks of {first}"))
        print(line(found[-1]), file=sys.stderr, flush=True)
    return found


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    return (
        f"{row['case']}: {row['ours']['median']:.2f} h (simulated), {row['ratio']['median']:.2f}x 1 GPU, "
        f"{row['ours']['gpu_hours']:.1f} GPU hours, efficiency {row['efficiency']:.3f}, "
        f"against the bound {row['efficiency_against_bound']:.3f}, reconstruction alone "
        f"{row['efficiency_of_reconstruction']:.3f}; measured: engine {row['engine_ms_per_job']:.1f} ms for each of "
        f"{row['jobs']} jobs, nodes that it runs by itself {row['quick_nodes_seconds']:.1f} s, together "
        f"{100 * row['share_of_makespan']:.2f} % of the time"
    )


def costs_of(args: argparse.Namespace) -> tuple[Costs, str]:
    """Seconds of jobs, and where those of an image come from."""
    diffusion, guidance = preset("neuraldiffuser")
    unguided = census.share_unguided(diffusion, guidance)
    if args.seconds_per_image:
        return Costs(args.seconds_per_image, unguided), args.origin
    device = census.DEVICES[args.device_model]
    seconds = census.seconds_per_image(device, diffusion, guidance)
    return Costs(seconds, unguided), f"{census.HOW}: {device}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file of the rows")
    parser.add_argument("--quick", action="store_true", help="2 subjects x 100 stimuli on 1 and 8 GPUs")
    parser.add_argument("--gpus", type=int, nargs="+", default=GPUS)
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=CHUNKS)
    parser.add_argument("--seconds-per-image", type=float, help="of one guided image")
    parser.add_argument("--origin", default="given by the user", help="where --seconds-per-image comes from")
    parser.add_argument("--device-model", choices=census.DEVICES, default="a100-tf32", help="default: %(default)s")
    parser.add_argument("--thin", type=int, default=10, help="images that one empty file stands for")
    args = parser.parse_args()
    if args.quick:
        args.gpus, args.chunk_sizes = (1, 8), (20,)
    return args


def main() -> int:
    args = parse()
    (costs, origin), study = costs_of(args), Study(2, 100, thin=args.thin) if args.quick else Study(thin=args.thin)
    print("\n".join(census.table(*preset("neuraldiffuser"), Study().pairs)))
    print(f"\nsimulated: {study}; {costs.image:.2f} s per guided image ({origin}), {costs.unguided:.2f} of it unguided")
    hours = census.gpu_hours(costs.image, study.pairs, costs.unguided)
    print(f"images alone: {hours:.1f} GPU hours, {hours / (1 + costs.unguided):.1f} of them for the guided ones")
    print(f"assumed: {costs.start:g} s to start a job, {costs.load:g} s to open the models, {CPUS} CPU jobs at once")
    print(f"assumed seconds of one subject's nodes: {TABLE}\n", flush=True)
    found = [row | {"seconds_per_image": costs.image, "origin": origin} for row in rows(args, study, costs)]
    print(f"\nload average {os.getloadavg()[0]:.1f}")
    if args.json:
        write_json(Path(args.json), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
