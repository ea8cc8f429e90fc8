"""The raw files that a run reads, as BIDS URIs, and what stands for their dataset: no path of this machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.recipe import Source, design_beside
from napari_neuraldiffuser.core.base.registry import SURFACES
from napari_neuraldiffuser.core.params import BetasParams, Settings

if TYPE_CHECKING:
    from napari_neuraldiffuser.core.nsd.layout import Layout

NSD_HOME = "https://naturalscenesdataset.org"
ALGONAUTS_HOME = "https://algonautsproject.com/2023/challenge.html"
NSD, SCANS, ALGONAUTS = "nsd", "scans", "algonauts"
"""Names of the kinds of raw datasets: `bids:nsd:nsddata/...`, `bids:scans:betas.nii.gz`."""

Raw = dict[str, tuple[str, ...]]


class RunOf(Protocol):
    """What is asked of a `Job`."""

    @property
    def scans(self) -> Source: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def models(self) -> str: ...
    @property
    def out_dir(self) -> Path: ...


def raw_sources(job: RunOf) -> tuple[Raw, dict[str, str]]:
    """What a job reads and where that belongs.

    Parameters
    ----------
    job : Job

    Returns
    -------
    raw : dict of str to tuple of str
        BIDS URIs of "betas", "stimuli", "anatomy", and of the files of every family of regions, "rois/<family>".
    links : dict of str to str
        BIDS `DatasetLinks` that resolve them.
    """
    scans = job.scans
    if scans.own:
        folder = Path(scans.betas).parent
        return _own(scans, folder), {SCANS: dataset_link(folder, job.out_dir)}
    root = Path(scans.nsd_dir)
    if scans.challenge:
        return _challenge(scans, job.settings.betas), {ALGONAUTS: dataset_link(root, job.out_dir, ALGONAUTS_HOME)}
    simulated = (root / "nsddata_stimuli/simulation.json").is_file()
    link = dataset_link(root, job.out_dir, None if simulated else NSD_HOME)
    raw = _nsd(root, scans.subject, job.settings.betas)
    return _with_further(raw, scans, job.settings.betas) if scans.further else raw, {NSD: link}


def dataset_link(folder: Path, out_dir: Path, home: str | None = None) -> str:
    """Where a raw dataset is: relative to the output where it lies in it or beside it.

    Anywhere else it is `home`, or a URI of its name alone: where it lies on this machine is private, and wrong on the
    next.
    """
    relative = Path(os.path.relpath(Path(folder).resolve(), Path(out_dir).resolve()))
    beside = relative.parts[:1] == ("..",) and len(relative.parts) == 2 and relative.name != ".."
    if beside or ".." not in relative.parts:
        return relative.as_posix()
    return home or f"file:{Path(folder).resolve().name}"


def _nsd(root: Path, subject: str, betas: BetasParams) -> Raw:
    from napari_neuraldiffuser.core.nsd.layout import Layout

    layout = Layout(root, subject, betas.space, betas.version)
    rois: dict[str, tuple[str, ...]] = {}
    for path in _region_files(layout):
        part = f"rois/{_family(path)}"
        rois[part] = (*rois.get(part, ()), _uri(NSD, path, root))
    parts = {
        "betas": [*_sessions(layout, betas.sessions), layout.design, layout.stim_info],
        "stimuli": [layout.stimuli, layout.captions],
        "anatomy": [layout.anatomy],
    }
    return {what: tuple(_uri(NSD, p, root) for p in paths if p.exists()) for what, paths in parts.items()} | rois


def _with_further(raw: Raw, scans: Source, betas: BetasParams) -> Raw:
    """With the files of the further session that is the test set."""
    from napari_neuraldiffuser.core.nsd.further.subject import open_further

    subject, root = open_further(scans, betas), Path(scans.nsd_dir)
    own = [*subject.further.betas(), subject.order_file]
    more = {"betas": own, "stimuli": subject.stimuli.files}
    return raw | {what: (*raw[what], *(_uri(NSD, path, root) for path in paths)) for what, paths in more.items()}


def _region_files(layout: "Layout") -> list[Path]:
    """Volumes of the ROI folder, or both hemispheres' files; fsaverage's count where the subject has the family too."""
    if layout.space not in SURFACES:
        return sorted(layout.roi_folder.glob("*.nii.gz"))
    found = {path.name: path for folder in (layout.native_folder, layout.atlas_folder) for path in folder.glob("*.mgz")}
    return [found[name] for name in sorted(found)]


def _challenge(scans: Source, betas: BetasParams) -> Raw:
    from napari_neuraldiffuser.core.nsd import Challenge

    subject, root = Challenge(scans, betas), Path(scans.nsd_dir)
    files = subject.region_files()
    parts = {f"rois/{name}": [path for path in files if f".{name}_" in path.name] for name in subject.roi_names()}
    pictures = [subject.files.pictures(test) for test in (False, True)[: 1 + subject.files.has_test]]
    parts |= {"betas": subject.response_files(), "stimuli": [*pictures, *subject.stimuli.caption_files()]}
    return {what: tuple(_uri(ALGONAUTS, path, root) for path in paths) for what, paths in parts.items()}


def _sessions(layout: "Layout", chosen: str) -> list[Path]:
    """Files of the sessions that were read; their folder where they are no longer there."""
    from napari_neuraldiffuser.core.nsd.selection import chosen_sessions

    try:
        if layout.space in SURFACES:
            files = {str(number): paths for number, paths in layout.surface_sessions()[0].items()}
        else:
            files = {str(number): [path] for number, path in layout.sessions().items()}
        return [path for label in chosen_sessions(chosen, list(files)) for path in files[label]]
    except UserError:
        return [layout.beta_folder]


def _family(path: Path) -> str:
    """`floc-faces` of `lh.floc-faces.nii.gz`."""
    return path.name.removesuffix(".nii.gz").removesuffix(".mgz").removeprefix("lh.").removeprefix("rh.")


def _own(scans: Source, folder: Path) -> Raw:
    from napari_neuraldiffuser.core.nsd.own import MASK, family_name

    parts = {
        "betas": [scans.betas, scans.mask, scans.trials, str(design_beside(scans.betas) or "")],
        "stimuli": [scans.images, scans.captions],
        "anatomy": [scans.anatomy],
        f"rois/{MASK}": [scans.mask],
    }
    parts |= {f"rois/{family_name(path)}": [path] for path in scans.rois}
    return {what: tuple(_uri(SCANS, Path(p), folder) for p in paths if p) for what, paths in parts.items()}


def _uri(dataset: str, path: Path, root: Path) -> str:
    """Path within the dataset; of a file elsewhere its name."""
    path = Path(path)
    inside = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return f"bids:{dataset}:{inside}"
