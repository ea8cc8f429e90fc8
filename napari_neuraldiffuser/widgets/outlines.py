"""Outlines of regions in the viewer: one Labels layer per family, and the selected region in white."""

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_neuraldiffuser.widgets.maps import Family, family_of_layer, plain

if TYPE_CHECKING:
    import napari

SELECTED = "selected region"
OPACITY = 0.7
"""The map must show through the outlines of small regions."""
WHITE = {None: "transparent", 0: "transparent", 1: "white"}


class Outlines:
    """Draws families as contours.

    Layers that the viewer has already are used and get their former look back; others are made.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: "napari.Viewer") -> None:
        self.viewer = viewer
        self.made: dict[str, Any] = {}
        self.borrowed: dict[str, tuple[Any, dict[str, Any]]] = {}
        self.selected: Any = None

    def show(self, families: dict[str, Family], width: int) -> None:
        """Outline these families `width` pixels wide, and no other."""
        for name in {*self.made, *self.borrowed} - set(families):
            self._hide(name)
        for name, family in families.items():
            layer = self._layer(name) or self._make(name, family)
            layer.contour, layer.visible, layer.opacity = width, True, OPACITY

    def _layer(self, name: str) -> Any:
        if name in self.made and self.made[name] in self.viewer.layers:
            return self.made[name]
        if name in self.borrowed and self.borrowed[name][0] in self.viewer.layers:
            return self.borrowed[name][0]
        found = next((layer for layer in self.viewer.layers if is_family(layer, name)), None)
        if found is not None:
            self.borrowed[name] = found, {key: getattr(found, key) for key in ("contour", "visible", "opacity")}
        return found

    def _make(self, name: str, family: Family) -> Any:
        active = self.viewer.layers.selection.active
        placing = {key: family.volume.placing[key] for key in ("affine", "units", "axis_labels")}
        numbers = [k for k in family.names if k > 0]
        features = {"index": [0, *numbers], "roi": ["", *(family.names[k] for k in numbers)]}
        layer = self.viewer.add_labels(family.volume.shown, name=f"ROI {name}", features=features, **placing)
        layer.metadata = {**family.volume.placing["metadata"], "outline": name}
        layer.editable = False
        self.made[name] = layer
        if active is not None:
            self.viewer.layers.selection.active = active
        return layer

    def _hide(self, name: str) -> None:
        if name in self.borrowed:
            layer, former = self.borrowed.pop(name)
            for key, value in former.items():
                setattr(layer, key, value)
        elif self.made[name] in self.viewer.layers:
            self.made[name].visible = False

    def select(self, family: Family | None, roi: str, width: int) -> None:
        """Outline one region in white above all others; none where it has no volume."""
        label = family.label(roi) if family else None
        if not label:
            self._remove_selected()
            return
        mask = (family.volume.shown == label).astype(np.uint8)
        placing = {key: family.volume.placing[key] for key in ("affine", "units", "axis_labels")}
        if self.selected is not None and self.selected in self.viewer.layers:
            self.selected.data, self.selected.affine = mask, placing["affine"]
            self.selected.contour = width
            return
        from napari.utils.colormaps import DirectLabelColormap

        active = self.viewer.layers.selection.active
        look = {"opacity": OPACITY, "colormap": DirectLabelColormap(color_dict=WHITE)}
        self.selected = self.viewer.add_labels(mask, name=SELECTED, **look, **placing)
        self.selected.contour = width
        self.selected.editable = False
        if active is not None:
            self.viewer.layers.selection.active = active

    def _remove_selected(self) -> None:
        if self.selected is not None and self.selected in self.viewer.layers:
            self.viewer.layers.remove(self.selected)
        self.selected = None

    def clear(self) -> None:
        """Take away what was made and give the other layers their look back."""
        self.show({}, 0)
        for layer in self.made.values():
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self.made = {}
        self._remove_selected()


def is_family(layer: Any, name: str) -> bool:
    """Whether a layer of our readers shows this family."""
    about = layer.metadata.get("neuraldiffuser") or {}
    return about.get("kind") == "roi" and plain(str(about.get("family"))) == plain(name)


def families_in(viewer: "napari.Viewer") -> dict[str, Family]:
    """Families whose regions the viewer shows already."""
    found = (family_of_layer(layer) for layer in viewer.layers if not layer.metadata.get("outline"))
    return {family.name: family for family in found if family is not None}
