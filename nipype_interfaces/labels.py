"""What a node is called in front of a user: subject, node, and which item of a MapNode."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a node stands in a workflow, known from its folder.

    Attributes
    ----------
    subject : str
        `sub-01`, or "" for a node of no subject.
    node : str
        Name of the node, of its MapNode where it is an item of one.
    item : int or None
        Number of the item, from 0.
    folder : str
        Folder of the node, below the workflow's.
    """

    subject: str
    node: str
    item: int | None
    folder: str

    @classmethod
    def of(cls, folder: str | Path, root: str | Path) -> "Place":
        """The place of the node that works in `folder`, in the workflow of folder `root`."""
        folder, root = Path(folder).resolve(), Path(root).resolve()
        parts = folder.relative_to(root).parts if folder.is_relative_to(root) else folder.parts[-1:]
        subjects = [m.group(1) for m in (re.match(r"sub[-_](\w+?)(?:_wf)?$", p) for p in parts[:-1]) if m]
        item = None
        if len(parts) > 2 and parts[-2] == "mapflow":
            item, parts = int(re.search(r"\d+$", parts[-1]).group()), parts[:-2]
        return cls(f"sub-{subjects[0]}" if subjects else "", parts[-1], item, "/".join(parts))

    @property
    def node_label(self) -> str:
        """`sub-01 recon`."""
        return f"{self.subject} {self.node}".strip()

    @property
    def label(self) -> str:
        """`sub-01 recon 3` for the third item."""
        return self.node_label if self.item is None else f"{self.node_label} {self.item + 1}"
