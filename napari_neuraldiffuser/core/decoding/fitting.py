"""What ridge learns of one target: its mean, its penalties, and the spread of its left-out predictions."""

from dataclasses import replace

import numpy as np

from napari_neuraldiffuser.core.decoding import alignment, solver
from napari_neuraldiffuser.core.decoding.decoder import TargetFit
from napari_neuraldiffuser.core.decoding.left_out import LeftOutMap, left_out_map
from napari_neuraldiffuser.core.decoding.penalties import Penalties, Scores, choose, panels
from napari_neuraldiffuser.core.decoding.products import EVERY, Columns, TargetMatrix
from napari_neuraldiffuser.core.decoding.targets import Rows, is_constant, summary, target_shape
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import DecodingParams

MOST_LEFT_OUT, SOME_LEFT_OUT = 1536, 512
"""Up to so many stimuli all are predicted without themselves to measure the spread; of more, some are drawn."""


def penalty_parts(fit: TargetFit) -> list[tuple[float, Columns]]:
    """Every penalty of a target with the columns that have it."""
    if fit.penalties is None:
        return [(fit.chosen, EVERY)]
    return [(float(alpha), np.flatnonzero(fit.penalties == alpha)) for alpha in np.unique(fit.penalties)]


class Fitting:
    """Fits targets one after the other, on betas that are decomposed already.

    Parameters
    ----------
    spectrum : Spectrum
    groups : list of ndarray
        Rows of every stimulus, `solver.stimulus_groups`.
    source : Targets
    rows : Rows
        Rows of `source` for the betas' rows.
    params : DecodingParams
    """

    def __init__(
        self,
        spectrum: solver.Spectrum,
        groups: list[np.ndarray],
        source: Targets,
        rows: Rows,
        params: DecodingParams,
    ) -> None:
        self.spectrum, self.source, self.rows, self.params = spectrum, source, rows, params
        self.leaves = [solver.leave_out(spectrum, groups, alpha) for alpha in params.alphas]
        self.scores = Scores(spectrum, self.leaves, params.decoder_device)
        self.dtype = spectrum.u.dtype
        self._maps: dict[float, LeftOutMap] = {}

    def fit(self, name: str, k: int) -> TargetFit:
        """Everything of one target, the k-th of all."""
        size = int(np.prod(target_shape(self.source, name)))
        rng = np.random.default_rng([self.params.seed, k])
        columns = np.sort(rng.choice(size, min(size, self.params.cv_targets), replace=False))
        mean, scored = summary(self.source, name, self.rows, self.dtype, columns)
        scored -= scored.mean(0, dtype=np.float64).astype(scored.dtype)
        matrix = TargetMatrix(self.source, name, self.rows, mean, self.dtype, self.params.decoder_device)
        fit = self._penalised(matrix, scored, mean[columns])
        if name not in self.params.align_targets:
            return fit
        return replace(fit, alignment=self._alignment(matrix, fit))

    def _penalised(self, matrix: TargetMatrix, scored: np.ndarray, scored_mean: np.ndarray) -> TargetFit:
        tried, shape = tuple(left.alpha for left in self.leaves), target_shape(self.source, matrix.name)
        energy = solver.energy(scored)
        if is_constant(energy, scored_mean, len(scored)):
            # it has no R², and what is left of its variance is rounding: the largest penalty predicts its mean
            return TargetFit(max(tried), tried, (np.nan,) * len(tried), shape, matrix.mean)
        if self.params.penalty == "group":
            r2 = tuple(map(float, 1.0 - self.scores.pooled(scored, self.params.seed) / energy))
            return TargetFit(tried[int(np.argmax(r2))], tried, r2, shape, matrix.mean)
        picked = self._picked(matrix, shape[0] if self.params.penalty == "block" else None)
        chosen, each = tried[int(np.argmax(picked.r2))], np.array(tried)[picked.chosen]
        r2 = tuple(map(float, picked.r2))
        return TargetFit(chosen, tried, r2, shape, matrix.mean, penalties=each, penalties_r2=picked.chosen_r2)

    def _picked(self, matrix: TargetMatrix, blocks: int | None) -> Penalties:
        """Penalties by all columns, read some columns at a time."""
        size = matrix.mean.size
        energies, totals = np.empty((len(self.leaves), size)), np.empty(size)
        for part in panels(size):
            y = matrix.panel(part)
            totals[part] = np.einsum("ij,ij->j", y, y)
            energies[:, part] = self.scores.columns(y)
        return choose(energies, totals, int(np.argmax(self.params.alphas)), blocks)

    def _alignment(self, matrix: TargetMatrix, fit: TargetFit) -> alignment.Alignment:
        """Spread of training stimuli that are predicted without themselves."""
        n, size = len(self.spectrum.u), matrix.mean.size
        parts = [(self._map(alpha), columns) for alpha, columns in penalty_parts(fit)]
        rows = parts[0][0].rows
        weights = [(np.concatenate([each.sample, each.mean[None]]), columns) for each, columns in parts]
        predicted = matrix.weighted(weights)
        squares = np.zeros(size)
        place, truth = np.full(n, -1), np.empty((len(rows), size), self.dtype)
        place[rows] = np.arange(len(rows))
        for positions, y in matrix.blocks():
            squares += np.einsum("ij,ij->j", y, y)
            among = place[positions] >= 0
            truth[place[positions[among]]] = y[among]
        known = alignment.Moments(predicted[-1].astype(np.float64), np.zeros(size), np.sqrt(squares / n))
        how, seed = self.params.align_form, self.params.seed
        return alignment.measure(predicted[:-1], truth, how, known, seed).moved(matrix.mean)

    def _map(self, alpha: float) -> LeftOutMap:
        """Left-out predictions of the same stimuli at each penalty; a few penalties serve all targets."""
        if alpha not in self._maps:
            n = len(self.spectrum.u)
            some = n if n <= MOST_LEFT_OUT else SOME_LEFT_OUT
            left = next(left for left in self.leaves if left.alpha == alpha)
            self._maps[alpha] = left_out_map(self.spectrum, left, self.dtype, some, self.params.seed)
        return self._maps[alpha]
