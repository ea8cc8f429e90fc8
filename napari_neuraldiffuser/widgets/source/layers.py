"""Anatomy and regions of a source as layers, read in a thread."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.files.folders import nsd_layers
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, about
from napari_neuraldiffuser.widgets.files.layers import anatomy_layer, roi_layer
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

Read = tuple[list[LayerData], list[str]]
"""Layers, bottom first, and notes on what is not among them."""


def read_source(source: Source, space: str, progress: Progress) -> Read:
    """Anatomy and regions of a source in one volume space."""
    progress(0, 0, "reading anatomy and regions")
    layers, notes = own_layers(source, progress) if source.own else nsd_layers(source, space)
    if not any(keywords["metadata"][KEY]["kind"] == "anatomy" for _, keywords, _ in layers):
        notes.append("There is no anatomy in the betas' space: regions are shown alone.")
    return layers, notes


def own_layers(source: Source, progress: Progress) -> Read:
    """Anatomy, mask and label volumes of own scans."""
    from napari_neuraldiffuser.core.nsd import OwnScans

    scans = OwnScans(source)
    layers, notes = [], []
    if source.anatomy:
        layers.append(anatomy_layer(Path(source.anatomy), about("anatomy", source)))
    names = scans.roi_names()
    for k, name in enumerate(names):
        progress(k, len(names), "reading regions")
        try:
            layers.append(roi_layer(scans.rois(name), False, about("roi", source, family=name)))
        except UserError as error:
            notes.append(f"ROI {name} is not shown: {error}")
    return layers, notes


def missing_layers(viewer: "napari.Viewer", layers: list[LayerData]) -> list[LayerData]:
    """Those of `layers` that the viewer does not show yet."""
    there = [identity(layer.metadata) for layer in viewer.layers]
    return [layer for layer in layers if identity(layer[1]["metadata"]) not in there]


def identity(metadata: dict[str, Any]) -> tuple[Any, ...] | None:
    """What makes two layers of sources the same; None for other layers."""
    told = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not told or not told.get("source"):
        return None
    return told["kind"], told.get("family"), told["source"], told.get("space")
