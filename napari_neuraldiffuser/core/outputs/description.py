"""`dataset_description.json` of an output folder: what made it, with which versions, and what its sources link to."""

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.files import json_object, make_folder, write_json
from napari_neuraldiffuser.core.base.names import KINDS

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "scipy", "nibabel", "nilearn", "h5py", "scikit-image")


def model_name(name: str) -> str:
    """A model as files name it: "demo", a hub id, or the name of a folder without its place on this machine."""
    path = Path(name)
    return path.name if path.is_absolute() or name.startswith((".", "~")) or path.is_dir() else name


def versions() -> dict[str, str]:
    """Versions of what computed, for the page and the sidecars; no environment variables, no paths."""
    found = {"napari-neuraldiffuser": napari_neuraldiffuser.__version__, "python": platform.python_version()}
    return found | {name: installed(name) or "not installed" for name in PACKAGES}


def installed(name: str) -> str | None:
    """Version of a package, or None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def generated_by(kernels: bool = True) -> list[dict[str, Any]]:
    """BIDS `GeneratedBy`; without `kernels` of what no kernel computed, and then without importing torch."""
    entry = {"Name": "napari-neuraldiffuser", "Version": napari_neuraldiffuser.__version__, "Versions": versions()}
    if kernels:
        # imports torch, which whoever asks for names of files does without
        from napari_neuraldiffuser.core.networks.kernels.ops import backend_info

        entry["KernelBackend"] = backend_info()["backend"]
    return [entry]


def write_description(out_dir: Path, links: Mapping[str, str] | None = None) -> Path:
    """`dataset_description.json` of the output folder; not touched where it has that content.

    Parameters
    ----------
    out_dir : Path
    links : mapping of str to str, optional
        BIDS `DatasetLinks`, added to those there are: what `bids:<name>:` in Sources stands for.
    """
    path = make_folder(out_dir) / KINDS["description"].path
    known = json_object(path) or {}
    if not isinstance(known.get("DatasetLinks", {}), dict):
        known = {}
    content: dict[str, Any] = {
        "Name": "Reconstructions of seen images from fMRI",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
    }
    if all_links := {**known.get("DatasetLinks", {}), **(links or {})}:
        content["DatasetLinks"] = all_links
    if content != known:
        write_json(path, content)
    return path
