"""Regions as surfaces in 3D, where contours are not drawn: one Surface layer, the selected region opaque."""

from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine

from napari_neuraldiffuser.core.outputs.report.slices import region_colours
from napari_neuraldiffuser.widgets.files.layer_info import OWN, keeping_active, own_layer
from napari_neuraldiffuser.widgets.files.layers import rgba
from napari_neuraldiffuser.widgets.maps.subject_maps import Family

if TYPE_CHECKING:
    import napari

LAYER_NAME = "region surfaces"
FAINT, FULL = 0.35, 1.0
"""Opacity of regions beside the selected one, and of that one."""
SMOOTHING = 0.6
"""Standard deviation in voxels, so that a surface is not a heap of cubes."""
LIGHT, DARKEST = np.array([0.8, 0.4, 0.45]), 0.35
"""Where light comes from, along S, A and R and from both sides: napari's own shines from behind the turned camera."""
Mesh = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Vertices (n, 3), faces (m, 3) and brightness (n,), 0 ... 1."""

NOTHING: Mesh = np.empty((0, 3)), np.empty((0, 3), dtype=int), np.empty(0)


def surface_of(mask: np.ndarray) -> Mesh:
    """The surface of a region (Z, Y, X) by marching cubes, lit; vertices in voxels."""
    from scipy.ndimage import gaussian_filter
    from skimage.measure import marching_cubes

    places = np.argwhere(mask)
    low, high = places.min(0), places.max(0) + 1
    near = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32), 2)
    smooth = gaussian_filter(near, SMOOTHING)
    level = min(0.5, 0.5 * float(smooth[near > 0].max()))  # a single voxel would be smoothed away
    vertices, faces, normals, _ = marching_cubes(smooth, level)
    return vertices + low - 2, faces, DARKEST + (1 - DARKEST) * np.abs(normals @ LIGHT)


class RegionSurfaces:
    """Shows the regions of families in 3D; surfaces are made once for each region."""

    def __init__(self, viewer: "napari.Viewer") -> None:
        self.viewer = viewer
        self._known: dict[tuple[int, int], Mesh] = {}

    @property
    def layer(self) -> "napari.layers.Layer | None":
        """The layer; None where there is none."""
        return own_layer(self.viewer, LAYER_NAME)

    def show(self, families: dict[str, Family], selected: tuple[str, str] | None) -> None:
        """Show these families' regions, and make the selected (family, region) stand out; in 2D none is shown."""
        if self.viewer.dims.ndisplay != 3 or not families:
            self.remove()
            return
        meshes = [part for name, family in families.items() for part in self._parts(name, family, selected)]
        if not meshes:
            self.remove()
            return
        counts = np.cumsum([0, *(len(vertices) for vertices, *_ in meshes)])
        vertices = np.concatenate([one for one, *_ in meshes])
        faces = np.concatenate([one + count for (_, one, _), count in zip(meshes, counts, strict=False)])
        colours = np.concatenate([one for *_, one in meshes])
        self._draw(vertices, faces, colours, next(iter(families.values())).volume.placing)

    def _parts(self, name: str, family: Family, selected: tuple[str, str] | None) -> list[tuple[Any, ...]]:
        """(vertices in mm, faces, RGBA of each vertex) of every region of a family."""
        parts, affine = [], np.asarray(family.volume.placing["affine"])
        for label, colour in region_colours(family.names).items():
            key = (id(family), label)
            if key not in self._known:
                mask = family.volume.shown == label
                self._known[key] = surface_of(mask) if mask.any() else NOTHING
            vertices, faces, light = self._known[key]
            shade = rgba((colour,))[0].copy()
            shade[3] = FULL if selected in (None, (name, family.names[label])) else FAINT
            if len(vertices):
                shades = np.tile(shade, (len(vertices), 1))
                shades[:, :3] *= light[:, None]
                parts.append((apply_affine(affine, vertices), faces, shades))
        return parts

    def _draw(self, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, placing: dict[str, Any]) -> None:
        if self.layer is not None:
            self.viewer.layers.remove(self.layer)
        same = {name: placing[name] for name in ("units", "axis_labels")}
        look = {"vertex_colors": colours, "shading": "none", "blending": "translucent"}
        # the vertices are mm, but steps of the sliders are those of the voxels
        affine = np.asarray(placing["affine"])
        vertices = apply_affine(np.linalg.inv(affine), vertices)
        with keeping_active(self.viewer):
            metadata = {OWN: LAYER_NAME}
            self.viewer.add_surface(
                (vertices, faces), name=LAYER_NAME, affine=affine, metadata=metadata, **look, **same
            )

    def remove(self) -> None:
        """Take the surfaces away."""
        if self.layer is not None:
            self.viewer.layers.remove(self.layer)

    def forget(self) -> None:
        """Take the surfaces away, and forget those of former families."""
        self._known.clear()
        self.remove()
