"""What a run wrote, as napari layers in millimetres: anatomy, ROIs, contributions, and pictures beside the brain."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from napari_neuraldiffuser.core.params import TARGETS
from napari_neuraldiffuser.widgets.overlay import place_camera, transparent_below
from napari_neuraldiffuser.widgets.reader import AXIS_LABELS, LayerData, read_volume, volume_layer

if TYPE_CHECKING:
    import napari

Progress = Callable[[int, int, str], None]
PICTURES = ("seen", "start", "unguided", "guided")
TITLES = "picture titles"
GAP = 12.0
"""Millimetres between the brain and the pictures, and between pictures; titles stand in it."""
THRESHOLD = 0.1
"""Share of a map's largest contribution below which it is transparent at first."""


def brain_layers(job: Any, progress: Progress) -> list[LayerData]:
    """Layers of a finished `core.job.Job`, bottom first: anatomy (if any), ROI families, contributions."""
    from napari_neuraldiffuser.core.nsd import Subject

    subject = Subject(job.nsd_dir, job.subject, job.settings.betas)
    targets = [t for t in TARGETS if job.places.contribution(t).is_file()]
    families = subject.roi_names()
    layers: list[LayerData] = []
    progress(0, 1 + len(families) + len(targets), "layers")
    anatomy = subject.anatomy()
    if anatomy is not None:
        data, keywords, _ = volume_layer(anatomy, subject.layout.anatomy)
        layers.append((data, {**keywords, "name": "anatomy", "colormap": "gray"}, "image"))
    for name in families:
        layers.append(roi_layer(subject.rois(name), visible=name == "prf-visualrois"))
        progress(len(layers), 1 + len(families) + len(targets), "layers")
    for target in targets:
        layers.append(contribution_layer(job.places.contribution(target), target, visible=target == targets[-1]))
        progress(len(layers), 1 + len(families) + len(targets), "layers")
    return layers


def roi_layer(rois: Any, visible: bool) -> LayerData:
    """One ROI family as Labels; the status bar names the region under the pointer."""
    labels = np.maximum(rois.labels, 0).astype(np.int16)
    image = nib.Nifti1Image(labels, rois.affine)
    image.header.set_intent("label")
    data, keywords, kind = volume_layer(image, f"{rois.name}.nii.gz")
    numbers = list(rois.names)
    keywords["features"] = {"index": [0, *numbers], "roi": ["", *(rois.names[k] for k in numbers)]}
    return data, {**keywords, "name": f"ROI {rois.name}", "opacity": 0.4, "visible": visible}, kind


def contribution_layer(path: Any, target: str, visible: bool) -> LayerData:
    """One target's contribution map, transparent below its lower contrast limit."""
    data, keywords, _ = read_volume(path)
    data = np.nan_to_num(np.asarray(data, dtype=np.float32))
    # a map without a positive value has nothing to show, but a layer needs two distinct limits
    largest = max(float(data.max(initial=0.0)), np.finfo(np.float32).tiny)
    look = {"colormap": transparent_below(), "contrast_limits": (THRESHOLD * largest, largest), "visible": visible}
    return data, {**keywords, "name": f"contribution {target}", **look}, "image"


def add_layers(viewer: "napari.Viewer", layers: list[LayerData]) -> list[Any]:
    """Add the brain's layers; contributions get a colour bar."""
    from napari.layers import Layer

    added = []
    for data, keywords, kind in layers:
        layer = viewer.add_layer(Layer.create(data, keywords, kind))
        if layer.name.startswith("contribution "):
            layer.colorbar.visible = True
        added.append(layer)
    place_camera(viewer)
    return added


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
    places = [(row, column) for row in range(2) for column in range(2)]
    return {
        name: (front - GAP - row * (side + GAP), right + GAP + column * (side + GAP), side)
        for name, (row, column) in zip(PICTURES, places, strict=True)
    }


def picture_layer(name: str, image: np.ndarray, frame: tuple[float, float, float]) -> LayerData:
    """An RGB image (H, W, 3) upright in the plane of A and R; in mm, as one layer in pixels takes the units of all."""
    top, left, side = frame
    down, across = side / image.shape[0], side / image.shape[1]
    # anterior points up, rows count downwards
    affine = np.array([[-down, 0, top - down / 2], [0, across, left + across / 2], [0, 0, 1]])
    return image, {"name": name, "rgb": True, "affine": affine, **_plane()}, "image"


def titles_layer(places: dict[str, tuple[float, float, float]]) -> LayerData:
    """The pictures' names above them."""
    points = np.array([(top + 1.0, left) for top, left, _ in places.values()])
    text = {"string": list(places), "anchor": "lower_left", "color": "white", "size": 11}
    look = {"text": text, "size": 0.1, "face_color": "transparent", "border_color": "transparent"}
    return points, {"name": TITLES, **look, **_plane()}, "points"


def _plane() -> dict[str, Any]:
    return {"units": ("mm", "mm"), "axis_labels": AXIS_LABELS[1:]}
