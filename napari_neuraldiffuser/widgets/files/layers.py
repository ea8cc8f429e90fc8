"""What a run wrote, as napari layers in millimetres: anatomy, ROIs, contributions; and its pictures as arrays."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.outputs.report.slices import POSITIVE, region_colours
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, about, kind_of
from napari_neuraldiffuser.widgets.files.reader import read_volume, volume_layer
from napari_neuraldiffuser.widgets.files.view import AnatomicalView, finish
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

DIMMED = 1.3
"""Upper contrast limit of an anatomy over its brightest voxels."""
SHOWN_FAMILY = "prf-visualrois"
THRESHOLD = 0.1
"""Share of a map's largest contribution below which it is transparent at first."""


def anatomy_layer(path: Path, told: dict[str, Any]) -> LayerData:
    """A T1 in grey; `told` is what the panels hear of it (see `about.about`)."""
    data, keywords, _ = read_volume(path)
    keywords["metadata"][KEY] = told
    return data, {**keywords, **anatomy_look(data)}, "image"


def anatomy_look(data: np.ndarray) -> dict[str, Any]:
    """Grey, with white matter darker than white: what is drawn over it must be seen."""
    some = np.asarray(data[..., ::2, ::2, ::2], dtype=np.float32)
    top = DIMMED * float(np.nanquantile(some, 0.995)) if some.size else 0.0
    look = {"contrast_limits": (min(float(np.nanmin(some)), 0.0), top)} if np.isfinite(top) and top > 0 else {}
    return {"name": "anatomy", "colormap": "gray", **look}


def roi_layer(rois: Rois, visible: bool, told: dict[str, Any] | None = None) -> LayerData:
    """One ROI family as Labels; the status bar names the region under the pointer, `finish` draws outlines."""
    labels = np.maximum(rois.labels, 0).astype(np.int32)
    image = nib.Nifti1Image(labels, rois.affine)
    image.header.set_intent("label")
    data, keywords, kind = volume_layer(image, f"{rois.name}.nii.gz")
    keywords["metadata"][KEY] = told or about("roi", family=rois.name)
    return data, {**keywords, **_regions_look(rois.name, rois.names, visible)}, kind


def _regions_look(family: str, names: dict[int, str], visible: bool) -> dict[str, Any]:
    numbers = [k for k in names if k > 0]
    features = {"index": [0, *numbers], "roi": ["", *(names[k] for k in numbers)]}
    look = {"opacity": 0.9, "visible": visible, "colormap": region_colormap(names)}
    return {"name": f"ROI {family}", "features": features, **look}


def region_colormap(names: dict[int, str]) -> "napari.utils.colormaps.DirectLabelColormap":
    """Colours of regions that no contribution has; grey for labels without a name."""
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, str] = {None: "gray", 0: "transparent", **region_colours(names)}
    return DirectLabelColormap(color_dict=colours)


def regions_layer(path: Path, names: dict[int, str], told: dict[str, Any], visible: bool) -> LayerData:
    """One ROI family from a label volume of an output folder."""
    data, keywords, _ = read_volume(path)
    keywords["metadata"][KEY] = told
    return data, {**keywords, **_regions_look(told["family"], names, visible)}, "labels"


def contribution_layer(path: Path, target: str, output: str | Path = "") -> LayerData:
    """One target's contribution map, transparent below its lower contrast limit."""
    return _map_layer("contribution", path, target, output)


def accuracy_layer(path: Path, target: str, output: str | Path = "") -> LayerData:
    """The map of what single regions decode of one target, hidden at first."""
    data, keywords, kind = _map_layer("accuracy", path, target, output)
    return data, {**keywords, "visible": False}, kind


def _map_layer(kind: str, path: Path, target: str, output: str | Path) -> LayerData:
    data, keywords, _ = read_volume(path)
    data = np.nan_to_num(np.asarray(data, dtype=np.float32))
    # a map without a positive value has nothing to show, but a layer needs two distinct limits
    largest = max(float(data.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    look = {"colormap": transparent_below(), "contrast_limits": (THRESHOLD * largest, largest)}
    keywords["metadata"][KEY] = about(kind, output=output or Path(path).absolute().parents[1], target=target)
    return data, {**keywords, "name": f"{kind} {target}", **look}, "image"


def rgba(colours: tuple[str, ...]) -> np.ndarray:
    """Colours such as "#ff8a80" as (n, 4), 0 ... 1."""
    from napari.utils.colormaps.standardize_color import transform_color

    return np.concatenate([transform_color(colour) for colour in colours])


def transparent_below() -> "napari.utils.Colormap":
    """The page's colours for positive shares; values below the lower contrast limit are transparent."""
    from napari.utils.colormaps import Colormap

    return Colormap(rgba(POSITIVE), name="red above threshold", low_color=(0, 0, 0, 0))


def add_layers(viewer: "napari.Viewer", layers: list[LayerData]) -> list[Any]:
    """Add layers of ours to a viewer, which from then on is anatomical."""
    added = [add_layer(viewer, layer) for layer in layers]
    AnatomicalView.of(viewer)
    return added


def add_layer(viewer: "napari.Viewer", layer: LayerData) -> Any:
    """Add one layer of ours, and leave the camera as it is."""
    from napari.layers import Layer

    data, keywords, kind = layer
    added = viewer.add_layer(Layer.create(data, keywords, kind))
    finish(added)
    return added


def add_anatomy(viewer: "napari.Viewer", anatomy: LayerData | None) -> None:
    """Put the anatomy below everything unless the viewer has one."""
    from napari.layers import Layer

    if anatomy is not None and not any(kind_of(layer) == "anatomy" for layer in viewer.layers):
        data, keywords, _ = anatomy
        keywords = {**keywords, **anatomy_look(data)}
        viewer.layers.insert(0, Layer.create(data, keywords, "image"))
