"""What a network is trained on: latents of left-out stimuli, their scores, and whole targets streamed by stimulus."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.decoding.geometry import checked_data
from napari_neuraldiffuser.core.decoding.network.basis import Basis, Projected, project
from napari_neuraldiffuser.core.decoding.network.encoder import Encoder, fit_encoder, fold_rows, noisier
from napari_neuraldiffuser.core.decoding.targets import match_rows
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import DecodingParams

FEWEST_HELD_OUT = 2
"""The spread of predictions is measured on them."""


@dataclass(frozen=True)
class SubjectRows:
    """Training rows of one subject.

    Attributes
    ----------
    encoder : Encoder
        Fitted to all rows.
    latents : ndarray (v, n, k) float32
        What v encoders say of stimuli that they were not fitted to, NaN for others; the first knows every row.
    projected : dict of str to Projected
    targets : Targets
    stored : ndarray (n,)
        Row of the target file.
    stimulus_ids : ndarray (n,)
    x : ndarray (n, p) float32 or None
        Centred betas, where the encoder is trained.
    """

    encoder: Encoder
    latents: np.ndarray
    projected: dict[str, Projected]
    targets: Targets
    stored: np.ndarray
    stimulus_ids: np.ndarray
    x: np.ndarray | None = None

    def scores(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Scores (B, b) of a target."""
        return self.projected[name].scores[rows]

    def energy(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Squared deviations (B,) of a target from its mean."""
        return self.projected[name].energy[rows]

    def columns(self, name: str, rows: np.ndarray) -> np.ndarray:
        """All columns (B, T) float32 of a target; every stored row is read once."""
        stored, inverse = np.unique(self.stored[rows], return_inverse=True)
        values = np.asarray(self.targets[name][stored], dtype=np.float32)
        return values.reshape(len(stored), -1)[inverse]


def subject_rows(
    betas: Responses, targets: Targets, basis: Basis, params: DecodingParams, k: int = 0, first_stage: bool = False
) -> SubjectRows:
    """Fit the voxel encoder of subject `k` and predict its training rows, in the first stage by noisier ones too."""
    data, ids = checked_data(betas), np.asarray(betas.stimulus_ids)
    rows = match_rows(targets.stimulus_ids, ids)
    projected = {name: project(one, targets, name, rows) for name, one in basis.targets.items()}
    latents = basis.latents({name: one.scores for name, one in projected.items()})
    rng = np.random.default_rng([params.seed, 62, k])
    encoded = fit_encoder(data, latents, fold_rows(ids, params.network_folds, rng), params.alphas)
    versions = [encoded.left_out]
    if first_stage:
        versions += noisier(data, latents, ids, params.network_folds, params.alphas, rng)
    stored = np.empty(len(ids), np.int64)
    stored[rows.order] = rows.stored
    x = (data - encoded.encoder.mean).astype(np.float32) if params.network_encoder == "tuned" else None
    return SubjectRows(encoded.encoder, np.stack(versions), projected, targets, stored, ids, None if first_stage else x)


@dataclass(frozen=True)
class Batch:
    """Some rows: latents (B, width), target scores (B, b) or, of whole targets, columns (B, T); betas or None."""

    latents: torch.Tensor
    targets: dict[str, torch.Tensor]
    scores: dict[str, torch.Tensor]
    energy: dict[str, np.ndarray]
    x: torch.Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        move = {name: value.to(device) for name, value in self.targets.items()}
        scores = {name: value.to(device) for name, value in self.scores.items()}
        x = None if self.x is None else self.x.to(device)
        return Batch(self.latents.to(device), move, scores, self.energy, x)

    def part(self, k: int, n: int) -> "Batch":
        """Every n-th row from the k-th on."""
        rows = slice(k, None, n)
        targets, scores = ({name: v[rows] for name, v in d.items()} for d in (self.targets, self.scores))
        energy = {name: values[rows] for name, values in self.energy.items()}
        return Batch(self.latents[rows], targets, scores, energy, None if self.x is None else self.x[rows])


class Data:
    """Rows of one or several subjects, some of their stimuli held out.

    Parameters
    ----------
    subjects : sequence of SubjectRows
    names : collection of str
        Targets that vary.
    whole : collection of str
        Those that are needed column by column.
    width : int
        Of the network; latents are padded with zeros.
    params : DecodingParams
    """

    def __init__(
        self,
        subjects: Sequence[SubjectRows],
        names: Collection[str],
        whole: Collection[str],
        width: int,
        params: DecodingParams,
    ) -> None:
        self.subjects, self.names, self.whole, self.width, self.params = subjects, names, whole, width, params
        held = held_out(np.concatenate([one.stimulus_ids for one in subjects]), params)
        places = [
            np.stack([np.full(len(one.stored), k), np.arange(len(one.stored))], 1) for k, one in enumerate(subjects)
        ]
        place = np.concatenate(places)
        self.train, self.held = place[~held], place[held]
        self.known = [np.isfinite(one.latents[:, :, 0]) for one in subjects]

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return -(-len(self.train) // self.params.network_batch)

    def passing(self, number: int) -> Iterator[Batch]:
        """Batches of pass `number`, whose order and latents depend on the seed and the number alone."""
        rng = np.random.default_rng([self.params.seed, 63, number])
        order = self.train[rng.permutation(len(self.train))]
        for part in np.array_split(order, self.steps):
            yield self.batch(part, [int(rng.choice(np.flatnonzero(self.known[k][:, row]))) for k, row in part])

    def holding(self) -> Iterator[Batch]:
        """Batches of the held-out rows, in order."""
        for part in np.array_split(self.held, -(-len(self.held) // self.params.network_batch)):
            yield self.batch(part, [0] * len(part))

    def batch(self, places: np.ndarray, versions: Sequence[int]) -> Batch:
        """Some rows, given as (subject, row) (B, 2), with which of its latents each has."""
        latents = np.zeros((len(places), self.width), np.float32)
        for i, ((k, row), version) in enumerate(zip(places, versions, strict=True)):
            found = self.subjects[k].latents[version, row]
            latents[i, : len(found)] = found
        x = self.subjects[0].x
        scores = {name: self._each(places, name, SubjectRows.scores) for name in self.names}
        whole = {name: self._each(places, name, SubjectRows.columns) for name in self.whole}
        energy = {name: self._each(places, name, SubjectRows.energy) for name in self.names}
        tensors = {name: torch.from_numpy(values) for name, values in scores.items()}
        return Batch(
            torch.from_numpy(latents),
            tensors | {name: torch.from_numpy(values) for name, values in whole.items()},
            tensors,
            energy,
            None if x is None else torch.from_numpy(x[places[:, 1]]),
        )

    def _each(
        self, places: np.ndarray, name: str, read: Callable[[SubjectRows, str, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Values of rows, each subject's read at once."""
        found = [read(self.subjects[k], name, places[places[:, 0] == k, 1]) for k in np.unique(places[:, 0])]
        joined = np.concatenate(found)
        out = np.empty_like(joined)
        out[np.argsort(places[:, 0], kind="stable")] = joined
        return out


def held_out(stimulus_ids: np.ndarray, params: DecodingParams) -> np.ndarray:
    """Which rows are of stimuli that choose the best pass, (n,) bool: the same for every subject that saw them."""
    ids = np.unique(stimulus_ids)
    n = max(FEWEST_HELD_OUT, round(params.network_held_out * len(ids)))
    drawn = np.random.default_rng([params.seed, 61]).choice(ids, n, replace=False)
    return np.isin(stimulus_ids, drawn)
