"""Attribution: which voxels and ROIs carried each decoded target."""

from napari_neuraldiffuser.core.attribution.additive import ContributionMaps, map
from napari_neuraldiffuser.core.attribution.tables import ContributionError

__all__ = ["ContributionError", "ContributionMaps", "map"]
