"""The simulated brain: a grid, its grey-matter voxels and the regions on them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from napari_neuraldiffuser.core.nsd.simulation.atlas import NSDGENERAL_MM3, POSTERIOR_Y, REGIONS, REST, Region

GRIDS = {"demo": (4.0, (37, 47, 38)), "full": (1.8, (81, 104, 83))}
"""Voxel size (mm) and matrix: the demo's covers the brain at 4 mm, the full one is that of NSD's subj01."""

CENTRE_MNI = np.array([0.0, -16.0, 7.0])
"""MNI position of the volume's centre. Kept inside: like NSD's, the files' origin is the centre, not MNI's."""

GREY_FRACTION = 0.5
JITTER_MM = 1.5


@dataclass
class Brain:
    """Grey-matter voxels of a simulated subject.

    Attributes
    ----------
    shape : tuple of 3 int
    affine : (4, 4) float
        Diagonal with a centred origin, as in NSD.
    voxels : (n, 3) int
        (x, y, z) of grey-matter voxels.
    mni : (n, 3) float
        Their MNI positions in mm.
    anatomy : (X, Y, Z) float32
        MNI template on the grid.
    members : dict of Region to (k,) int
        Rows of `voxels` in each region; regions of different families may overlap.
    general : (n,) bool
        nsdgeneral.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    voxels: np.ndarray
    mni: np.ndarray
    anatomy: np.ndarray
    members: dict[Region, np.ndarray]
    general: np.ndarray

    def volume(self, values: npt.ArrayLike, dtype: npt.DTypeLike, outside: int = 0) -> np.ndarray:
        """Values (n,), or one for all, as a volume (X, Y, Z)."""
        filled = np.full(self.shape, outside, dtype=dtype)
        filled[tuple(self.voxels.T)] = values
        return filled

    def labels(self, family: str, hemisphere: str = "") -> np.ndarray:
        """ROI volume of a family (X, Y, Z) int: -1 not cortex (of "lh" or "rh"), 0 unlabelled, 1..N."""
        if family == REST.family:
            values = self.general.astype(int)
        else:
            values = np.zeros(len(self.voxels), dtype=int)
            for region, rows in self.members.items():
                if region.family == family:
                    values[rows] = region.label
        if hemisphere:
            values[(self.mni[:, 0] < 0) != (hemisphere == "lh")] = -1
        return self.volume(values, np.int16, outside=-1)


def make_brain(grid: str, rng: np.random.Generator) -> Brain:
    """Grey matter and anatomy of the MNI template that nilearn ships, with the regions of the atlas.

    `rng` shifts every region by a few millimetres, so that subjects differ.
    """
    size, shape = GRIDS[grid]
    affine, to_mni = _affines(grid)
    grey, anatomy = _template(shape, to_mni, size)
    voxels = np.argwhere(grey > GREY_FRACTION)
    mni = apply_affine(to_mni, voxels)
    members = place_regions(mni, size**3, rng)
    return Brain(shape, affine, voxels, mni, anatomy, members, grow_general(mni, members, size**3))


def n_grey(grid: str) -> int:
    """How many grey voxels every subject has."""
    size, shape = GRIDS[grid]
    return int((_template(shape, _affines(grid)[1], size)[0] > GREY_FRACTION).sum())


def _affines(grid: str) -> tuple[np.ndarray, np.ndarray]:
    """Voxels to mm with a centred origin, and to MNI mm."""
    size, shape = GRIDS[grid]
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * size
    to_mni = affine.copy()
    to_mni[:3, 3] += CENTRE_MNI
    return affine, to_mni


def _template(shape: tuple[int, int, int], to_mni: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Grey fraction and T1 of the 2 mm MNI template on a grid, averaged over about a voxel."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template

    positions = apply_affine(to_mni, np.moveaxis(np.indices(shape), 0, -1))
    volumes = []
    for image in (load_mni152_gm_template(resolution=2), load_mni152_template(resolution=2)):
        smooth = gaussian_filter(np.asarray(image.dataobj, dtype=np.float32), 0.25 * size / 2)
        where = np.moveaxis(apply_affine(np.linalg.inv(image.affine), positions), -1, 0)
        volumes.append(map_coordinates(smooth, where, order=1))
    return volumes[0] / volumes[0].max(), volumes[1]


def place_regions(mni: np.ndarray, voxel_mm3: float, rng: np.random.Generator) -> dict[Region, np.ndarray]:
    """Rows of each region: the grey voxels nearest to its centre, shared out by distance within a family.

    Parameters
    ----------
    mni : (n, 3)
        Grey-matter positions, mm.
    voxel_mm3 : float
        Volume of one voxel.
    rng : numpy.random.Generator
        Draws each region's shift.
    """
    shifts = rng.normal(0.0, JITTER_MM, (2, len(REGIONS), 3))
    rows: dict[Region, list[int]] = {region: [] for region in REGIONS}
    early = np.zeros(len(mni), dtype=bool)
    for family in dict.fromkeys(region.family for region in REGIONS):
        for side, sign in enumerate((-1, 1)):
            free = np.flatnonzero((np.sign(mni[:, 0]) == sign) & ~early)
            which = [k for k, region in enumerate(REGIONS) if region.family == family]
            centres = np.array([REGIONS[k].centre for k in which]) * (sign, 1, 1) + shifts[side, which]
            counts = [max(1, round(REGIONS[k].volume / voxel_mm3)) for k in which]
            for k, taken in zip(which, _share_out(mni[free], centres, counts), strict=True):
                rows[REGIONS[k]] += free[taken].tolist()
        # category regions stay clear of the retinotopic areas, as one truth per voxel needs
        if family == "prf-visualrois":
            early[[row for taken in rows.values() for row in taken]] = True
    return {region: np.array(sorted(taken), dtype=int) for region, taken in rows.items()}


def _share_out(points: np.ndarray, centres: np.ndarray, counts: list[int]) -> list[list[int]]:
    """Points to centres, nearest pair first, until each centre has its count."""
    distance = np.linalg.norm(points[:, None] - centres[None], axis=2)
    taken: list[list[int]] = [[] for _ in centres]
    used = np.zeros(len(points), dtype=bool)
    for pair in np.argsort(distance, axis=None, kind="stable"):
        point, centre = divmod(int(pair), len(centres))
        if not used[point] and len(taken[centre]) < counts[centre]:
            taken[centre].append(point)
            used[point] = True
            if all(len(t) == c for t, c in zip(taken, counts, strict=True)):
                break
    return taken


def grow_general(mni: np.ndarray, members: dict[Region, np.ndarray], voxel_mm3: float) -> np.ndarray:
    """nsdgeneral, (n,) bool: all regions and the posterior grey matter nearest to them, up to NSDGENERAL_MM3."""
    union = np.unique(np.concatenate(list(members.values())))
    distance, _ = cKDTree(mni[union]).query(mni)
    distance[mni[:, 1] > POSTERIOR_Y] = np.inf
    distance[union] = 0.0
    wanted = min(max(len(union), round(NSDGENERAL_MM3 / voxel_mm3)), int(np.isfinite(distance).sum()))
    general = np.zeros(len(mni), dtype=bool)
    general[np.argsort(distance, kind="stable")[:wanted]] = True
    return general
