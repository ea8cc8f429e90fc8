"""What every kind of decoder is to the rest of the program, and the record of how well it predicts a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.alignment import Alignment
from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, Targets
from napari_neuraldiffuser.core.params import DecodingParams

__all__ = ["Decoder", "DecodingError", "LinearDecoder", "TargetFit"]


@dataclass(frozen=True)
class TargetFit:
    """What training found for one target group.

    Attributes
    ----------
    chosen : float
        The best of `tried`.
    tried, r2 : tuple of float
        What was tried along `axis` and the R² of each on training stimuli that were held out, pooled over the scored
        columns.  For ridge penalties, leaving one stimulus out at a time.
    shape : tuple of int
        Shape of one stimulus' target.
    mean : ndarray (T,) float64
        Training mean, the intercept.
    axis : str
        "penalty", or "epoch" for a decoder that is trained until held-out stimuli are predicted no better.
    alignment : Alignment, optional
        Spread of predictions for training stimuli that were left out, and what is done about it; None where it was not
        measured.
    penalties : ndarray (T,), optional
        The penalty of every column, where blocks or columns have their own; None where all have `chosen`.
    penalties_r2 : float
        R² of left-out stimuli with these, pooled over all columns.
    """

    chosen: float
    tried: tuple[float, ...]
    r2: tuple[float, ...]
    shape: tuple[int, ...]
    mean: np.ndarray
    axis: str = "penalty"
    alignment: Alignment | None = None
    penalties: np.ndarray | None = None
    penalties_r2: float = np.nan

    @property
    def constant(self) -> bool:
        """Whether the training targets did not vary: there is no R², and the prediction is their mean."""
        return not np.isfinite(self.r2).any()

    @property
    def best_r2(self) -> float:
        """Held-out R² of the chosen one, or with the penalties of all columns; NaN of a constant target."""
        if self.penalties is not None:
            return self.penalties_r2
        return self.r2[self.tried.index(self.chosen)]

    def arrays(self) -> list[np.ndarray]:
        """What tells this fit from others, for a digest: mean, what was chosen, and what is done about the spread."""
        out = [self.mean, np.array([self.chosen])]
        if self.penalties is not None:
            out.append(self.penalties)
        if self.alignment is not None:
            a = self.alignment
            form = np.frombuffer(a.form.encode(), np.uint8)
            out += [form, a.decoded_mean, a.decoded_sd, a.mean, a.sd]
        return out

    @property
    def alpha(self) -> float:
        """The chosen penalty, by the name that scripts know it by; DecodingError where no penalties were tried."""
        if self.axis != "penalty":
            raise DecodingError(f"alpha must be of tried penalties, got {self.axis}. Use chosen.")
        return self.chosen


class Decoder(Protocol):
    """Betas to embeddings.  A kind of decoder is a class with these, named in `base.registry.DECODERS`.

    Attributes
    ----------
    params : DecodingParams
    accuracy : dict of str to TargetFit
        Every fitted target, in the project's order; empty before `fit`.
    attrs : dict
        What the training targets were made from (`model_digest`, `feature_normalisation`, ...).
    """

    params: DecodingParams
    accuracy: dict[str, TargetFit]
    attrs: dict[str, Any]

    def __init__(self, params: DecodingParams | None = None) -> None: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Targets that the decoder predicts, in the project's order."""

    def fit(
        self, train: Responses, targets: Targets, progress: Progress | None = None, names: Sequence[str] | None = None
    ) -> Self:
        """Learn from betas (n, p) and targets of their stimuli; `names` are fitted, all where None."""

    def check(self, betas: Responses) -> None:
        """Raise DecodingError unless `betas` are of the training voxels in the same order, space and grid."""

    def predict(self, betas: Responses, align: str | None = None, progress: Progress | None = None) -> Embeddings:
        """Embeddings of betas (m, p)."""

    def arrays(self) -> list[np.ndarray]:
        """What tells this decoder from others, for a digest."""

    def save(self, path: str | Path) -> None:
        """Write everything to one HDF5 file, atomically, whose group `decoder` has the attribute `kind`."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a file written by `save`; DecodingError if it is not one."""

    def close(self) -> None:
        """Close the file that a loaded decoder reads from."""


@runtime_checkable
class LinearDecoder(Decoder, Protocol):
    """A decoder whose prediction is a sum over voxels, ŷ' = x W; W (p, T) need not be formed."""

    def centre(self, betas: Responses) -> np.ndarray:
        """Betas (m, p) minus the training mean, checked: x."""

    def similarity(self, x: np.ndarray) -> np.ndarray:
        """What `deviations` starts from, made once for all targets: inner products (m, n) with the training betas."""

    def deviations(self, name: str, similarity: np.ndarray) -> np.ndarray:
        """Prediction minus training mean (m, T), before any alignment: x W."""

    def pull_back(self, name: str, q: np.ndarray) -> np.ndarray:
        """W q for every row of q (m, T): (m, p)."""


@runtime_checkable
class DifferentiableDecoder(Decoder, Protocol):
    """A decoder whose prediction has a gradient with respect to the betas."""

    def centre(self, betas: Responses) -> np.ndarray:
        """Betas (m, p) minus the training mean, checked: x."""

    def respond(self, name: str, x: np.ndarray) -> np.ndarray:
        """Prediction (m, T) for centred betas, before any alignment: ŷ(x)."""

    def gradient(self, name: str, x: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Gradient (m, p) of q · ŷ(x) for every row, with q (m, T) held fixed."""
