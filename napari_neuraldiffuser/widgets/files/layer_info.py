"""What layers of this plugin say of themselves in their metadata, and finding them by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

OWN = "neuraldiffuser_own"
"""Key of a layer's metadata: for what the panel made it."""
LayerData = tuple[Any, dict[str, Any], str]
"""Data, keywords and kind of a layer, as napari's readers and writers exchange them."""


def about(kind: str, source: Source | None = None, output: str | Path = "", **more: Any) -> dict[str, Any]:
    """The entry of one layer.

    Parameters
    ----------
    kind : str
        "anatomy", "roi", "contribution", "accuracy", "betas" or "volume".
    source : Source, optional
        The data that the layer belongs to.
    output : path
        The output folder that it belongs to.
    """
    told = {"kind": kind, "source": source.to_dict() if source else None, "output": str(output) or None}
    return {**told, "target": None, "family": None, **more}


def kind_of(layer: "napari.layers.Layer") -> str:
    """The kind of a layer, or nothing where it is none of ours."""
    return layer.metadata.get(KEY, {}).get("kind", "")


def about_file(path: str | Path, ndim: int) -> dict[str, Any]:
    """The entry of a file, by NSD's and this project's names."""
    path = Path(path)
    source = nsd_source(path)
    if said := KINDS["map"].entities(path.name):
        return about("contribution", output=path.absolute().parents[1], target=said["target"])
    if said := KINDS["accuracy map"].entities(path.name):
        return about("accuracy", output=path.absolute().parents[1], target=said["target"])
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


def reversed_axes(affine: np.ndarray) -> np.ndarray:
    """An affine (4, 4) of (x, y, z) for data and world with their axes in the opposite order, and back."""
    order = [2, 1, 0, 3]
    return affine[np.ix_(order, order)]


def own_layers(viewer: "napari.Viewer", use: str) -> list[Any]:
    """The layers of a viewer that were made for one use."""
    return [layer for layer in viewer.layers if layer.metadata.get(OWN) == use]


def own_layer(viewer: "napari.Viewer", use: str) -> "napari.layers.Layer | None":
    """The first of them, None where there is none."""
    return next(iter(own_layers(viewer, use)), None)


@contextmanager
def keeping_active(viewer: "napari.Viewer") -> Iterator[None]:
    """Leave the active layer active while others are added, so that the user's tools stay."""
    active = viewer.layers.selection.active
    yield
    if active is not None:
        viewer.layers.selection.active = active
