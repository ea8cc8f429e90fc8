"""Copies the root napari.yaml into the package, where napari looks for it; the rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent

# An entry point cannot point outside its package, so the one manifest at the root is copied at every build
# (editable, wheel and sdist alike); tests/test_package.py holds the two equal.
shutil.copyfile(ROOT / "napari.yaml", ROOT / "napari_neuraldiffuser" / "napari.yaml")

setup()
