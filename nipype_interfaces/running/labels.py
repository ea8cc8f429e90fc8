"""What a node is called in front of a user: subject, node, and which item of a MapNode."""

import re
from dataclasses import dataclass
from pathlib import Path

SUBJECT = re.compile(r"sub[-_]([^_]+)(?:_wf)?$")
"""Name of a subject's workflow."""


@dataclass(frozen=True)
class Place:
    """Where a node stands in a workflow, known from its folder.

    Attributes
    ----------
    subject : str
        `sub-01`, or "" for a node of no subject.
    node : str
        Name of the node, of its MapNode where it is an item of one, after that of the workflow it is in:
        `reconstruct/recon`.
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
        item, subject = None, ""
        if len(parts) > 2 and parts[-2] == "mapflow":
            item, parts = int(re.search(r"\d+$", parts[-1]).group()), parts[:-2]
        names = []
        for part in parts:
            found = SUBJECT.match(part)
            subject = f"sub-{found.group(1)}" if found else subject
            name = part.removesuffix("_wf")
            names += [] if found or names[-1:] == [name] else [name]
        return cls(subject, "/".join(names), item, "/".join(parts))

    @property
    def node_label(self) -> str:
        """`sub-01 reconstruct/recon`."""
        return f"{self.subject} {self.node}".strip()

    @property
    def label(self) -> str:
        """`sub-01 reconstruct/recon 3` for the third item."""
        return self.node_label if self.item is None else f"{self.node_label} {self.item + 1}"
