"""What a workflow would run: its nodes in order, what each needs, and its graph as a picture."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.base import PluginBase

from nipype_interfaces.engines import memory
from nipype_interfaces.running import logs
from nipype_interfaces.running.labels import Place
from nipype_interfaces.running.monitor import Monitor

HEAD = ("node", "interface", "mem_gb", "threads", "GPU", "parts", "state")
COLOURS = {"#B4B4FF": "#F1F4F9", "#FFB4B4": "#FBF6EA", "#E6E6FF": "#FFFFFF", "#FFE6E6": "#FFFFFF"}
COLOURS |= {"#0000FF": "#4A5A78", "#FF0000": "#9A6B2F"}
"""What Nipype draws workflows, nodes and arrows in -> what can be looked at for longer."""


@dataclass(frozen=True)
class Row:
    """One node: what it needs, how many parts it has ("?" until the node before it ran), whether it would run.

    A node that runs `always` takes no time.
    """

    place: Place
    interface: str
    mem_gb: float
    threads: int
    gpu: bool
    parts: str
    state: str

    def cells(self) -> tuple[str, ...]:
        """As text, one for each of `HEAD`."""
        needs = (f"{self.mem_gb:.1f}", str(self.threads), "1" if self.gpu else "-")
        return (self.place.label, self.interface, *needs, self.parts, self.state)


class DryPlugin(PluginBase):
    """A Nipype engine that runs nothing and takes note of what it would run.

    Parameters
    ----------
    root : path
        Folder of the workflow.
    parts : dict
        Label of a MapNode to the number of items that it will have, for those that Nipype does not know yet.
    """

    def __init__(self, root: str | Path, parts: dict[str, int]) -> None:
        super().__init__()
        self.root, self.parts, self.rows = Path(root), parts, []

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        from nipype.pipeline.engine.utils import topological_sort

        states: dict[Any, str] = {}
        for node in topological_sort(graph)[0]:
            ready = all(states[before] in ("cached", "always") for before in graph.predecessors(node))
            states[node] = _state(node) if ready else "to run"
            self.rows.append(self._row(node, states[node], _memory(node, ready)))

    def _row(self, node: Any, state: str, mem_gb: float) -> Row:
        place, name = Place.of(node.output_dir(), self.root), type(node.interface).__name__
        items = Monitor.n_items(node) or self.parts.get(place.node_label, "?")
        parts = str(items) if hasattr(node, "iterfield") else "-"
        return Row(place, name, mem_gb, max(1, node.n_procs), node.is_gpu_node(), parts, state)


def _state(node: Any) -> str:
    """Whether a node whose predecessors are complete is; one that runs every time takes no time."""
    try:
        cached, updated = node.is_cached()
    except Exception:  # a result of an earlier version that cannot be read any more will be made anew
        return "to run"
    if cached and updated:
        return "always" if node.interface.always_run else "cached"
    return "to run"


def _memory(node: Any, ready: bool) -> float:
    """GB from the files of a node whose predecessors are complete, else what a whole NSD subject needs."""
    name = type(node.interface).__name__
    if node.run_without_submitting:
        return node.mem_gb
    if ready and name in memory.ESTIMATES:
        # of a MapNode: as if an item had everything that the items share
        return memory.FromShapes(name)(node.interface.inputs)[0]
    return memory.default_gb(node)


def rows(wf: Any, parts: dict[str, int] | None = None) -> list[Row]:
    """The nodes of `wf`, in an order in which they could run; `parts` as in DryPlugin."""
    engine = DryPlugin(Path(wf.base_dir) / wf.name, parts or {})
    with logs.to_file(Path(wf.base_dir) / "nipype.log"):
        wf.run(plugin=engine)
    return engine.rows


def table(found: list[Row]) -> str:
    """The rows as text in columns, and what they come to."""
    cells = [HEAD, *(row.cells() for row in found)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(HEAD))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    due = sum(row.state == "to run" for row in found)
    most = max((row.mem_gb for row in found), default=0.0)
    gpus = sum(row.gpu for row in found)
    nodes = "node" if len(found) == 1 else "nodes"
    return "\n".join([*lines, f"{len(found)} {nodes}, {due} to run; {gpus} on a GPU; at most {most:.1f} GB each"])


def write_graph(wf: Any, path: str | Path) -> Path:
    """The graph as `path`.png where graphviz is installed, as `path`.dot else; returns what was written."""
    dot = Path(path).with_suffix(".dot")
    dot.parent.mkdir(parents=True, exist_ok=True)
    wf.write_hierarchical_dotfile(dotfilename=str(dot), colored=True, simple_form=True)
    dot.write_text(_readable(dot.read_text(encoding="utf-8")), encoding="utf-8")
    picture = dot.with_suffix(".png")
    if shutil.which("dot") is None:
        return dot
    drawn = subprocess.run(["dot", "-Tpng", "-o", picture, dot], check=False, capture_output=True)
    return dot if drawn.returncode else picture


def _readable(text: str) -> str:
    """One arrow between two nodes however many values go along it, names without modules, pale colours."""
    text = re.sub(r'label="(\w+) \(\w+\)"', r'label="\1"', f"strict {text}")
    for loud, pale in COLOURS.items():
        text = text.replace(loud, pale)
    return text
