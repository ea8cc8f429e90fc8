"""Simulated subjects of the guidance study: decoded and true embeddings of the stimuli that are reconstructed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core import decoding, nsd
from napari_neuraldiffuser.core.base.files import fingerprint
from napari_neuraldiffuser.core.base.progress import silent
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.nsd.simulate import write_subjects
from napari_neuraldiffuser.core.params import DecodingParams, FeatureParams, SimulationParams

VALIDATION, TEST = "validation", "test"
N_TEST = {VALIDATION: 60, TEST: 100}
"""Test images of the simulated subjects."""
DECODERS = {
    "ridge": DecodingParams(),
    "ridge, spread as decoded": DecodingParams(align="none"),
    "ridge, spread of z alone": DecodingParams(align_targets=("z",)),
    "contrastive": DecodingParams(decoder="contrastive"),
}
"""Ways to decode, by the name that a cell has."""


@dataclass(frozen=True)
class Case:
    """Stimuli of one simulated subject.

    Attributes
    ----------
    folder : Path
        Keeps the subject and everything that is computed of it.
    seed : int
        Of the simulation.
    which : str
        `VALIDATION`: training stimuli, decoded by a decoder that was fitted without them; `TEST`: test stimuli.
    n : int
        The first so many of them.
    models : Models
    """

    folder: Path
    seed: int
    which: str
    n: int
    models: Models

    @cached_property
    def subject(self) -> nsd.Subject:
        """The subject, simulated where it is not there yet."""
        write_subjects(self.folder / f"seed{self.seed}", SimulationParams(seed=self.seed, n_test=N_TEST[self.which]))
        return nsd.Subject(self.folder / f"seed{self.seed}", "subj01")

    @cached_property
    def split(self) -> tuple[nsd.Betas, nsd.Betas]:
        """Betas that the decoder is fitted on, and those that it decodes."""
        train, test = self.subject.betas().split()
        if self.which == TEST:
            return train, test.subset(test.stimulus_ids[: self.n])
        order = np.random.default_rng(0).permutation(train.stimulus_ids)
        tenth = len(order) // 10
        return train.subset(np.sort(order[tenth:])), train.subset(order[: min(tenth, self.n)])

    @property
    def ids(self) -> np.ndarray:
        return self.split[1].stimulus_ids

    @cached_property
    def seen(self) -> np.ndarray:
        """Seen images (n, H, W, 3) uint8."""
        return self.subject.stimuli[self.ids]

    @cached_property
    def mean_image(self) -> np.ndarray:
        """Mean of the images that the decoder was fitted on, (H, W, 3) uint8."""
        ids = self.split[0].stimulus_ids
        return self.subject.stimuli[ids].mean(axis=0).round().astype(np.uint8)

    @property
    def facts(self) -> list[object]:
        """What every cell of the case is made from, beside the decoder."""
        return [self.seed, self.which, self.n, self.models.digest, FeatureParams()]

    def true(self) -> Embeddings:
        """Embeddings of what was seen and of its captions."""
        return self._kept("true", lambda path: self._extract(self.ids, path))

    def decoded(self, way: str) -> Embeddings:
        """Embeddings decoded in one of `DECODERS`' ways."""
        return self._kept(fingerprint(DECODERS[way])[:12], lambda path: self._decode(DECODERS[way], path))

    def _kept(self, what: str, make: Callable[[Path], object]) -> Embeddings:
        path = self.folder / f"seed{self.seed}" / "study" / f"{fingerprint([what, *self.facts])[:16]}.h5"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            make(path)
        return Embeddings.load(path)

    def _extract(self, ids: np.ndarray, path: Path) -> None:
        embeddings.extract(self.models, self.subject.stimuli, ids, path, FeatureParams(), silent).close()

    def _decode(self, params: DecodingParams, path: Path) -> None:
        fit_on, held_out = self.split
        targets = path.with_name(f"train-{self.which}-{self.models.digest[:16]}.h5")
        self._extract(fit_on.stimulus_ids, targets)
        with embeddings.TargetFile(targets) as rows:
            decoding.new(params).fit(fit_on, rows).predict(held_out).save(path)
