"""Nipype's engines where they must be mended, and what nodes ask them for."""
