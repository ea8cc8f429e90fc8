"""What a node is called in front of a user: its subject, its name, and which part of a MapNode it is."""

import re
from dataclasses import dataclass
from pathlib import Path

SUBJECT = re.compile(r"sub[-_]([^_]+)(?:_wf)?$")
"""Name of a subject's workflow."""


@dataclass(frozen=True)
class NodeLabel:
    """What a node is called; as text `sub-01 reconstruct/recon, part 3`.

    Attributes
    ----------
    subject : str
        `sub-01`, or "" for a node of no subject.
    node : str
        Name of the node (of its MapNode where it is an item of one) after that of its workflow: `reconstruct/recon`.
    item : int or None
        Number of the item, from 0.
    folder : str
        Folder of the node or of its MapNode, relative to the workflow's.
    """

    subject: str
    node: str
    item: int | None
    folder: str

    @classmethod
    def of(cls, folder: str | Path, root: str | Path) -> "NodeLabel":
        """Make the label of the node that works in `folder`, in the workflow whose folder is `root`."""
        folder, root = Path(folder).resolve(), Path(root).resolve()
        parts = folder.relative_to(root).parts if folder.is_relative_to(root) else folder.parts[-1:]
        item, subject = None, ""
        if len(parts) > 2 and parts[-2] == "mapflow":
            item, parts = int(re.findall(r"\d+$", parts[-1])[0]), parts[:-2]
        names: list[str] = []
        for part in parts:
            match, name = SUBJECT.match(part), part.removesuffix("_wf")
            if match:
                subject = f"sub-{match.group(1)}"
            elif names[-1:] != [name]:
                names.append(name)
        return cls(subject, "/".join(names), item, "/".join(parts))

    @property
    def without_item(self) -> str:
        """`sub-01 reconstruct/recon`, for an item of a MapNode as for the MapNode."""
        return f"{self.subject} {self.node}".strip()

    def __str__(self) -> str:
        return self.without_item + ("" if self.item is None else f", part {self.item + 1}")
