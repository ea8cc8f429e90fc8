"""Outlines of regions in the viewer: one Labels layer per family, and a thin ring around the selected region."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.widgets.files.layer_info import OWN, keeping_active, own_layer, own_layers
from napari_neuraldiffuser.widgets.files.layers import region_colormap
from napari_neuraldiffuser.widgets.maps.subject_maps import USED, Family, family_of_layer, plain
from napari_neuraldiffuser.widgets.session.state import KEY

if TYPE_CHECKING:
    import napari

SELECTED = "selected region"
HIDDEN = "neuraldiffuser_hidden"
"""Key of a layer's metadata: outlines of which family it was hidden for."""
OPACITY = 0.9
FINE = 1.0
"""Millimetres of the grid that contours are drawn on."""
MOST_VOXELS = 2**25
"""Of that grid: 32 MB of labels with one byte."""
RING = {None: "transparent", 0: "transparent", 1: "white", 2: "black"}
"""White within black is seen on any ground; the inside stays free."""
RING_STEP = 0.4
"""Millimetres of the grid that the ring is drawn on: so thin is it."""


class Outlines:
    """Draws families as thin contours: within the slice on a finer grid than the voxels'.

    Layers of the same families that the viewer has already are hidden meanwhile: their contours are a voxel wide.
    Across slices the grid is the voxels' own, or the viewer's slider would step by fractions of a voxel.
    """

    def __init__(self, viewer: "napari.Viewer") -> None:
        self.viewer = viewer

    @property
    def made(self) -> dict[str, Any]:
        """Family to its outlines, whoever made them."""
        return {layer.metadata["outline"]: layer for layer in own_layers(self.viewer, "outlines")}

    @property
    def selected(self) -> "napari.layers.Layer | None":
        """The layer of the selected region; None where there is none."""
        return own_layer(self.viewer, SELECTED)

    def show(self, families: dict[str, Family], width: int) -> None:
        """Outline these families `width` pixels wide, and no other."""
        made = self.made
        for name in set(made) - set(families):
            made[name].visible = False
        self._show_coarse(families)
        for name, family in families.items():
            layer = made.get(name)
            if layer is None:
                layer = self._make(name, family)
            elif layer.metadata["plane"] != self.plane:
                data, placing = fine(family.volume.shown, family.volume.placing, self.plane)
                with keeping_place(self.viewer):
                    layer.data, layer.affine = data, placing["affine"]
                layer.metadata["plane"] = self.plane
            layer.contour, layer.visible = width, bool(self.plane)  # in 3D there are surfaces
            self._hide_coarse(name)

    def _make(self, name: str, family: Family) -> Any:
        from napari.utils.colormaps import DirectLabelColormap

        numbers = [k for k in family.names if k > 0]
        features = {"index": [0, *numbers], "roi": ["", *(family.names[k] for k in numbers)]}
        look = {"features": features, "opacity": OPACITY, "colormap": region_colormap(family.names)}
        if family.name == USED:
            look["colormap"] = DirectLabelColormap(color_dict={None: "white", 0: "transparent", 1: "white"})
        data, placing = fine(family.volume.shown, family.volume.placing, self.plane)
        layer = self._add(data, {"name": f"outlines {name}", **look, **placing})
        told = {OWN: "outlines", "outline": name, "plane": self.plane}
        layer.metadata = {**family.volume.placing["metadata"], **told}
        return layer

    @property
    def plane(self) -> tuple[int, ...]:
        """Which of S, A and R (0, 1, 2) are on the screen; none of them in 3D, where nothing is outlined."""
        dims = self.viewer.dims
        return tuple(sorted(axis - dims.ndim + 3 for axis in dims.displayed)) if dims.ndisplay == 2 else ()

    def _add(self, data: np.ndarray, keywords: dict[str, Any]) -> Any:
        """Add Labels that nobody paints on, and leave the layer selected that was."""
        with keeping_active(self.viewer), keeping_place(self.viewer):
            layer = self.viewer.add_labels(data, **keywords)
            layer.editable = False
        return layer

    def _hide_coarse(self, name: str) -> None:
        for layer in self.viewer.layers:
            if layer.visible and "outline" not in layer.metadata and is_family(layer, name):
                layer.visible = False
                layer.metadata[HIDDEN] = name

    def _show_coarse(self, outlined: Container[str]) -> None:
        """Show again what was hidden for families that are outlined no longer."""
        for layer in self.viewer.layers:
            if layer.metadata.get(HIDDEN, "") and layer.metadata[HIDDEN] not in outlined:
                del layer.metadata[HIDDEN]
                layer.visible = True

    def select(self, family: Family | None, roi: str, width: int) -> None:
        """Draw a ring around one region above all others; none where it has no volume."""
        label = family.label(roi) if family else None
        if not label:
            self._remove_selected()
            return
        mask, placing = ring(family.volume.shown == label, family.volume.placing, self.plane, width)
        if self.selected is not None:
            with keeping_place(self.viewer):
                self.selected.data, self.selected.affine = mask, placing["affine"]
        else:
            from napari.utils.colormaps import DirectLabelColormap

            look = {"opacity": OPACITY, "colormap": DirectLabelColormap(color_dict=RING)}
            self._add(mask, {"name": SELECTED, "metadata": {OWN: SELECTED}, **look, **placing})
        self.selected.visible = bool(self.plane)

    def _remove_selected(self) -> None:
        if self.selected is not None:
            with keeping_place(self.viewer):
                self.viewer.layers.remove(self.selected)

    def clear(self) -> None:
        """Take away what was made and give the other layers their look back."""
        self.show({}, 0)
        for layer in own_layers(self.viewer, "outlines"):
            with keeping_place(self.viewer):
                self.viewer.layers.remove(layer)
        self._remove_selected()


