"""The shared library of the compiled kernels: where it is, how it is loaded, which GPUs it was built for."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[3]
MODULE = "napari_neuraldiffuser._kernels"
OLDEST_TORCH = (2, 11)
INSTALL_AGAIN = "pip install --no-build-isolation --no-deps --force-reinstall ."


class NotLoadable(Exception):
    """There are kernels, and they cannot be used in this process."""


def find(environ: Mapping[str, str]) -> Path | None:
    """The file to load: that of NEURALDIFFUSER_EXTENSION, else the one in the package; None if nothing was compiled.

    Raises
    ------
    NotLoadable
        If the named file does not exist, or the package holds a file for another Python only.
    """
    chosen = environ.get("NEURALDIFFUSER_EXTENSION", "").strip()
    if chosen:
        if not Path(chosen).is_file():
            raise NotLoadable(f"NEURALDIFFUSER_EXTENSION must be an existing file, got {chosen!r}")
        return Path(chosen).resolve()
    for suffix in EXTENSION_SUFFIXES:
        if (PACKAGE / f"_kernels{suffix}").is_file():
            return PACKAGE / f"_kernels{suffix}"
    other = next(iter(sorted(PACKAGE.glob("_kernels*.so"))), None)
    if other:
        raise NotLoadable(f"{other.name} is for another Python than {sys.version_info.major}.{sys.version_info.minor}")
    return None


def load(path: Path) -> ModuleType:
    """Load an extension file and register its operations with torch.

    Raises
    ------
    NotLoadable
        If torch is too old for it, the file is no extension module by its name, or it has other operations.
    Exception
        Whatever the dynamic linker or the registration finds wrong.
    """
    import torch

    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < OLDEST_TORCH:
        raise NotLoadable(f"torch must be 2.11 or newer for them, got {torch.__version__}")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise NotLoadable(f"{path} is not a Python extension module (the name must end in .so)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    registration = importlib.import_module("napari_neuraldiffuser.core.networks.kernels.registration")
    if strange := registration.strange():
        raise NotLoadable(
            f"{path.name} was compiled from other sources: {', '.join(strange)} must have other arguments"
        )
    sys.modules[MODULE] = module
    registration.register()
    return module


def not_built() -> str:
    """Why the package holds no kernels: what setup.py wrote down, and the remedy."""
    try:
        reason = json.loads((PACKAGE / "_build_report.json").read_text(encoding="utf-8"))["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        reason = "No kernels were compiled for this installation."
    return f"{reason} To compile them, in the source folder: {INSTALL_AGAIN}"


def covers(architectures: list[str], capability: tuple[int, int]) -> bool:
    """Whether a GPU of this compute capability runs code built for `architectures`.

    Machine code (sm_90) runs on its own and later minor versions of the same major version, PTX (compute_90) on
    every later GPU; the variants a and f only on their own GPU (f: also on later minor versions).
    """
    for kind, major, minor, variant in re.findall(r"\b(sm|compute)_(\d+)(\d)([af]?)\b", " ".join(architectures)):
        built = (int(major), int(minor))
        if variant == "a":
            fits = built == capability
        elif kind == "compute" and not variant:
            fits = built <= capability
        else:
            fits = built[0] == capability[0] and built <= capability
        if fits:
            return True
    return False
