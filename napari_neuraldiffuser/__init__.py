"""Reconstruct what a person saw from fMRI, and map which brain regions said so."""

from napari_neuraldiffuser.core.base.moved import keep_former_addresses

__version__ = "0.1.0"

keep_former_addresses()
