"""Tells on stderr of every node's start and end, and how far the running ones are."""

import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import networkx
from napari_neuraldiffuser.core.base.progress import Countdown, duration, tell
from nipype.pipeline import engine as pe

from nipype_interfaces import node_progress
from nipype_interfaces.engines.labels import NodeLabel
from nipype_interfaces.node_progress import ProgressRecord

POLL = 1.0
"""Seconds between two looks at the running nodes."""
LINE_EVERY = 10.0
"""Seconds between lines about running nodes where stderr is no terminal (a log file)."""
BRIEF = 0.5
"""A node that ends sooner than this many seconds (a cached one) is told of once and not twice."""


@dataclass
class RunningNode:
    """A node under way, and its record of an earlier attempt."""

    label: NodeLabel
    node: pe.Node
    folder: Path
    stale: ProgressRecord | None
    began: float = field(default_factory=time.time)
    told: bool = False
    countdown: Countdown = field(default_factory=Countdown)

    def record(self) -> ProgressRecord | None:
        """Read what the node said since it was started; its folder may still have the file of an earlier attempt."""
        record = node_progress.read(self.folder)
        return None if record == self.stale else record


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
        self.graph = networkx.DiGraph()
        self.nodes: dict[str, pe.Node] = {}
        self.running: dict[str, RunningNode] = {}
        self.items: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self._ended: set[str] = set()
        self.total = 0
        self._began, self._last_line, self._open_line = time.time(), 0.0, False
        # the lock is re-entrant: an interrupt that comes while a line is written tells of something itself
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def begin(self, graph: networkx.DiGraph) -> None:
        """Take note of every node of the graph that will run."""
        self.graph = graph
        self.nodes = {self._parent(node.output_dir()): node for node in graph.nodes()}
        self.total = len(self.nodes)

    @property
    def done(self) -> int:
        """Count the nodes that are complete; the items of a MapNode are one node."""
        return self.counts["run"] + self.counts["cached"]

    def __call__(self, node: pe.Node, status: str) -> None:
        # an interrupted Linear engine says "end" on its way out
        if status != "start" and isinstance(sys.exc_info()[1], KeyboardInterrupt):
            return
        folder = node.output_dir()
        with self._lock:
            running = self.running.pop(folder, None)
            if status == "start" or running is None:
                label = NodeLabel.of(folder, self.root)
                running = RunningNode(label, node, Path(folder), node_progress.read(folder))
            if status == "start":
                self.running[folder] = running
            elif folder not in self._ended and not self._was_left_out(node):
                self._ended.add(folder)
                self._tell_end(running, status)

    def _was_left_out(self, node: pe.Node) -> bool:
        """Tell whether the node did not run because one before it failed: Linear says "end" of it all the same."""
        failed = set(map(self._parent, self.failed))
        if not failed or node not in self.graph:
            return False
        return any(self._parent(before.output_dir()) in failed for before in networkx.ancestors(self.graph, node))

    def _tell_end(self, running: RunningNode, status: str) -> None:
        label, spent = running.label, duration(time.time() - running.began)
        if status == "exception":
            self.failed.append(str(running.folder))
            return self._line(f"{self._text(label)}: failed after {spent}")
        cached = self._was_there(running)
        if label.item is None:
            self.counts["cached" if cached else "run"] += 1
        else:
            self.items[label.folder] += 1
        self._line(f"{self._text(label)}: {'cached' if cached else f'done in {spent}'}")

    def _was_there(self, running: RunningNode) -> bool:
        """Tell whether the result is older than this run."""
        with suppress(OSError):
            return (running.folder / f"result_{running.node.name}.pklz").stat().st_mtime < self._began
        return False

    def _text(self, label: NodeLabel) -> str:
        total = 0 if label.item is None else n_items(self.nodes.get(label.folder))
        return f"{label} of {total}" if total else str(label)

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
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
                self._line(f"{self._text(running.label)}: {self.started}")
        text = "; ".join(self.describe(now))
        if self.stream.isatty():
            self._rewrite(text)
        elif ": " in text and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._line(text)

    def describe(self, now: float) -> Iterator[str]:
        """Say a few words about every running node, and about items of one MapNode together."""
        groups: dict[str, list[RunningNode]] = {}
        for running in self.running.values():
            groups.setdefault(running.label.folder, []).append(running)
        for group in groups.values():
            yield self._alone(group[0], now) if group[0].label.item is None else self._together(group, now)

    def _alone(self, running: RunningNode, now: float) -> str:
        """Say of one node what it does, how much of it is done, and the time left."""
        total = n_items(running.node)
        item, record = _newest_item(running) if total else (0, running.record())
        text = f"{running.label}, part {item + 1} of {total}" if total > 1 else str(running.label)
        if record is None:
            return text
        stage, share = ("parts", (item + record.share) / total) if total > 1 else (record.what, record.share)
        return f"{text}: {_said(record)}{running.countdown.left(share, 1.0, stage, now)}"

    def _together(self, group: list[RunningNode], now: float) -> str:
        """Say the same of items of a MapNode that run at the same time."""
        label = group[0].label
        total = n_items(self.nodes.get(label.folder)) or len(group)
        records = [record for running in group if (record := running.record()) is not None]
        done = self.items[label.folder]
        share = min((done + sum(record.share for record in records)) / total, 1.0)
        text = f"{label.without_item}, {done} of {total} parts done, {len(group)} under way"
        return text + (f": {_said(records[0])}" if records else "") + group[0].countdown.left(share, 1.0, "parts", now)

    def say(self, text: str) -> None:
        """Write a line among those about nodes."""
        with self._lock:
            self._line(text)

    def _line(self, text: str) -> None:
        self._clear()
        tell(self.stream, f"{self.done}/{self.total} nodes  {text}\n")

    def _rewrite(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        tell(self.stream, f"\r\x1b[K{text[:width]}")
        self._open_line = bool(text)

    def _clear(self) -> None:
        if self._open_line:
            tell(self.stream, "\r\x1b[K")
            self._open_line = False

    def summary(self) -> str:
        """Sum the whole run up in one line."""
        rest = self.total - self.done - len(set(map(self._parent, self.failed)))
        parts = [f"{self.counts['run']} run", f"{self.counts['cached']} cached"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{rest} not run"] if rest > 0 else []
        nodes = "node" if self.total == 1 else "nodes"
        return f"{self.total} {nodes}: {', '.join(parts)}; {duration(time.time() - self._began)}"

    def _parent(self, folder: str) -> str:
        """Return the folder of a node, or of the MapNode that it is an item of, relative to the workflow's."""
        return NodeLabel.of(folder, self.root).folder


def n_items(node: pe.Node | None) -> int:
    """Count the items of a MapNode whose inputs are known; 0 for any other node."""
    with suppress(AttributeError, TypeError):
        return len(getattr(node.inputs, node.iterfield[0])) if node else 0
    return 0


def _newest_item(running: RunningNode) -> tuple[int, ProgressRecord | None]:
    """Find the item that a MapNode works on, if it runs its items one after another, and what that said."""
    newest: tuple[int, ProgressRecord | None] = (0, None)
    last = running.began
    for path in running.folder.glob(f"mapflow/_{running.node.name}*/{node_progress.FILE}"):
        record = node_progress.read(path.parent)
        # the same process wrote it, so its clock is the same
        if record is not None and record.time >= last:
            newest, last = (int(re.findall(r"\d+$", path.parent.name)[0]), record), record.time
    return newest


def _said(record: ProgressRecord) -> str:
    """Put the count behind what is counted: `images 3/24, guided step 5/18`."""
    what, comma, rest = record.what.partition(",")
    return f"{what} {record.done}/{record.total}{comma}{rest}" if record.total else record.what
