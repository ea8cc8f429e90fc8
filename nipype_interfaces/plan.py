"""What a workflow would run: its nodes in order, what each needs, and its graph as a picture."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.base import PluginBase

from nipype_interfaces import logs
from nipype_interfaces.labels import Place
from nipype_interfaces.monitor import Monitor

HEAD = ("node", "interface", "mem_gb", "threads", "GPU", "parts", "state")


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
        needs = (f"{self.mem_gb:g}", str(self.threads), "1" if self.gpu else "-")
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
            self.rows.append(self._row(node, states[node]))

    def _row(self, node: Any, state: str) -> Row:
        place, name = Place.of(node.output_dir(), self.root), type(node.interface).__name__
        items = Monitor.n_items(node) or self.parts.get(place.node_label, "?")
        parts = str(items) if hasattr(node, "iterfield") else "-"
        return Row(place, name, node.mem_gb, node.n_procs, node.is_gpu_node(), parts, state)


def _state(node: Any) -> str:
    """Whether a node whose predecessors are complete is; one that runs every time takes no time."""
    try:
        cached, updated = node.is_cached()
    except Exception:  # a result of an earlier version that cannot be read any more will be made anew
        return "to run"
    if cached and updated:
        return "always" if node.interface.always_run else "cached"
    return "to run"


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
    return "\n".join([*lines, f"{len(found)} nodes, {due} to run; {gpus} on a GPU; at most {most:g} GB each"])


def write_graph(wf: Any, path: str | Path) -> Path:
    """The graph as `path`.png where graphviz is installed, as `path`.dot else; returns what was written."""
    dot = Path(path).with_suffix(".dot")
    dot.parent.mkdir(parents=True, exist_ok=True)
    wf.write_hierarchical_dotfile(dotfilename=str(dot), colored=True, simple_form=True)
    # strict: one arrow between two nodes, however many values go along it
    dot.write_text("strict " + dot.read_text(encoding="utf-8"), encoding="utf-8")
    if shutil.which("dot") is None:
        return dot
    picture = dot.with_suffix(".png")
    subprocess.run(["dot", "-Tpng", "-o", picture, dot], check=True, capture_output=True)
    return picture
