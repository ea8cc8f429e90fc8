"""Names of the files a run writes (BIDS-Derivatives), and the dataset description beside them."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import make_folder, read_json, write_json

ARMS = ("unguided", "guided")
SHOWN = ("seen", "start")
"""Images beside the reconstructions that are none themselves."""
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "scipy", "nibabel", "nilearn", "h5py", "scikit-image")


@dataclass(frozen=True)
class Derivatives:
    """Places of one subject's output.

    Attributes
    ----------
    out_dir : Path
        Folder of all subjects.
    subject : str
        NSD's name, `subj01`; files say `sub-01`.
    space : str
        Volume space of the betas.
    """

    out_dir: Path
    subject: str
    space: str = "func1pt8mm"

    @property
    def label(self) -> str:
        """`sub-01` for `subj01`."""
        digits = self.subject.removeprefix("subj").removeprefix("sub-")
        if not digits.isalnum():
            raise UserError(f"participant label must look like subj01, got {self.subject!r}.")
        return f"sub-{digits}"

    @property
    def folder(self) -> Path:
        return Path(self.out_dir) / self.label

    @property
    def page(self) -> Path:
        return Path(self.out_dir) / f"{self.label}.html"

    @property
    def embeddings(self) -> Path:
        return self.folder / f"{self.label}_desc-ridge_embeddings.h5"

    @property
    def recon(self) -> Path:
        return self.folder / "recon"

    @property
    def recon_sidecar(self) -> Path:
        return self.recon / f"{self.label}_recon.json"

    @property
    def scores(self) -> Path:
        return self.folder / f"{self.label}_desc-recon_scores.tsv"

    @property
    def summary(self) -> Path:
        return self.folder / f"{self.label}_desc-summary_scores.json"

    @property
    def contribution_table(self) -> Path:
        return self.folder / f"{self.label}_contribution.tsv"

    @property
    def failed(self) -> Path:
        return self.folder / f"{self.label}_desc-failed_stimuli.tsv"

    def image(self, stimulus_id: int, repeat: int, arm: str) -> Path:
        """One reconstruction; repeats count from 1."""
        name = f"{self.label}_stim-{stimulus_id:05d}_rep-{repeat}_desc-{arm}_recon.png"
        return self.recon / name

    @property
    def anatomy(self) -> Path:
        """T1 in the space of the betas."""
        return self.folder / "anat" / f"{self.label}_space-{self.space}_T1w.nii.gz"

    def regions(self, family: str) -> Path:
        """Label volume of one ROI family; its label table and sidecar differ in the suffix."""
        segmentation = re.sub(r"[^0-9A-Za-z]", "", family)
        return self.folder / "anat" / f"{self.label}_space-{self.space}_seg-{segmentation}_dseg.nii.gz"

    def shown(self, stimulus_id: int, what: str) -> Path:
        """The seen image (`seen`) or the decoded starting point (`start`) of one stimulus."""
        return self.recon / f"{self.label}_stim-{stimulus_id:05d}_desc-{what}_recon.png"

    def slices(self, target: str) -> Path:
        """Picture of brain slices with one target's contribution."""
        return self.folder / "figures" / f"{self.label}_target-{target}_contribution.png"

    def contribution(self, target: str) -> Path:
        return self.folder / f"{self.label}_space-{self.space}_target-{target}_contribution.nii.gz"

    def uri(self, path: Path) -> str:
        """BIDS URI of a file of this output, such as `bids::sub-01/sub-01_desc-ridge_embeddings.h5`."""
        return f"bids::{Path(path).relative_to(self.out_dir).as_posix()}"


def model_name(name: str) -> str:
    """A model as files name it: "demo", a hub id, or the name of a folder without its place on this machine."""
    path = Path(name)
    return path.name if path.is_absolute() or name.startswith((".", "~")) or path.is_dir() else name


def versions() -> dict[str, str]:
    """Versions of what computed, for the page and the sidecars; no environment variables, no paths."""
    found = {"napari-neuraldiffuser": napari_neuraldiffuser.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def generated_by(kernels: bool = True) -> list[dict[str, Any]]:
    """BIDS `GeneratedBy`; without `kernels` of what no kernel computed, and then without importing torch."""
    entry = {
        "Name": "napari-neuraldiffuser",
        "Version": napari_neuraldiffuser.__version__,
        "Versions": versions(),
    }
    if kernels:
        from napari_neuraldiffuser.core.networks.kernels.ops import (
            backend_info,  # imports torch, which whoever asks for names of files does without
        )

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
    path = make_folder(out_dir) / "dataset_description.json"
    known = _known(path)
    content = {
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


def _known(path: Path) -> dict[str, Any]:
    """What the description says already; nothing where it is not there or unreadable."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("DatasetLinks", {}), dict) else {}
