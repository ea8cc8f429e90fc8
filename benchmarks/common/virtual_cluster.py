"""A batch cluster whose jobs end on a virtual clock, behind the code that Nipype runs for its batch engines.

Real: Nipype's submit loop, its bookkeeping of dependencies, expansion of MapNodes, hash checks, the pickled node and
the script of every job, the result files.  Simulated: the queue, and how long a job takes.
"""

import heapq
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from nipype.interfaces.base import BaseInterface, traits
from nipype.interfaces.base.traits_extension import BasePath
from nipype.pipeline.engine import Node
from nipype.pipeline.plugins import base

from nipype_interfaces.slurm.engine import _is_complete

Duration = Callable[[Any], float]


class Clock:
    """Seconds as the engine sees them: what it computes counts, waiting is skipped, the inside of jobs is left out.

    Processor time of this process is what counts as computing, so that other processes of the machine do not.
    """

    def __init__(self, poll: float) -> None:
        self.poll = poll
        self.next_end: Callable[[], float] = lambda: math.inf
        self.restart()

    def restart(self) -> None:
        """Zero from here on."""
        self.skipped, self.inside, self.quick, self.begin = 0.0, 0.0, 0.0, time.process_time()
        self.in_job = False

    def engine(self) -> float:
        """Seconds computed outside of jobs."""
        return time.process_time() - self.begin - self.inside

    def now(self) -> float:
        return self.engine() + self.skipped

    def sleep(self, seconds: float) -> None:
        """To the engine's next look, or the first one at which a job has ended."""
        now, end = self.now(), self.next_end()
        wake = now + max(0.0, seconds)
        if math.isfinite(end) and end > wake:
            wake += self.poll * math.ceil((end - wake) / self.poll)
        self.skipped += wake - now

    @contextmanager
    def job(self) -> Iterator[None]:
        """What happens in here happens on another machine."""
        start, self.in_job = time.process_time(), True
        try:
            yield
        finally:
            self.inside, self.in_job = self.inside + time.process_time() - start, False

    def run_node(self, run: Callable, node: Any, updatehash: bool = False) -> Any:
        """Run a node, and count it as `quick` if it is none of a job."""
        start = time.process_time()
        try:
            return run(node, updatehash)
        finally:
            if not self.in_job:
                self.quick += time.process_time() - start


@dataclass(frozen=True)
class Placed:
    """A job: name of its node, whether that is an item of a MapNode, whether it held a GPU, and when it ran."""

    name: str
    item: bool
    gpu: bool
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Schedule:
    """A simulated run.

    Attributes
    ----------
    jobs : list of Placed
    graph : networkx.DiGraph
        The nodes that Nipype ran.
    engine, quick : float
        Real processor seconds of the engine, and of the nodes that it runs by itself.
    """

    jobs: list[Placed]
    graph: Any
    engine: float
    quick: float

    @property
    def makespan(self) -> float:
        return max(job.end for job in self.jobs)

    @property
    def gpu(self) -> float:
        """Seconds of all GPU jobs."""
        return sum(job.seconds for job in self.jobs if job.gpu)

    def window(self, name: str) -> float:
        """Seconds from the first start to the last end of a node's jobs."""
        jobs = self.of(name)
        return max(job.end for job in jobs) - min(job.start for job in jobs)

    def total(self, name: str) -> float:
        """Seconds of a node's jobs together."""
        return sum(job.seconds for job in self.of(name))

    def longest(self, name: str) -> float:
        """Seconds of the longest job of a node; 0 if the engine ran it by itself."""
        return max((job.seconds for job in self.of(name)), default=0.0)

    def of(self, name: str) -> list[Placed]:
        """Jobs of a node; all items of a MapNode."""
        return [job for job in self.jobs if job.name == name]

    def bound(self, gpus: int, name: str) -> float:
        """Least seconds that any order of these jobs takes.

        Either the work of all GPUs spread evenly; or the longest way through the graph to and from a node of `name`
        and, in between, all jobs of that name spread evenly.
        """
        around = [
            self._to(node, self.graph) + self._to(node, self.graph.reverse(copy=False))
            for node in self.graph
            if node.name == name
        ]
        between = max(self.total(name) / gpus, self.longest(name))
        return max(self.gpu / gpus, min(around) + between)

    def _to(self, end: Any, graph: Any) -> float:
        """Seconds of the longest way to a node, without itself."""
        done: dict[Any, float] = {}
        for node in networkx.topological_sort(graph):
            begin = max((done[before] for before in graph.predecessors(node)), default=0.0)
            if node is end:
                return begin
            done[node] = begin + self.longest(node.name)
        raise KeyError(end)


