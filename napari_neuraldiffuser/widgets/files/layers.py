"""What a run wrote, as napari layers in millimetres: anatomy, ROIs, contributions, and pictures beside the brain."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from napari_neuraldiffuser.core.base.pictures import read_picture
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.outputs.report.slices import POSITIVE
from napari_neuraldiffuser.widgets.files.layer_info import LayerData, about, kind_of
from napari_neuraldiffuser.widgets.files.outputs import SubjectOutputs
from napari_neuraldiffuser.widgets.files.reader import AXIS_LABELS, read_volume, volume_layer
from napari_neuraldiffuser.widgets.files.view import AnatomicalView, finish
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

PICTURES = ("seen", "start", "unguided", "guided")
TITLES = "picture titles"
GAP = 12.0
"""Millimetres between the brain and the pictures, and between pictures; titles stand in it."""
SHOWN_FAMILY = "prf-visualrois"
EMPTY_BRAIN = (1, 180, 1)
"""Voxels of 1 mm that pictures are placed beside where there is no volume."""
THRESHOLD = 0.1
"""Share of a map's largest contribution below which it is transparent at first."""


def anatomy_layer(path: Path, told: dict[str, Any]) -> LayerData:
    """A T1 in grey; `told` is what the panels hear of it (see `about.about`)."""
    data, keywords, _ = read_volume(path)
    keywords["metadata"][KEY] = told
    return data, {**keywords, "name": "anatomy", "colormap": "gray"}, "image"


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
    return {"name": f"ROI {family}", "features": features, "opacity": 0.9, "visible": visible}


def regions_layer(path: Path, names: dict[int, str], told: dict[str, Any], visible: bool) -> LayerData:
    """One ROI family from a label volume of an output folder."""
    data, keywords, _ = read_volume(path)
    keywords["metadata"][KEY] = told
    return data, {**keywords, **_regions_look(told["family"], names, visible)}, "labels"


def contribution_layer(path: Path, target: str, output: str | Path = "") -> LayerData:
    """One target's contribution map, transparent below its lower contrast limit."""
    data, keywords, _ = read_volume(path)
    data = np.nan_to_num(np.asarray(data, dtype=np.float32))
    # a map without a positive value has nothing to show, but a layer needs two distinct limits
    largest = max(float(data.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    look = {"colormap": transparent_below(), "contrast_limits": (THRESHOLD * largest, largest)}
    keywords["metadata"][KEY] = about("contribution", output=output or Path(path).absolute().parents[1], target=target)
    return data, {**keywords, "name": f"contribution {target}", **look}, "image"


def transparent_below() -> "napari.utils.Colormap":
    """The page's colours for positive shares; values below the lower contrast limit are transparent."""
    from napari.utils.colormaps import Colormap
    from napari.utils.colormaps.standardize_color import transform_color

    colours = np.concatenate([transform_color(colour) for colour in POSITIVE])
    return Colormap(colours, name="red above threshold", low_color=(0, 0, 0, 0))


def add_layers(viewer: "napari.Viewer", layers: list[LayerData]) -> list[Any]:
    """Add layers of ours to a viewer."""
    from napari.layers import Layer

    added = []
    for data, keywords, kind in layers:
        layer = viewer.add_layer(Layer.create(data, keywords, kind))
        finish(layer)
        added.append(layer)
    AnatomicalView.of(viewer)
    return added


def add_anatomy(viewer: "napari.Viewer", anatomy: LayerData | None) -> None:
    """Put the anatomy below everything unless the viewer has one."""
    from napari.layers import Layer

    if anatomy is not None and not any(kind_of(layer) == "anatomy" for layer in viewer.layers):
        data, keywords, _ = anatomy
        keywords = {**keywords, "name": "anatomy", "colormap": "gray"}
        viewer.layers.insert(0, Layer.create(data, keywords, "image"))


def frames(data: np.ndarray, affine: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Where the pictures go, two by two, to the right of a volume and as high as it is long.

    Parameters
    ----------
    data : ndarray (Z, Y, X)
    affine : ndarray (4, 4)
        Index (z, y, x) to (S, A, R) in mm.

    Returns
    -------
    dict
        Picture name to (top in A, left in R, side), in mm.
    """
    corners = apply_affine(affine, np.array([np.full(3, -0.5), np.array(data.shape[-3:]) - 0.5]))
    (_, back, _), (_, front, right) = corners.min(axis=0), corners.max(axis=0)
    side = (front - back) / 2 - GAP
    cells = [(row, column) for row in range(2) for column in range(2)]
    return {
        name: (front - GAP - row * (side + GAP), right + GAP + column * (side + GAP), side)
        for name, (row, column) in zip(PICTURES, cells, strict=True)
    }


def picture_layer(name: str, image: np.ndarray, frame: tuple[float, float, float]) -> LayerData:
    """An RGB image (H, W, 3) upright in the plane of A and R; in mm, as one layer in pixels takes the units of all."""
    top, left, side = frame
    down, across = side / image.shape[0], side / image.shape[1]
    # anterior points up, rows count downwards
    affine = np.array([[-down, 0, top - down / 2], [0, across, left + across / 2], [0, 0, 1]])
    return image, {"name": name, "rgb": True, "affine": affine, **_plane()}, "image"


def titles_layer(titled: dict[str, tuple[float, float, float]]) -> LayerData:
    """Make a layer that writes the pictures' names above them."""
    points = np.array([(top + 1.0, left) for top, left, _ in titled.values()])
    text = {"string": list(titled), "anchor": "upper_left", "color": "white", "size": 11}
    look = {"text": text, "size": 0.1, "face_color": "transparent", "border_color": "transparent"}
    return points, {"name": TITLES, **look, **_plane()}, "points"


def _plane() -> dict[str, Any]:
    return {"units": ("mm", "mm"), "axis_labels": AXIS_LABELS[1:], "metadata": {KEY: about("picture")}}


def picture_layers(outputs: SubjectOutputs, brain: list[LayerData]) -> list[LayerData]:
    """Seen image, starting point and both arms of the first stimulus, beside the brain; as many as there are."""
    if not outputs.pictures:
        return []
    first = outputs.pictures[min(outputs.pictures)]
    files = {name: first[name, 1] for name in PICTURES if (name, 1) in first}
    volume = brain[0] if brain else (np.zeros(EMPTY_BRAIN), {"affine": np.eye(4)}, "")
    corners = frames(volume[0], volume[1]["affine"])
    layers = [picture_layer(name, read_picture(path), corners[name]) for name, path in files.items()]
    # the titles last, as a picture above them would hide them
    return [*layers, titles_layer({name: corners[name] for name in files})]
