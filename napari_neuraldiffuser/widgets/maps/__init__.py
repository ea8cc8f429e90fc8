"""Contribution maps on the brain: overlay, outlines, probe, table of regions."""
