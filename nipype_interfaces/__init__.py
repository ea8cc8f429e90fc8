"""Nipype interfaces and workflows over `napari_neuraldiffuser.core`: files in, one core call, files out."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nipype_interfaces.workflows.nodes import Plan as Plan

__all__ = ["Plan"]

# nipype asks a server for its newest version at import; these turn that off
os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")


def __getattr__(name: str) -> Any:
    if name == "Plan":  # with it comes all of nipype
        from nipype_interfaces.workflows.nodes import Plan

        return Plan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
