"""What a running workflow tells on stderr: every node's start and end, and how far the running ones are."""

import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from napari_neuraldiffuser.core.base.progress import Countdown, duration

from nipype_interfaces.running import progress
from nipype_interfaces.running.labels import Place

POLL = 1.0
"""Seconds between two looks at the running nodes."""
LINE_EVERY = 10.0
"""Seconds between lines about running nodes where stderr is no terminal (a log file)."""
BRIEF = 0.5
"""A node that ends sooner (a cached one) is told of once and not twice."""


@dataclass
class Running:
    """A node under way."""

    place: Place
    node: Any
    folder: Path
    began: float = field(default_factory=time.time)
    stale: progress.Step | None = None
    told: bool = False
    countdown: Countdown = field(default_factory=Countdown)


class Monitor:
    """Status callback `(node, status)` of Nipype's engines; as a context manager it also looks at running nodes.

    Parameters
    ----------
    root : path
        Folder of the workflow.
    stream : text stream
        stderr where None.
    started : str
        What is said of a node that was started: a batch system's nodes are only submitted then.
    """

    def __init__(self, root: str | Path, stream: TextIO | None = None, started: str = "started") -> None:
        self.root, self.stream, self.started = Path(root), stream or sys.stderr, started
        self.graph: Any = None
        self.nodes: dict[str, Any] = {}
        self.running: dict[str, Running] = {}
        self.items: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self._ended: set[str] = set()
        self._began, self._last_line, self._open_line = time.time(), 0.0, False
        # re-entrant: an interrupt may come while a line is being written, and then tells of its own
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def begin(self, graph: Any) -> None:
        """Take note of every node of the graph that will run."""
        self.graph = graph
        self.nodes = {node.output_dir(): node for node in graph.nodes()}

    @property
    def total(self) -> int:
        return len(self.nodes)

    @property
    def done(self) -> int:
        """Nodes that are complete; the items of a MapNode count as one node."""
        return self.counts["run"] + self.counts["cached"]

    def __call__(self, node: Any, status: str) -> None:
        # an interrupted Linear engine says "end" on its way out
        if status != "start" and isinstance(sys.exc_info()[1], KeyboardInterrupt):
            return
        folder = node.output_dir()
        with self._lock:
            running = self._new(node, folder) if status == "start" else self.running.pop(folder, None)
            if status == "start":
                self.running[folder] = running
            elif folder not in self._ended and not self._was_left_out(node, folder):
                self._ended.add(folder)
                self._tell_end(running or self._new(node, folder), status)

    def _new(self, node: Any, folder: str) -> Running:
        return Running(Place.of(folder, self.root), node, Path(folder), stale=progress.read(folder))

    def _was_left_out(self, node: Any, folder: str) -> bool:
        """Whether the node did not run because one before it failed: Linear says "end" of it all the same."""
        failed = {self._parent(name) for name in self.failed}
        if not failed or folder not in self.nodes:
            return False
        import networkx

        return any(self._parent(before.output_dir()) in failed for before in networkx.ancestors(self.graph, node))

    def _tell_end(self, running: Running, status: str) -> None:
        place, spent = running.place, duration(time.time() - running.began)
        if status == "exception":
            self.failed.append(str(running.folder))
            return self._line(f"{self._label(place)}: failed after {spent}")
        how = "cached" if self._was_there(running) else "run"
        if place.item is None:
            self.counts[how] += 1
        else:
            self.items[place.folder] += 1
        self._line(f"{self._label(place)}: {'cached' if how == 'cached' else f'done in {spent}'}")

    def _was_there(self, running: Running) -> bool:
        """Whether the result is older than this run."""
        try:
            return (running.folder / f"result_{running.node.name}.pklz").stat().st_mtime < self._began
        except OSError:
            return False

    def _label(self, place: Place) -> str:
        if place.item is None:
            return place.label
        total = self.n_items(self.nodes.get(str(self.root.resolve() / place.folder)))
        return f"{place.node_label}, part {place.item + 1}" + (f" of {total}" if total else "")

    @staticmethod
    def n_items(node: Any) -> int:
        """Items of a MapNode whose inputs are known; 0 else."""
        try:
            return len(getattr(node.inputs, node.iterfield[0]))
        except (AttributeError, TypeError):
            return 0

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()
        with self._lock:
            self._clear()

    def _poll(self) -> None:
        while not self._stop.wait(POLL):
            with self._lock:
                self._look()

    def _look(self) -> None:
        now = time.time()
        for running in list(self.running.values()):
            if not running.told and now - running.began > BRIEF:
                running.told = True
                self._line(f"{self._label(running.place)}: {self.started}")
        text = "; ".join(self.describe(now))
        if self.stream.isatty():
            self._rewrite(text)
        elif ": " in text and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._line(text)

    def describe(self, now: float) -> Iterator[str]:
        """A few words about every running node; items of one MapNode together."""
        groups: dict[str, list[Running]] = {}
        for running in self.running.values():
            groups.setdefault(running.place.folder, []).append(running)
        for folder, group in groups.items():
            yield self._alone(group[0], now) if group[0].place.item is None else self._together(folder, group, now)

    def _alone(self, running: Running, now: float) -> str:
        """One node: what it does, how much of it is done, the time left."""
        total = self.n_items(running.node)
        found = _newest_item(running) if total else (0, _fresh(running))
        item, step = found
        part = f", part {item + 1} of {total}" if total > 1 else ""
        if step is None:
            return f"{running.place.label}{part}"
        stage, share = step.what, step.share
        if total > 1:
            stage, share = "parts", (item + share) / total
        return f"{running.place.label}{part}: {_said(step)}{running.countdown.left(share, 1.0, stage, now)}"

    def _together(self, folder: str, group: list[Running], now: float) -> str:
        """Items of a MapNode that run at the same time."""
        total = self.n_items(self.nodes.get(str(self.root.resolve() / folder))) or len(group)
        steps = [step for step in map(_fresh, group) if step is not None]
        done = self.items[folder]
        share = min((done + sum(step.share for step in steps)) / total, 1.0)
        said = f"{group[0].place.node_label}, {done} of {total} parts done, {len(group)} under way"
        if steps:
            said += f": {_said(steps[0])}"
        return said + group[0].countdown.left(share, 1.0, "parts", now)

    def _line(self, text: str) -> None:
        self._clear()
        self.stream.write(f"{self.done}/{self.total} nodes  {text}\n")
        self.stream.flush()

    def _rewrite(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self.stream.write(f"\r\x1b[K{text[:width]}")
        self.stream.flush()
        self._open_line = bool(text)

    def _clear(self) -> None:
        if self._open_line:
            self.stream.write("\r\x1b[K")
            self._open_line = False

    def summary(self) -> str:
        """One line about the whole run."""
        rest = self.total - self.done - len({self._parent(f) for f in self.failed})
        parts = [f"{self.counts['run']} run", f"{self.counts['cached']} cached"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{rest} not run"] if rest > 0 else []
        nodes = "node" if self.total == 1 else "nodes"
        return f"{self.total} {nodes}: {', '.join(parts)}; {duration(time.time() - self._began)}"

    def _parent(self, folder: str) -> str:
        return Place.of(folder, self.root).folder


def _fresh(running: Running) -> progress.Step | None:
    """What a node said since it was started; its folder may still have the file of an earlier attempt."""
    step = progress.read(running.folder)
    return None if step == running.stale else step


def _newest_item(running: Running) -> tuple[int, progress.Step | None]:
    """The item that a MapNode works on which runs its items one after another."""
    found = []
    for path in running.folder.glob(f"mapflow/_{running.node.name}*/{progress.FILE}"):
        step = progress.read(path.parent)
        # the same process wrote it, so the same clock
        if step is not None and step.time >= running.began:
            found.append((step.time, int(re.search(r"\d+$", path.parent.name).group()), step))
    return max(found, key=lambda entry: entry[0])[1:] if found else (0, None)


def _said(step: progress.Step) -> str:
    """The count behind what is counted: `images 3/24, guided step 5/18`."""
    what, comma, rest = step.what.partition(",")
    return f"{what} {step.done}/{step.total}{comma}{rest}" if step.total else step.what
