"""What a job starts from: one subject's betas, split into training and test, and where its images come from."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import array_digest


@dataclass(frozen=True)
class Inputs:
    """Betas and stimuli of one subject.

    Attributes
    ----------
    subject : BrainSource
        Asked for stimuli, captions, anatomy and regions.
    train, test : Betas
    digest : str
        Over values, stimuli and voxels of the betas as they were read.
    stimuli : str
        Differs when images or captions do.
    """

    subject: nsd.BrainSource
    train: nsd.Betas
    test: nsd.Betas
    digest: str
    stimuli: str

    @classmethod
    def of(cls, subject: nsd.BrainSource, betas: nsd.Betas, stimuli: str = "") -> "Inputs":
        """The inputs that betas are split into."""
        arrays = (betas.data, betas.stimulus_ids, betas.shared, betas.voxels, betas.affine)
        digest = array_digest(*(array for array in arrays if array is not None))
        return cls(subject, *betas.split(), digest, stimuli)

    def first_test(self, n: int | None) -> "Inputs":
        """The same with the first `n` test stimuli; with all where None."""
        return replace(self, test=first_test(self.test, n))

    @property
    def train_ids(self) -> np.ndarray:
        """Training stimuli, each once."""
        return np.unique(self.train.stimulus_ids)

    @property
    def notes(self) -> list[str]:
        """What the reader skipped, dropped or found odd."""
        return [*self.train.notes, *nsd.dropped_notes(self.train.dropped), *self.subject.stimuli.notes]

    @property
    def counts(self) -> dict[str, Any]:
        """As `nsd.betas_facts` counts them in a file of betas."""
        return {
            "n_train": len(self.train),
            "n_test": len(self.test),
            "trials_per_test_image": float(np.mean(self.test.repeats)),
            "n_voxels": self.train.n_voxels,
            "noise_ceiling": self.train.noise_ceiling,
        }


def first_test(test: nsd.Betas, n: int | None) -> nsd.Betas:
    """The first `n` test stimuli; all where None."""
    return test if n is None else test.subset(test.stimulus_ids[:n])
