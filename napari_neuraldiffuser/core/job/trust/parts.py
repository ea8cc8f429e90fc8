"""What a trust sheet is made from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.evaluation.trust.rows import values_of
from napari_neuraldiffuser.core.job.pictures import SeenPictures
from napari_neuraldiffuser.core.job.region_accuracy import training_targets
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.job.stages import opened
from napari_neuraldiffuser.core.networks.embeddings import WITHOUT, TargetFile, Targets
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.params import Settings


@dataclass(frozen=True)
class TrustParts:
    """Files and facts of a run whose pictures are scored.

    Attributes
    ----------
    places : Derivatives
        Its scores, summary and pictures are read.
    stimuli : SeenImages
    stimulus_ids : sequence of int (n,)
        Test stimuli that were reconstructed.
    models : Models
    settings : Settings
    embeddings : Path
        Decoded embeddings.
    train_ids : sequence of int
        Stimuli that the decoder was fitted on.
    decoder : Path, optional
        May hold its training targets.
    train_targets, targets : Path, optional
        True targets of the training and of the test stimuli.
    worth : Path, optional
        What decoded values are worth, `Worth.save`.
    betas : (Betas, Betas), optional
        Of the training and of the test stimuli; the full sheet fits ridge anew.
    records : Records, optional
        Of what the full sheet made; it needs them.
    """

    places: Derivatives
    stimuli: SeenImages
    stimulus_ids: StimulusIds
    models: Models
    settings: Settings
    embeddings: Path
    train_ids: StimulusIds
    decoder: Path | None = None
    train_targets: Path | None = None
    targets: Path | None = None
    worth: Path | None = None
    betas: tuple[nsd.Betas, nsd.Betas] | None = None
    records: Records | None = None

    @property
    def seen(self) -> SeenPictures:
        """Seen images of the test stimuli."""
        return SeenPictures(self.stimuli, self.stimulus_ids)

    @property
    def repeats(self) -> int:
        return self.settings.diffusion.repeats

    @property
    def kept(self) -> Records:
        """The records of the full sheet."""
        if self.records is None:
            raise UserError("records must be given for the full trust sheet, got none. Give them, or take trust=cheap.")
        return self.records

    @cached_property
    def table(self) -> pd.DataFrame:
        """The scores of every picture."""
        return pd.read_csv(self.places.scores, sep="\t", na_values="n/a", converters={"stimulus": str})

    def values(self, arm: str) -> dict[str, np.ndarray]:
        """Scores of one arm, metric -> (n, repeats)."""
        return values_of(self.table, arm, self.stimulus_ids)

    @cached_property
    def arms(self) -> dict[str, dict[str, np.ndarray]]:
        """Scores of both arms."""
        return {arm: self.values(arm) for arm in ARMS}

    @contextmanager
    def training(self) -> Iterator[Targets | None]:
        """True targets of the training stimuli; None where nothing has them."""
        if self.decoder is None:
            if self.train_targets is None or not self.train_targets.is_file():
                yield None
                return
            with TargetFile(self.train_targets) as targets:
                yield targets
            return
        with opened(self.decoder) as known, training_targets(known, self.train_targets) as targets:
            yield targets

    @property
    def uncaptioned(self) -> bool:
        """Whether the true targets of the test stimuli lack c, as the images of that test set have no captions."""
        if self.targets is None or not self.targets.is_file():
            return False
        with TargetFile(self.targets) as true:
            return WITHOUT in true.attrs

    @property
    def layers(self) -> Sequence[str]:
        """Layers of g that this run is guided by."""
        return self.settings.guidance.layers
