"""Names of regions on the map: one name per region, slice and side, written at a voxel of the region."""

from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine

from napari_neuraldiffuser.widgets.files.layer_info import OWN, keeping_active, own_layer
from napari_neuraldiffuser.widgets.maps.subject_maps import Family

if TYPE_CHECKING:
    import napari

LAYER_NAME = "region names"
SIZE = 10
"""Of the letters, in points."""
Places = list[tuple[np.ndarray, str]]
"""Index (S, A, R) on the first family's grid, and name."""


def name_places(families: dict[str, Family], axis: int | None) -> Places:
    """Where names stand in the slices across an axis (0 S, 1 A, 2 R), or in the whole head.

    Left and right parts have a name each.  It stands at the region's voxel that is nearest to their middle.
    """
    found: Places = []
    first = next(iter(families.values()), None)
    for family in families.values():
        affine = np.asarray(family.volume.placing["affine"])
        places = np.argwhere(family.volume.shown > 0)
        labels = family.volume.shown[tuple(places.T)]
        right = apply_affine(affine, places)[:, 2] > 0
        slices = np.zeros(len(places), dtype=int) if axis is None else places[:, axis]
        groups, which = np.unique(np.stack([labels, slices, right], axis=1), axis=0, return_inverse=True)
        to_first = np.linalg.inv(first.volume.placing["affine"]) @ affine
        for k, (label, *_) in enumerate(groups):
            own = places[which.ravel() == k]
            if int(label) in family.names:
                nearest = own[((own - own.mean(0)) ** 2).sum(1).argmin()]
                at = np.rint(apply_affine(to_first, nearest))
                found.append((at, family.names[int(label)]))
    return found


class RegionNames:
    """The Points layer of a viewer that has the names; made anew when families or plane change."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        self.viewer = viewer

    @property
    def layer(self) -> "napari.layers.Layer | None":
        """The layer; None where there is none."""
        return own_layer(self.viewer, LAYER_NAME)

    def show(self, families: dict[str, Family], plane: tuple[int, ...]) -> None:
        """Write the names of these families, for slices along two of S, A and R (0, 1, 2), or in 3D where none is."""
        key = (plane, tuple((name, id(family)) for name, family in families.items()))
        if not families:
            self.remove()
        elif self.layer is None or self.layer.metadata.get("of") != key:
            self.remove()
            axis = next((axis for axis in range(3) if axis not in plane), None) if len(plane) == 2 else None
            self._add(name_places(families, axis), next(iter(families.values())), key)

    def _add(self, places: Places, family: Family, key: Any) -> None:
        if not places:
            return
        placing = {name: family.volume.placing[name] for name in ("affine", "units", "axis_labels")}
        seen = {"blending": "translucent_no_depth"}  # in 3D, whatever is in front: letters do not take it from points
        text = {"string": [name for _, name in places], "color": "white", "size": SIZE, **seen}
        look = {"size": 0.1, "face_color": "transparent", "border_color": "transparent", **seen}
        metadata = {OWN: LAYER_NAME, "of": key}
        points, own = np.array([at for at, _ in places]), {**look, **placing}
        with keeping_active(self.viewer):
            self.viewer.add_points(points, name=LAYER_NAME, text=text, metadata=metadata, **own)

    def remove(self) -> None:
        """Take the names away."""
        if self.layer is not None:
            self.viewer.layers.remove(self.layer)