@dataclass
class Cluster:
    """First come, first served, in a queue for jobs that want a GPU and one for those that do not.

    Attributes
    ----------
    gpus, cpus : int
        Jobs of either kind that run at once.
    duration : callable
        Seconds of a node's job.
    submit : float
        Seconds that the engine waits for the batch system to take a job.
    """

    gpus: int
    cpus: int
    duration: Duration
    submit: float = 0.0

    def __post_init__(self) -> None:
        self.free = {True: [0.0] * self.gpus, False: [0.0] * self.cpus}

    def place(self, node: Any, now: float) -> Placed:
        """When a job that is submitted now runs."""
        gpu = bool(node.is_gpu_node())
        start = max(now, heapq.heappop(self.free[gpu]))
        end = start + self.duration(node)
        heapq.heappush(self.free[gpu], end)
        return Placed(plain_name(node), is_item(node), gpu, start, end)


class VirtualPlugin(base.SGELikeBatchManagerBase):
    """Nipype's engine for batch systems with a simulated one behind it; as ours for SLURM, it makes lists itself."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        super().__init__("#!/bin/sh", {})
        self.cluster, self.clock = cluster, clock
        self.placed: list[Placed] = []
        self.running: dict[int, tuple[float, Any]] = {}
        self.graph: Any = None
        clock.next_end = lambda: min((end for end, _ in self.running.values()), default=math.inf)

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        self.graph = graph
        super().run(graph, config, updatehash=updatehash)

    def _local_hash_check(self, jobid: int, graph: Any) -> bool:
        items = [self.procs[item] for item, parent in self.mapnodesubids.items() if parent == jobid]
        if items and all(map(_is_complete, items)):
            self.procs[jobid].run_without_submitting = True
        return super()._local_hash_check(jobid, graph)

    def _submit_batchtask(self, scriptfile: str, node: Any) -> int:
        self.clock.skipped += self.cluster.submit
        taskid, job = len(self.placed), self.cluster.place(node, self.clock.now())
        self.placed.append(job)
        self.running[taskid] = job.end, node
        self._pending[taskid] = node.output_dir()
        return taskid

    def _is_pending(self, taskid: int) -> bool:
        end, node = self.running[taskid]
        if self.clock.now() < end:
            return True
        del self.running[taskid]
        with self.clock.job():
            node.run()
        return False


@contextmanager
def stubbed(classes: Iterable[type], known: dict[str, Any]) -> Iterator[None]:
    """Inside the block the interfaces compute nothing and give empty files; `known` has the other outputs."""

    def core(self, folder: Path, progress: Any) -> dict[str, Any]:
        return {name: fake(self, name, known, folder) for name in self.output_spec().copyable_trait_names()}

    kept = [(cls, cls.__dict__["core"]) for cls in classes if "core" in cls.__dict__]
    for cls, _ in kept:
        cls.core = core
    try:
        yield
    finally:
        for cls, method in kept:
            cls.core = method


def fake(interface: BaseInterface, name: str, known: dict[str, Any], folder: Path) -> Any:
    """One output: what `known` says (a value, or a function of the inputs), else an empty file, else nothing."""
    if name in known:
        value = known[name]
        return value(interface.inputs, folder) if callable(value) else value
    if isinstance(interface.output_spec().traits()[name].trait_type, BasePath):
        return touch(folder, name)
    return traits.Undefined


def touch(folder: Path, name: str) -> str:
    """An empty file below a folder of the subject's name, as the real nodes write them."""
    found = re.search(r"/sub_(\w+)_wf/", f"{folder}/")
    path = folder / (f"sub-{found.group(1)}" if found else "group") / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return str(path)


@contextmanager
def virtual_time(clock: Clock) -> Iterator[None]:
    """Inside the block Nipype's engines take the time from `clock`, and say warnings only."""
    kept, run, log = (base.time, base.sleep), Node.run, logging.getLogger("nipype.workflow")
    level = log.level
    base.time, base.sleep = clock.now, clock.sleep
    Node.run = lambda node, updatehash=False: clock.run_node(run, node, updatehash)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        base.time, base.sleep = kept
        Node.run = run
        log.setLevel(level)


def plain_name(node: Any) -> str:
    """`recon` of the node `recon` and of its items `_recon0`, `_recon1` ..."""
    return re.fullmatch(r"_(.+?)\d+|(.+)", node.name).expand(r"\1\2")


def is_item(node: Any) -> bool:
    """Whether a node is an item of a MapNode."""
    return re.fullmatch(r"_.+?\d+", node.name) is not None
