"""Reconstruct what a person saw from fMRI, and map which brain regions said so."""

__version__ = "0.1.0"
