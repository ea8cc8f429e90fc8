"""What an output folder is, for people and for BIDS: its description, README and what a validator is to ignore."""

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.files import OutputError, atomic_path, json_object, make_folder, write_json
from napari_neuraldiffuser.core.base.names import KINDS, unknown_to_bids

README = """# Reconstructions of seen images from fMRI

A BIDS derivative that napari-neuraldiffuser wrote. What a subject saw was decoded from its voxel responses and made
visible by a diffusion model, without and with the pull toward decoded visual features; contribution maps say which
regions carried it.

- `sub-XX.html`: the page of a subject; it stands alone and is the place to begin.
- `sub-XX/recon`: reconstructions of both arms, seen images and starting points. `sub-XX/anat`: anatomy and regions.
- `sub-XX/sub-XX_*`: decoded embeddings, scores, their summary, shares of regions and contribution maps.
- `sub-XX/sub-XX_complete.json`: written last; a subject without it is not complete.
- `group.html`, `group_*`: the subjects together.
- `crossval/`: every stimulus of a small set decoded by a decoder that has not seen it, with scores.

A JSON file beside each table, volume and folder of images says what it was made from, by which models and with which
parameters.
`.bidsignore` names what BIDS has no name for yet.
"""
MAKER = "napari-neuraldiffuser"
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
    entry = {"Name": MAKER, "Version": napari_neuraldiffuser.__version__, "Versions": versions()}
    if kernels:
        # imports torch, which whoever asks for names of files does without
        from napari_neuraldiffuser.core.networks.kernels.ops import backend_info

        entry["KernelBackend"] = backend_info()["backend"]
    return [entry]


def check_place(out_dir: Path, scans: Path | None = None) -> None:
    """Raise OutputError for an output folder that is somebody else's data set, or among the scans.

    Parameters
    ----------
    out_dir : Path
    scans : Path, optional
        Folder that is read, such as an NSD tree or raw BIDS.
    """
    place, read = Path(out_dir).resolve(), scans.resolve() if scans else None
    if read and (place == read or any(part.resolve() in (place, *place.parents) for part in read.glob("nsddata*"))):
        raise OutputError(f"OUT_DIR must not be a folder of the scans, got {out_dir}. Give a folder of its own.")
    path = place / KINDS["description"].path
    if not path.is_file():
        return
    makers = (json_object(path) or {}).get("GeneratedBy")
    names = [maker.get("Name") for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []
    if MAKER not in names:
        raise OutputError(
            f"OUT_DIR must not be the data set of another program, got {out_dir}, whose {path.name} does not name "
            f"{MAKER} in GeneratedBy. Give a folder of its own."
        )


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


def write_about(out_dir: Path) -> None:
    """README and `.bidsignore` of an output folder; what somebody wrote there himself stays."""
    readme, ignored = (make_folder(out_dir) / KINDS[name].path for name in ("readme", "ignored"))
    if not any(readme.with_suffix(suffix).is_file() for suffix in ("", ".md", ".rst", ".txt")):
        _write(readme, README)
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    if missing := [pattern for pattern in unknown_to_bids() if pattern not in lines]:
        _write(ignored, "\n".join([*lines, *missing]) + "\n")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
