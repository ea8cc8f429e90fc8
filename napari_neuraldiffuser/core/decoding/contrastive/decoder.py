"""LinearContrastiveDecoder: betas to embeddings by a linear map of low rank that is trained by contrast."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding import alignment, solver, store
from napari_neuraldiffuser.core.decoding.checks import check_room_to_fit, check_room_to_predict, finite
from napari_neuraldiffuser.core.decoding.contrastive import span, start, training
from napari_neuraldiffuser.core.decoding.decoder import DecodingError, TargetFit
from napari_neuraldiffuser.core.decoding.geometry import Geometry, checked_data, checked_training
from napari_neuraldiffuser.core.decoding.products import checked_device
from napari_neuraldiffuser.core.decoding.targets import (
    Rows,
    blocks,
    chosen_names,
    is_constant,
    match_rows,
    summary,
    target_names,
    target_shape,
)
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, Targets
from napari_neuraldiffuser.core.params import DecodingParams

FEWEST_STIMULI = 4
SCORED = 256
"""Columns that choose the one penalty at which directions are looked for."""
LEFT_OUT = 512
"""Training rows that the spread of predictions is measured on."""


@dataclass(frozen=True)
class Factors:
    """The map of one target, W = `inputs` `directions`ᵀ: (p, k) and (T, k) float32."""

    inputs: np.ndarray
    directions: np.ndarray


@dataclass(frozen=True)
class _Training:
    """What all targets of a fit share."""

    x: np.ndarray
    spectrum: solver.Spectrum
    leaves: list[solver.LeaveOut]
    stimuli: np.ndarray
    targets: Targets
    rows: Rows
    progress: Callable[[int, str], None]


class LinearContrastiveDecoder:
    """Linear decoder of low rank, trained by contrast from the ridge solution (method.md eq. 14-20).

    Each target is decoded in the directions that ridge predicts most of.  Ridge has a penalty per direction; a map
    behind it, trained with SoftCLIP or InfoNCE beside the squared error, weighs and mixes the directions.  The weights
    (voxels x targets) are a product of two thin matrices, which are all that a decoder keeps: it needs neither training
    betas nor targets any more.

    Parameters
    ----------
    params : DecodingParams, optional

    Attributes
    ----------
    accuracy : dict of str to TargetFit
        R² of held-out training stimuli at the start and after every pass, and the pass that was kept.
    factors : dict of str to Factors
    geometry : Geometry
        Voxels, affine, shape and space of the training betas.
    beta_mean : ndarray (p,)
    attrs : dict
        What the training targets were made from.
    """

    def __init__(self, params: DecodingParams | None = None) -> None:
        self.params = params or DecodingParams(decoder="contrastive")
        self.accuracy: dict[str, TargetFit] = {}
        self.factors: dict[str, Factors] = {}
        self.attrs: dict[str, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Targets that the decoder predicts, in the project's order."""
        return tuple(self.accuracy)

    def fit(
        self, train: Responses, targets: Targets, progress: Progress | None = None, names: Sequence[str] | None = None
    ) -> Self:
        """Find the directions of every target, and train in them, on training data only.

        Parameters
        ----------
        train : Betas
            Data (n, p).  Several rows of one stimulus are allowed and are held out together.
        targets : TargetFile or Embeddings
            Targets of at least the training stimuli.
        progress : callable, optional
            Called after every pass; what it raises ends training.
        names : sequence of str, optional
            Targets that are fitted, all where None; a target's result does not depend on the others.

        Raises
        ------
        DecodingError
            If a stimulus has no targets, a value is not finite, fewer than 4 stimuli are given, or there is no
            such device.
        """
        device = checked_device(self.params.decoder_device)
        data = checked_training(train, FEWEST_STIMULI)
        check_room_to_fit(data)
        groups = solver.stimulus_groups(train.stimulus_ids)
        self.geometry = Geometry.of(train)
        self.stimulus_ids = np.array(train.stimulus_ids, dtype=np.int64)
        self.attrs = dict(getattr(targets, "attrs", {}))
        rows = match_rows(targets.stimulus_ids, self.stimulus_ids)
        self.beta_mean = data.mean(0, dtype=np.float64)
        x = (data - self.beta_mean).astype(data.dtype)
        wanted = chosen_names(target_names(targets), names)
        spectrum = solver.decompose(x, device)
        leaves = [solver.leave_out(spectrum, groups, alpha) for alpha in self.params.alphas]
        self.accuracy, self.factors = {}, {}
        steps = self.params.contrastive_epochs + 1
        for done, (name, k) in enumerate(wanted.items()):
            told = _counted(progress or silent, done * steps, len(wanted) * steps)
            shared = _Training(x, spectrum, leaves, self.stimulus_ids, targets, rows, told)
            self.accuracy[name], self.factors[name] = self._fit_target(name, shared, [self.params.seed, k])
            told(steps, name)
        return self

    def _fit_target(self, name: str, shared: _Training, seed: list[int]) -> tuple[TargetFit, Factors]:
        shape = target_shape(shared.targets, name)
        size, rank = int(np.prod(shape)), self.params.contrastive_rank
        some = max(self.params.cv_targets, 2 * (rank + span.MORE))
        columns = np.sort(np.random.default_rng(seed).choice(size, min(size, some), replace=False))
        mean, y = summary(shared.targets, name, shared.rows, shared.x.dtype, columns)
        y -= y.mean(0, dtype=np.float64).astype(y.dtype)
        if is_constant(solver.energy(y), mean[columns], len(y)):
            return self._constant(shape, mean, shared)
        alpha = start.best_penalty(shared.spectrum, shared.leaves, y[:, :: max(1, len(columns) // SCORED)])
        found = span.find(shared.spectrum, alpha, y, size, rank, _passes(shared, name, mean), _sample(shared, seed))
        return self._train_target(name, found, shared, (shape, mean), seed)

    def _train_target(
        self, name: str, found: span.Span, shared: _Training, of: tuple[tuple[int, ...], np.ndarray], seed: list[int]
    ) -> tuple[TargetFit, Factors]:
        begun = start.begin(shared.spectrum, shared.leaves, found.scores)
        problem = training.Problem(begun.left_out, found.scores, found.energy, shared.stimuli)
        steps = self.params.contrastive_epochs if name in self.params.contrastive_targets else 0
        trained = training.train(problem, self.params, seed, lambda epoch: shared.progress(epoch, name), steps)
        dual = start.dual(shared.spectrum, begun.alphas, found.scores) @ trained.change
        dtype = shared.x.dtype
        factors = Factors(shared.x.T @ dual.astype(dtype), found.directions.astype(dtype, copy=False))
        shape, mean = of
        measured = self._measure_alignment(begun.left_out @ trained.change, _sample(shared, seed), found, mean)
        tried = tuple(float(epoch) for epoch in range(len(trained.r2)))
        fit = TargetFit(float(trained.epoch), tried, trained.r2, shape, mean, "epoch", measured)
        return fit, factors

    def _constant(self, shape: tuple[int, ...], mean: np.ndarray, shared: _Training) -> tuple[TargetFit, Factors]:
        """A target that does not vary has no direction and no R²."""
        empty = Factors(*(np.zeros((size, 0), shared.x.dtype) for size in (shared.x.shape[1], mean.size)))
        still = alignment.Alignment("none", mean, np.zeros(mean.size), mean, np.zeros(mean.size))
        return TargetFit(0.0, (0.0,), (float("nan"),), shape, mean, "epoch", still), empty

    def _measure_alignment(
        self, scores: np.ndarray, rows: np.ndarray, found: span.Span, mean: np.ndarray
    ) -> alignment.Alignment:
        """Spread of training rows that are predicted without themselves, by scores (n, k); `rows` are a sample."""
        decoded = scores[rows].astype(found.sample.dtype) @ found.directions.T
        known = alignment.Moments(found.directions @ scores.mean(0), np.zeros(mean.size), found.sd)
        return alignment.measure(decoded, found.sample, self.params.align_form, known, self.params.seed).moved(mean)

    def check(self, betas: Responses) -> None:
        """Raise DecodingError unless `betas` are of the training voxels in the same order, space and grid."""
        self.geometry.check(betas)

    def centre(self, betas: Responses) -> np.ndarray:
        """Betas (m, p) minus the training mean, checked to be of the training voxels.

        Raises
        ------
        DecodingError
            If the decoder is not fitted, the voxels differ or a value is not finite.
        """
        if not self.accuracy:
            raise DecodingError("decoder must be fitted, got an unfitted one. Call fit() or load().")
        self.check(betas)
        data = checked_data(betas)
        return (data - self.beta_mean).astype(data.dtype)

    def similarity(self, x: np.ndarray) -> np.ndarray:
        """Return x (m, p) as it is: the map of every target starts from the betas, not from the training stimuli."""
        return x

    def deviations(self, name: str, similarity: np.ndarray) -> np.ndarray:
        """Prediction minus training mean, (m, T), before any alignment (method.md eq. 15)."""
        factors = self.factors[name]
        return (similarity @ factors.inputs) @ factors.directions.T

    def pull_back(self, name: str, q: np.ndarray) -> np.ndarray:
        """W q for every row of q (m, T), W (p, T) being the weights that are never formed: (m, p)."""
        factors = self.factors[name]
        return (q @ factors.directions) @ factors.inputs.T

    def predict(self, betas: Responses, align: str | None = None, progress: Progress | None = None) -> Embeddings:
        """Decode embeddings.

        Parameters
        ----------
        betas : Betas
            Data (m, p) of the training voxels, prepared like the training betas.
        align : {"none", "train", "test"}, optional
            Instead of `params.align`.

        Raises
        ------
        DecodingError
            If the voxels differ, a value is not finite, or `align` is "test" with fewer than 2 stimuli.
        """
        align = self.params.but(align=align or self.params.align).align
        x = self.centre(betas)
        if absent := " and no ".join(name for name in ("z", "c") if name not in self.names):
            raise DecodingError(f"decoder must have z and c to decode, got no {absent}. Join its parts, or fit all.")
        check_room_to_predict(len(x), self.accuracy)
        out = {}
        for k, (name, fit) in enumerate(self.accuracy.items()):
            values = self.deviations(name, x)
            values += fit.mean.astype(values.dtype)
            values = alignment.apply(values, alignment.how(name, self.params, align), fit.alignment)
            out[name] = finite(name, values).reshape(-1, *fit.shape)
            if progress:
                progress(k + 1, len(self.names), f"decode {name}")
        attrs = self.attrs | alignment.attrs(self.accuracy, self.params, align)
        return Embeddings(out.pop("z"), out.pop("c"), out, np.array(betas.stimulus_ids), attrs)

    def arrays(self) -> list[np.ndarray]:
        """Mean of the betas, maps from betas to directions, and the fits of the targets."""
        inputs = [factors.inputs for factors in self.factors.values()]
        return [self.beta_mean, *inputs, *(array for fit in self.accuracy.values() for array in fit.arrays())]

    def save(self, path: str | Path) -> None:
        """Write everything to one HDF5 file, atomically.

        Raises
        ------
        DecodingError
            If the decoder is not fitted.
        """
        if not self.accuracy:
            raise DecodingError("decoder must be fitted to be saved, got an unfitted one. Call fit() first.")
        with creating_hdf5(path) as file:
            file.attrs.update(self.attrs)
            group = store.create_group(file, "contrastive", self)
            group["beta_mean"], group["stimulus_ids"] = self.beta_mean, self.stimulus_ids
            group.update({f"geometry/{field}": v for field, v in vars(self.geometry).items() if v is not None})
            for name, factors in self.factors.items():
                group.update({f"fits/{name}/{field}": values for field, values in vars(factors).items()})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a file written by `save`; DecodingError if it is not one."""
        with store.opened(path) as file:
            group = file["decoder"]
            decoder = cls(store.read_params(group))
            decoder.attrs = dict(file.attrs)
            decoder.beta_mean = store.read_array(group, "beta_mean", None)
            decoder.stimulus_ids = store.read_array(group, "stimulus_ids", None)
            decoder.geometry = Geometry.read(group["geometry"], len(decoder.beta_mean))
            decoder.accuracy = store.read_fits(group)
            for name, fit in decoder.accuracy.items():
                part = group["fits"][name]
                inputs = store.read_array(part, "inputs", len(decoder.beta_mean), None)
                directions = store.read_array(part, "directions", fit.mean.size, inputs.shape[1])
                decoder.factors[name] = Factors(inputs, directions)
        return decoder

    def close(self) -> None:
        """Nothing is open: a decoder has all that it needs in memory."""


def _counted(progress: Progress, before: int, total: int) -> Callable[[int, str], None]:
    def told(epoch: int, name: str) -> None:
        progress(before + epoch, total, f"contrastive, {name} pass {epoch}")

    return told


def _passes(shared: _Training, name: str, mean: np.ndarray) -> span.Blocks:
    """Passes over a target minus its mean, in the betas' floating-point type."""
    dtype = shared.x.dtype
    middle = mean.astype(dtype)

    def begin() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for positions, y in blocks(shared.targets, name, shared.rows, dtype):
            yield positions, y - middle

    return begin


def _sample(shared: _Training, seed: list[int]) -> np.ndarray:
    """Rows that the spread of predictions is measured on: all, or some drawn by `seed`."""
    n = len(shared.x)
    return np.sort(np.random.default_rng([*seed, 2]).choice(n, min(n, LEFT_OUT), replace=False))
