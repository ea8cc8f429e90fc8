"""What a Study's calls start from, kept warm: betas and models, and digests that tell when they changed."""

from pathlib import Path
from typing import TYPE_CHECKING

import napari_neuraldiffuser
from napari_neuraldiffuser.core.base.files import file_versions, fingerprint
from napari_neuraldiffuser.core.base.progress import Events
from napari_neuraldiffuser.core.base.recipe import Recipe
from napari_neuraldiffuser.core.engine.cache import keep_newest, kept_betas
from napari_neuraldiffuser.core.job.inputs import Inputs
from napari_neuraldiffuser.core.networks.digest import CHOSEN, model_source
from napari_neuraldiffuser.core.networks.machine import check_device, free_memory
from napari_neuraldiffuser.core.nsd import Betas, BrainSource, open_source, save_betas

if TYPE_CHECKING:
    from napari_neuraldiffuser.core.networks.models import Models

KEPT_BETAS, KEPT_BETA_FILES = 2, 6
"""Betas of so many regions stay in memory, and on disk; at full size each is some hundred megabytes."""


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
        self._models: tuple[str, Models | None] = ("", None)

    def inputs(self, recipe: Recipe, events: Events) -> Inputs:
        """The betas of a recipe; read again only where a parameter or a file changed."""
        params = recipe.settings.betas
        subject = open_source(recipe.source, params)
        stimuli = fingerprint([recipe.source.stimuli, file_versions(subject.stimulus_files())])
        files = file_versions(subject.beta_files(params.roi))
        key = fingerprint([napari_neuraldiffuser.__version__, recipe.source, params, stimuli, files])
        if key not in self._inputs:
            events.told(0, 0, "reading betas")
            while len(self._inputs) >= KEPT_BETAS:
                del self._inputs[next(iter(self._inputs))]
            betas = self._betas(subject, self.cache / "betas" / f"{key}.h5", events)
            self._inputs[key] = Inputs.of(subject, betas, stimuli)
        # the last used stays longest
        self._inputs[key] = self._inputs.pop(key)
        return self._inputs[key]

    def _betas(self, subject: BrainSource, path: Path, events: Events) -> Betas:
        found = kept_betas(path)
        if found is None:
            found = subject.betas(progress=lambda done, total, what: events.told(done, total, "reading betas"))
            save_betas(found, path)
            keep_newest(path.parent, KEPT_BETA_FILES)
        return found

    def models(self, recipe: Recipe, events: Events) -> "Models":
        """The networks of a recipe; the former ones are freed first, for a device rarely holds two."""
        from napari_neuraldiffuser.core.networks import models

        guide = recipe.guide or None
        folder = Path(model_source(recipe.models))
        folders = [folder, Path(guide)] if guide else [folder]
        files = [path for place in folders if place.is_dir() for path in sorted(place.rglob("*"))]
        files = [path for path in files if path.name != CHOSEN]  # which no network reads
        key = fingerprint([recipe.models, guide, recipe.device, file_versions(files)])
        known, networks = self._models
        if networks is None or known != key:
            events.told(0, 0, "opening the models")
            check_device(recipe.device)
            del networks
            self.free_models()
            networks = models.load(recipe.models, guide, recipe.device)
            self._models = key, networks
        return networks

    def free_models(self) -> None:
        """Give the memory of the networks back."""
        self._models = "", None
        free_memory()

    def clear(self) -> None:
        """Forget everything."""
        self._inputs.clear()
        self.free_models()
