"""Copies napari.yaml into the package and compiles the kernels of csrc/; the rest is in pyproject.toml."""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))

from build_kernels import Build, BuildKernels, extensions  # noqa: E402
from build_tools import SettingError, read_settings  # noqa: E402

# An entry point cannot point outside its package, so the one manifest at the root is copied at every build
# (editable, wheel and sdist alike); tests/package/test_package.py holds the two equal.
shutil.copyfile(ROOT / "napari.yaml", ROOT / "napari_neuraldiffuser" / "napari.yaml")

try:
    settings = read_settings(os.environ)
except SettingError as error:
    sys.exit(f"error: {error}")
setup(ext_modules=extensions(settings), cmdclass={"build": Build, "build_ext": BuildKernels})
