"""Regions by hemisphere: a family of left and right parts beside, or instead of, the family of whole regions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_neuraldiffuser.core.attribution.maps import ContributionError
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.registry import HEMISPHERES

TOGETHER, APART = "together", "apart"
BY_HEMISPHERE = " by hemisphere"


@dataclass
class Sides:
    """The regions of a family as `lh.V1` and `rh.V1`; voxels of no known hemisphere are in neither.

    Attributes
    ----------
    family : RegionFamily
    sides : ndarray of int
        Place in `HEMISPHERES` of every position of the betas' grid, -1 where it is not known.
    name : str
        The family's, and `BY_HEMISPHERE`.
    """

    family: RegionFamily
    sides: np.ndarray
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.family.name + BY_HEMISPHERE

    def of(self, betas: Responses) -> dict[str, np.ndarray]:
        """Region name to (n_voxels,) bool over the voxels of `betas`."""
        if betas.voxels is None or betas.shape != self.sides.shape:
            raise ContributionError(
                f"betas must be on the grid of the hemispheres, {self.sides.shape}, got {betas.shape}. Read both from "
                "one folder."
            )
        here = self.sides[tuple(betas.voxels.T)]
        masks = self.family.of(betas)
        return {f"{side}.{roi}": masks[roi] & (here == k) for roi in masks for k, side in enumerate(HEMISPHERES)}


def by_hemisphere(families: Sequence[RegionFamily], sides: np.ndarray | None, how: str) -> list[RegionFamily]:
    """Families of whole regions ("together"), of their halves ("apart"), or both.

    Raises
    ------
    ContributionError
        If halves are asked for and `sides` are not known.
    """
    if how == TOGETHER:
        return list(families)
    if sides is None:
        raise ContributionError(
            f"hemispheres of the voxels must be known for hemispheres={how}, got no volumes of regions that begin with "
            f"lh. and rh. Put them beside the others, or choose {TOGETHER}."
        )
    halves: list[RegionFamily] = [Sides(family, sides) for family in families]
    return halves if how == APART else [*families, *halves]
