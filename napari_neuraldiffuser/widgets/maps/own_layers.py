"""The layers that the Contribution panel makes, found again by their metadata once the panel is reopened."""

from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.widgets.files.about import kind_of

if TYPE_CHECKING:
    import napari

OWN = "neuraldiffuser_own"
"""Key of a layer's metadata: for what the panel made it."""


def own_layers(viewer: "napari.Viewer", use: str) -> list[Any]:
    """The layers of a viewer that were made for one use."""
    return [layer for layer in viewer.layers if layer.metadata.get(OWN) == use]


def own_layer(viewer: "napari.Viewer", use: str) -> Any:
    """The first of them, None where there is none."""
    return next(iter(own_layers(viewer, use)), None)


def hide_other_maps(viewer: "napari.Viewer", own: Any) -> None:
    """Two maps over each other would show what the threshold leaves out."""
    for layer in viewer.layers:
        if kind_of(layer) == "contribution" and layer is not own:
            layer.visible = False


def add_anatomy(viewer: "napari.Viewer", anatomy: Any) -> None:
    """Put the anatomy below everything unless the viewer has one."""
    from napari.layers import Layer

    if anatomy is not None and not any(kind_of(layer) == "anatomy" for layer in viewer.layers):
        data, keywords, _ = anatomy
        keywords = {**keywords, "name": "anatomy", "colormap": "gray"}
        viewer.layers.insert(0, Layer.create(data, keywords, "image"))
