"""A click on the brain: which voxel it is, in which regions, and what it adds to every target."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_neuraldiffuser.widgets.files.layer_info import OWN, keeping_active, own_layer
from napari_neuraldiffuser.widgets.maps.subject_maps import Family, SubjectMaps, Volume
from napari_neuraldiffuser.widgets.views.clicks import Clicks

if TYPE_CHECKING:
    import napari

LAYER_NAME = "probe"
UNUSED = "The decoder does not use this voxel: it has no share, which is not a share of 0."
PER_LINE = 4
CROSS = 3.0
"""Voxels across."""


@dataclass(frozen=True)
class VoxelFacts:
    """What is at a place."""

    index: tuple[int, int, int]
    """(i, j, k) in the map's file."""
    place: np.ndarray
    """(3,) (R, A, S) in mm of that voxel's centre."""
    regions: dict[str, str]
    """Family to region; only where the voxel is in one."""
    shares: dict[str, float]
    """Target to the voxel's share."""

    @property
    def used(self) -> bool:
        """Whether the decoder uses the voxel: of one that it does not, no target has a share."""
        return any(np.isfinite(share) and share != 0 for share in self.shares.values())


def look_up(maps: SubjectMaps, target: str, families: dict[str, Family], place: npt.ArrayLike) -> VoxelFacts | None:
    """What the maps and regions have at a place (R, A, S) in mm; None outside the target's map."""
    volume = maps.maps[target]
    index = volume.index(place)
    if index is None:
        return None
    centre = volume.centre(index)
    regions = {name: roi for name, family in families.items() if (roi := family.at(centre))}
    shares = {}
    for name, other in maps.maps.items():
        own = other.index(centre)
        shares[name] = float(other.values[own]) if own is not None else float("nan")
    return VoxelFacts(index, centre, regions, shares)


def describe(voxel: VoxelFacts | None, target: str, name: str, unit: str) -> str:
    """Rich text of what is at a place; `name` is the full name of the target, `unit` that of shares."""
    if voxel is None:
        return "Outside the contribution map: nothing is known of this place."
    r, a, s = voxel.place
    regions = ", ".join(f"{roi} ({family})" for family, roi in voxel.regions.items()) or "no region"
    where = f"R {r:.1f}, A {a:.1f}, S {s:.1f} mm; voxel ({', '.join(map(str, voxel.index))}) of the file"
    if not voxel.used:
        return "<br>".join([f"<b>{escape(regions)}</b>", where, UNUSED])
    own = voxel.shares[target]
    lines = [f"<b>{escape(regions)}</b>", where, f"{unit} in {escape(name)}: <b>{own:.3g}</b>"]
    return "<br>".join(lines) + _table(voxel.shares, target)


def _table(shares: dict[str, float], target: str) -> str:
    """Shares of all targets, four to a line."""
    texts = {name: f"{escape(name)} {value:.3g}" for name, value in shares.items()}
    cells = [f"<td>{f'<b>{t}</b>' if name == target else t}&nbsp;&nbsp;</td>" for name, t in texts.items()]
    lines = [cells[i : i + PER_LINE] for i in range(0, len(cells), PER_LINE)]
    return "<table>" + "".join(f"<tr>{''.join(line)}</tr>" for line in lines) + "</table>"


class Probe(Clicks):
    """Listens to clicks on the canvas and marks the voxel with a cross."""

    @property
    def layer(self) -> "napari.layers.Layer | None":
        """The cross, whoever made it; None where there is none."""
        return own_layer(self.viewer, LAYER_NAME)

    def mark(self, volume: Volume, place: npt.ArrayLike) -> None:
        """Put the cross on the voxel of a place, on the volume's grid: else napari would step through finer slices."""
        point = volume.shown_index(place)[None].astype(float)
        if self.layer is not None:
            if not np.array_equal(self.layer.affine.affine_matrix, volume.placing["affine"]):
                self.layer.affine = volume.placing["affine"]
            self.layer.data = point
            return
        placing = {key: volume.placing[key] for key in ("affine", "units", "axis_labels")}
        look = {"symbol": "cross", "size": CROSS, "face_color": "cyan", "border_width": 0}
        with keeping_active(self.viewer):
            self.viewer.add_points(point, name=LAYER_NAME, metadata={OWN: LAYER_NAME}, **placing, **look)

    def remove(self) -> None:
        """Take the cross away."""
        if self.layer is not None:
            self.viewer.layers.remove(self.layer)
