"""What a decoded value is worth: how much of held-out targets a decoder explains, beside what it could explain."""

from napari_neuraldiffuser.core.decoding.worth.assess import Worth, WorthParts, assess, read
from napari_neuraldiffuser.core.decoding.worth.by_region import RegionAccuracy, Voxels, by_region
from napari_neuraldiffuser.core.decoding.worth.columns import COLUMNS, REGION_COLUMNS

__all__ = [
    "COLUMNS",
    "REGION_COLUMNS",
    "RegionAccuracy",
    "Voxels",
    "Worth",
    "WorthParts",
    "assess",
    "by_region",
    "read",
]
