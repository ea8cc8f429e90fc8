"""What a workflow would run: its nodes in order, what each needs, and its graph as a picture."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from nipype.pipeline import engine as pe
from nipype.pipeline.engine.utils import topological_sort
from nipype.pipeline.plugins.base import PluginBase

from nipype_interfaces.engines import memory
from nipype_interfaces.engines.labels import NodeLabel
from nipype_interfaces.running import control
from nipype_interfaces.running.monitor import n_items

HEAD = ("node", "interface", "mem_gb", "threads", "GPU", "parts", "state")
COLOURS = {
    "#B4B4FF": "#F1F4F9", "#FFB4B4": "#FBF6EA", "#E6E6FF": "#FFFFFF", "#FFE6E6": "#FFFFFF",
    "#0000FF": "#4A5A78", "#FF0000": "#9A6B2F",
}  # fmt: skip
"""Colours in which Nipype draws workflows, nodes and arrows -> paler ones, which can be looked at for longer."""


@dataclass(frozen=True)
class NodePreview:
    """What one node needs and whether it would run.

    `parts` are the items of a MapNode, "?" until the node before it ran.  `state` is "cached", "to run", or "always" if
    it runs every time, which takes no time.
    """

    label: NodeLabel
    interface: str
    mem_gb: float
    threads: int
    gpu: bool
    parts: str
    state: str

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the columns in `HEAD`."""
        needs = (f"{self.mem_gb:.1f}", str(self.threads), "1" if self.gpu else "-")
        return (str(self.label), self.interface, *needs, self.parts, self.state)


class DryRunPlugin(PluginBase):
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
        self.root, self.parts = Path(root), parts
        self.previews: list[NodePreview] = []

    def run(self, graph: networkx.DiGraph, config: dict[str, Any], updatehash: bool = False) -> None:
        states: dict[pe.Node, str] = {}
        for node in topological_sort(graph)[0]:
            ready = all(states[before] in ("cached", "always") for before in graph.predecessors(node))
            states[node] = _state(node) if ready else "to run"
            self.previews.append(self._preview(node, states[node], _memory(node, ready)))

    def _preview(self, node: pe.Node, state: str, mem_gb: float) -> NodePreview:
        label, name = NodeLabel.of(node.output_dir(), self.root), type(node.interface).__name__
        items = n_items(node) or self.parts.get(label.without_item) or "?"
        parts = str(items) if hasattr(node, "iterfield") else "-"
        return NodePreview(label, name, mem_gb, max(1, node.n_procs), node.is_gpu_node(), parts, state)


def _state(node: pe.Node) -> str:
    """Find the state of a node whose predecessors are complete."""
    try:
        cached, updated = node.is_cached()
    except Exception:  # a result of an earlier version that cannot be read any more is made again
        return "to run"
    if cached and updated:
        return "always" if node.interface.always_run else "cached"
    return "to run"


def _memory(node: pe.Node, ready: bool) -> float:
    """Estimate GB from the files of a node that is ready, or return what a whole NSD subject needs."""
    name = type(node.interface).__name__
    if node.run_without_submitting:
        return node.mem_gb
    if ready and name in memory.ESTIMATES:
        # an item of a MapNode counts as if it had everything that the items share
        return memory.FromShapes(name)(node.interface.inputs)[0]
    return memory.default_gb(node)


def preview(wf: pe.Workflow, parts: dict[str, int] | None = None) -> list[NodePreview]:
    """List the nodes of `wf` in an order in which they could run; `parts` is as in DryRunPlugin."""
    engine = DryRunPlugin(Path(wf.base_dir) / wf.name, parts or {})
    with control.log_to(Path(wf.base_dir) / "nipype.log"):
        wf.run(plugin=engine)
    return engine.previews


def table(previews: list[NodePreview]) -> str:
    """Write the nodes as text in columns, and what they come to."""
    lines = [HEAD, *(node.cells() for node in previews)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines]
    due = sum(node.state == "to run" for node in previews)
    most = max((node.mem_gb for node in previews), default=0.0)
    gpus = sum(node.gpu for node in previews)
    nodes = "node" if len(previews) == 1 else "nodes"
    return "\n".join([*text, f"{len(previews)} {nodes}, {due} to run; {gpus} on a GPU; at most {most:.1f} GB each"])


def write_graph(wf: pe.Workflow, path: str | Path) -> Path:
    """Draw the graph as `path`.png, or as `path`.dot where graphviz is not installed; returns what was written."""
    dot = Path(path).with_suffix(".dot")
    dot.parent.mkdir(parents=True, exist_ok=True)
    wf.write_hierarchical_dotfile(dotfilename=str(dot), colored=True, simple_form=True)
    dot.write_text(_readable(dot.read_text(encoding="utf-8")), encoding="utf-8")
    if shutil.which("dot") is None:
        return dot
    picture = dot.with_suffix(".png")
    drawn = subprocess.run(["dot", "-Tpng", "-o", picture, dot], check=False, capture_output=True)
    return dot if drawn.returncode else picture


def _readable(text: str) -> str:
    """Draw one arrow between two nodes however many values go along it, names without modules, and pale colours."""
    text = re.sub(r'label="(\w+) \(\w+\)"', r'label="\1"', f"strict {text}")
    for loud, pale in COLOURS.items():
        text = text.replace(loud, pale)
    return text
