"""What a decoded value is worth: how much of held-out targets a decoder explains, beside what it could explain."""

from napari_neuraldiffuser.core.decoding.worth.assess import Worth, WorthParts, assess, read
from napari_neuraldiffuser.core.decoding.worth.columns import COLUMNS

__all__ = ["COLUMNS", "Worth", "WorthParts", "assess", "read"]
