"""What a Study's calls start from, kept warm: betas and models, and digests that tell when they changed."""

import gc
import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import fingerprint
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe, Source
from napari_neuraldiffuser.core.engine.cache import array_digest, keep_newest, kept_betas, stamp
from napari_neuraldiffuser.core.networks.digest import model_source
from napari_neuraldiffuser.core.nsd import open_source, save_betas
from napari_neuraldiffuser.core.nsd.selection import parse

OWN_IMAGES = ("images", "captions", "trials")
"""Fields of a Source of own scans that decide its stimuli."""
KEPT_BETAS, KEPT_BETA_FILES = 2, 6
"""Betas of so many regions stay in memory, and on disk; at full size each is some hundred megabytes."""


def beta_files(subject: Any, source: Source, roi: str) -> list[str | Path]:
    """The files that decide the betas of an ROI expression, label tables included."""
    masks = [Path(term.name).expanduser() for term in parse(roi) if term.is_mask]
    if source.own:
        return [source.betas, source.mask, source.trials, *masks, *region_files(subject, source)]
    layout = subject.layout
    sessions = layout.sessions()
    valid = [layout.valid_session(k) for k in sessions]
    return [layout.design, *sessions.values(), *valid, *masks, *region_files(subject, source)]


def region_files(subject: Any, source: Source) -> list[Path]:
    """The files that say where regions are and what they are called."""
    if source.own:
        found = [p.parent.glob(glob.escape(p.name.split(".nii")[0]) + "*") for p in map(Path, source.rois)]
        return sorted(path for files in found for path in files)
    layout = subject.layout
    tables = [path for name in subject.roi_names() for path in layout.label_tables(name)]
    return [*sorted(layout.roi_folder.glob("*.nii.gz")), *tables]


def stimulus_source(source: Source) -> list[str]:
    """The part of a source that decides images and captions: another region or anatomy has the same stimuli."""
    return [getattr(source, name) for name in OWN_IMAGES] if source.own else [source.nsd_dir, source.subject]


def stimulus_files(subject: Any, source: Source) -> list[str | Path]:
    """The files that decide images and captions."""
    if source.own:
        # labels may lie in folders of their own
        pictures = sorted(p for p in Path(source.images).rglob("*") if p.is_file()) if source.images else []
        return [source.captions, source.trials, *pictures]
    return [subject.layout.stimuli, subject.layout.captions, subject.layout.stim_info]


@dataclass(frozen=True)
class Inputs:
    """One subject's betas as a recipe asks for them, split, and where its images come from.

    Attributes
    ----------
    subject : Subject or OwnScans
    train, test : Betas
    digest : str
        Over values, stimuli and voxels of the betas as they were read.
    stimuli_stamp : str
        Differs when the files of images or captions do.
    """

    subject: Any
    train: Any
    test: Any
    digest: str
    stimuli_stamp: str

    @property
    def train_ids(self) -> np.ndarray:
        """Training stimuli, each once."""
        return np.unique(self.train.stimulus_ids)

    @property
    def notes(self) -> list[str]:
        """What the reader skipped or found odd."""
        return [*self.train.notes, *getattr(self.subject.stimuli, "notes", [])]


class Warm:
    """Betas and models of the last calls.

    Parameters
    ----------
    cache : Path
        Where betas are kept as they were read: a session file is large, and an engine may be started again.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._inputs: dict[str, Inputs] = {}
        self._models: tuple[str, Any] = ("", None)

    def inputs(self, recipe: Recipe, events: Events) -> Inputs:
        """The betas of a recipe; read again only where a parameter or a file changed."""
        params = recipe.settings.betas
        subject = open_source(recipe.source, params)
        stimuli = fingerprint([stimulus_source(recipe.source), stamp(stimulus_files(subject, recipe.source))])
        files = stamp(beta_files(subject, recipe.source, params.roi))
        key = fingerprint([napari_neuraldiffuser.__version__, recipe.source, params, stimuli, files])
        if key not in self._inputs:
            events.told(0, 0, "reading betas")
            while len(self._inputs) >= KEPT_BETAS:
                del self._inputs[next(iter(self._inputs))]
            betas = self._betas(subject, self.cache / "betas" / f"{key}.h5", events)
            self._inputs[key] = _split(subject, betas, stimuli)
        # the last used stays longest
        self._inputs[key] = self._inputs.pop(key)
        return self._inputs[key]

    def _betas(self, subject: Any, path: Path, events: Events) -> Any:
        found = kept_betas(path)
        if found is None:
            found = subject.betas(progress=lambda done, total, what: events.told(done, total, "reading betas"))
            save_betas(found, path)
            keep_newest(path.parent, KEPT_BETA_FILES)
        return found

    def models(self, recipe: Recipe, events: Events) -> Any:
        """The networks of a recipe; the former ones are freed first, for a device rarely holds two."""
        from napari_neuraldiffuser.core.networks import models

        guide = recipe.guide or None
        folder = Path(model_source(recipe.models))
        folders = [folder, Path(guide)] if guide else [folder]
        files = [path for place in folders if place.is_dir() for path in sorted(place.rglob("*"))]
        key = fingerprint([recipe.models, guide, recipe.device, stamp(files)])
        if self._models[0] != key:
            events.told(0, 0, "opening the models")
            check_device(recipe.device)
            self.free_models()
            self._models = key, models.load(recipe.models, guide, recipe.device)
        return self._models[1]

    def free_models(self) -> None:
        """Give the memory of the networks back."""
        self._models = "", None
        free_memory()

    def clear(self) -> None:
        """Forget everything."""
        self._inputs.clear()
        self.free_models()


def _split(subject: Any, betas: Any, stimuli: str) -> Inputs:
    train, test = betas.split()
    where = [] if betas.voxels is None else [betas.voxels, betas.affine]
    digest = array_digest(betas.data, betas.stimulus_ids, betas.shared, *where)
    return Inputs(subject, train, test, digest, stimuli)


def check_device(name: str) -> None:
    """Raise UserError for a name that torch does not know, or a GPU that is not there beside others."""
    import torch

    n = torch.cuda.device_count()
    known = ", ".join(["cpu", *(f"cuda:{k}" for k in range(n))])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device must be one of {known}, got {name!r}. Choose another.") from error
    if device.type == "cuda" and n and (device.index or 0) >= n:
        raise UserError(f"device must be one of {known}, got {name!r}. Choose another.")


def free_memory() -> None:
    """Collect what nothing refers to, and return a GPU's cached blocks."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
