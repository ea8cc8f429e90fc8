"""Volumes of an NSD subject on fsaverage, by NSD's own transforms: depths of the grey matter, then the nearest vertex.

NSD says of every vertex of a subject's own surface where it lies in the functional volume, at 25, 50 and 75 % of the
depth of the grey matter (`lh.func1pt8-to-layerB1.mgz` ...: matrix coordinates, (1, 1, 1) the centre of the first voxel,
9999 where there are no data), and of every vertex of fsaverage which vertex of the own surface is nearest
(`lh.white-to-fsaverage.mgz`).  Source: NSD's data manual, and `nsd_mapdata` of cvnlab/nsdcode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.nsd.reading.surfaces import open_vertices, read_vertices
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError, values_of

NOWHERE = 9999.0


@dataclass(frozen=True)
class Lift:
    """Where the vertices of fsaverage lie in a volume.

    Attributes
    ----------
    places : sequence of ndarray (depths, vertices, 3)
        Voxel coordinates counted from 0 of each hemisphere; NaN where the volume has no data.
    """

    places: Sequence[np.ndarray]

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """Values (2, vertices) of a volume (X, Y, Z) whose 0 is "not in the mask".

        A vertex has the mean over those depths whose voxel is in the mask, and 0 where none is: the nearest voxel's
        value, not interpolated.
        """
        return np.stack([_mean_in_mask(_voxels(np.asarray(volume), places)) for places in self.places])

    def labels(self, volume: np.ndarray) -> np.ndarray:
        """Labels (2, vertices) of a label volume (X, Y, Z): that of the voxel in the middle of the grey matter."""
        middle = (places[len(places) // 2] for places in self.places)
        return np.stack([_voxels(np.asarray(volume), places) for places in middle])


def _voxels(volume: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values (...) of the voxels at places (..., 3); 0 where there is none."""
    index = np.where(np.isfinite(places), np.rint(places), -1).astype(np.int64)
    inside = np.all((index >= 0) & (index < np.array(volume.shape)), axis=-1)
    i, j, k = np.moveaxis(np.where(np.expand_dims(inside, -1), index, 0), -1, 0)
    return np.where(inside, np.nan_to_num(volume[i, j, k]), 0).astype(volume.dtype)


def _mean_in_mask(values: np.ndarray) -> np.ndarray:
    """Mean (n,) of values (depths, n) other than 0."""
    there = (values != 0).sum(axis=0)
    return np.divide(values.sum(axis=0, dtype=np.float64), there, out=np.zeros(values.shape[1]), where=there > 0)


def read_lift(depths: Sequence[Sequence[Path]], to_fsaverage: Sequence[Path]) -> Lift:
    """Read NSD's transforms of both hemispheres.

    Parameters
    ----------
    depths : of each hemisphere, a file of coordinates for each depth
    to_fsaverage : of each hemisphere, the file of nearest vertices

    Raises
    ------
    NSDError
        If a file is missing, damaged, or not of the same surface as the others.
    """
    hemispheres = zip(depths, to_fsaverage, strict=True)
    return Lift([_of_hemisphere([*files], nearest) for files, nearest in hemispheres])


def _of_hemisphere(files: list[Path], transform: Path) -> np.ndarray:
    own = [_coordinates(path) for path in files]
    if len({len(places) for places in own}) > 1:
        raise NSDError(
            f"{files[0].parent} must have depths of one surface, got {[len(places) for places in own]} vertices."
        )
    nearest = vertex_numbers(transform, len(own[0]), files[0].name)
    return np.stack([places[nearest] for places in own])


def _coordinates(path: Path) -> np.ndarray:
    """(vertices, 3) counted from 0."""
    image = open_vertices(path, "coordinates of a depth", series=True)
    values = np.asarray(values_of(image, path, "coordinates of a depth"), dtype=np.float64)
    if values.shape[3] != 3:
        raise NSDError(
            f"{path} must have 3 coordinates for each vertex, got {values.shape[3]}. Copy NSD's transforms again."
        )
    places = values[:, 0, 0, :]
    return np.where(places == NOWHERE, np.nan, places) - 1


def vertex_numbers(transform: Path, n: int, of: str) -> np.ndarray:
    """Which vertex, counted from 0, of `n` of the own surface is nearest to each vertex of fsaverage.

    Raises
    ------
    NSDError
        If the file is missing, damaged, or has a number that none of the `n` vertices of the file `of` has.
    """
    nearest = read_vertices(transform, "transform to fsaverage")
    if not ((nearest >= 1) & (nearest <= n) & (nearest == np.rint(nearest))).all():
        raise NSDError(
            f"{transform} must have numbers of the vertices 1 ... {n:,} of {of}, got "
            f"{np.nanmin(nearest):g} ... {np.nanmax(nearest):g}. Take both from the same subject."
        )
    return nearest.astype(np.int64) - 1