@contextmanager
def keeping_place(viewer: "napari.Viewer") -> Iterator[None]:
    """Stay at the same mm: where an axis gets fewer steps, napari's slider goes to its last one."""
    point = tuple(viewer.dims.point)
    yield
    if len(point) == viewer.dims.ndim:
        viewer.dims.point = point


def fine(
    labels: np.ndarray, placing: dict[str, Any], axes: tuple[int, ...], step: float = FINE
) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels (Z, Y, X) in the same place on a grid of about `step` mm along `axes`, and the keywords that place them.

    A contour is one voxel of its layer wide, and a small region of 4 mm voxels would be nothing but contour.
    """
    affine = np.asarray(placing["affine"], dtype=float)
    smallest = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    k = max(1, min(round(smallest / step), int((MOST_VOXELS / max(labels.size, 1)) ** 0.5)))
    labels = labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
    k -= 1 - k % 2  # odd: the viewer's places, on the finest grid of all layers, remain the voxels' centres
    shrink = np.eye(4)
    for axis in axes:
        labels = labels.repeat(k, axis=axis)
        # the corner of the first voxel stays where it is, not its centre
        shrink[axis, axis], shrink[axis, 3] = 1 / k, (1 / k - 1) / 2
    keywords = {key: placing[key] for key in ("units", "axis_labels")}
    return labels, {**keywords, "affine": affine @ shrink}


def ring(
    mask: np.ndarray, placing: dict[str, Any], axes: tuple[int, ...], width: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """A thin ring along the edge of a region in every slice, and the keywords that place it.

    Parameters
    ----------
    mask : ndarray of bool (Z, Y, X)
    placing : dict
        affine, units and axis_labels of the mask.
    axes : tuple of int
        The axes that are on the screen.
    width : int
        Steps of a fine grid.

    Returns
    -------
    labels : ndarray (Z, Y, X)
        1 inside the region's edge, 2 outside it, 0 elsewhere; of the region's surroundings alone.
    keywords : dict
    """
    places = np.argwhere(mask)
    low, high = places.min(0) - 1, places.max(0) + 2
    inside = [slice(max(a, 0), b) for a, b in zip(low, high, strict=True)]
    missing = [(int(max(-a, 0)), int(max(b - n, 0))) for a, b, n in zip(low, high, mask.shape, strict=True)]
    near = np.pad(mask[tuple(inside)], missing)
    affine = np.array(placing["affine"], dtype=float)
    affine[:3, 3] += affine[:3, :3] @ low
    near, keywords = fine(near, {**placing, "affine": affine}, axes, RING_STEP)
    near = near.astype(bool)
    outer, core = grown(near, axes, width), ~grown(~near, axes, width)
    return np.where(near & ~core, 1, np.where(outer & ~near, 2, 0)).astype(np.uint8), keywords


def grown(mask: np.ndarray, axes: tuple[int, ...], by: int) -> np.ndarray:
    """A mask with the voxels that are `by` steps or less away along some axes."""
    for _ in range(by):
        before = np.pad(mask, 1)
        mask = mask.copy()
        for axis in axes:
            for step in (0, 2):
                cut = [slice(1, -1)] * mask.ndim
                cut[axis] = slice(step, step + mask.shape[axis])
                mask |= before[tuple(cut)]
    return mask


def is_family(layer: "napari.layers.Layer", name: str) -> bool:
    """Whether a layer of our readers shows this family."""
    about = layer.metadata.get(KEY) or {}
    return about.get("kind") == "roi" and plain(str(about.get("family"))) == plain(name)


def families_in(viewer: "napari.Viewer") -> dict[str, Family]:
    """Families whose regions the viewer shows already."""
    families = (family_of_layer(layer) for layer in viewer.layers if not layer.metadata.get("outline"))
    return {family.name: family for family in families if family is not None}
