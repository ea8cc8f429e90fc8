"""What layers of this plugin say of themselves in their metadata, and finding them by it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.outputs.names import KINDS

if TYPE_CHECKING:
    import napari

KEY = "neuraldiffuser"


def about(kind: str, source: Source | None = None, output: str | Path = "", **more: Any) -> dict[str, Any]:
    """The entry of one layer.

    Parameters
    ----------
    kind : str
        "anatomy", "roi", "contribution", "betas", "picture" or "volume".
    source : Source, optional
        The data that the layer belongs to.
    output : path
        The output folder that it belongs to.
    """
    told = {"kind": kind, "source": source.to_dict() if source else None, "output": str(output) or None}
    return {**told, "target": None, "family": None, **more}


def kind_of(layer: Any) -> str:
    """The kind of a layer, or nothing where it is none of ours."""
    return layer.metadata.get(KEY, {}).get("kind", "")


def about_file(path: str | Path, ndim: int) -> dict[str, Any]:
    """The entry of a file, by NSD's and this project's names."""
    path = Path(path)
    source = nsd_source(path)
    if said := KINDS["map"].entities(path.name):
        return about("contribution", output=path.absolute().parents[1], target=said["target"])
    if said := KINDS["regions"].entities(path.name):
        return about("roi", output=path.absolute().parents[2], family=said["seg"])
    if path.name.startswith("T1_to_") or KINDS["anatomy"].entities(path.name):
        return about("anatomy", source)
    if source and path.parent.name == "roi":
        family = path.name.removesuffix(".nii.gz").removeprefix("lh.").removeprefix("rh.")
        return about("roi", source, family=family)
    return about("betas" if source and ndim == 4 and path.name.startswith("betas_") else "volume", source)


def nsd_source(path: str | Path) -> Source | None:
    """The NSD folder and subject that a file or folder below .../ppdata/subjXX belongs to."""
    path = Path(path).absolute()
    for folder in (path, *path.parents):
        if folder.parent.name == "ppdata" and folder.parent.parent.name in ("nsddata", "nsddata_betas"):
            return Source(nsd_dir=str(folder.parents[2]), subject=folder.name)
    return None


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
