"""RidgeDecoder: betas to embeddings by ridge regression, one penalty per target group."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding import alignment, solver, store
from napari_neuraldiffuser.core.decoding.decoder import DecodingError, TargetFit
from napari_neuraldiffuser.core.decoding.geometry import Geometry, checked_data
from napari_neuraldiffuser.core.decoding.left_out import left_out_map
from napari_neuraldiffuser.core.decoding.targets import (
    blocks,
    is_constant,
    match_rows,
    summary,
    target_names,
    target_shape,
)
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile, Targets, dataset_name
from napari_neuraldiffuser.core.params import DecodingParams

FEWEST_STIMULI = 3
MOST_LEFT_OUT, SOME_LEFT_OUT = 1536, 512
"""Up to so many stimuli all are predicted without themselves to measure the spread; of more, some are drawn."""


class RidgeDecoder:
    """Linear decoder from betas to the embeddings z, c and g (method.md eq. 9-13).

    The weights (voxels x targets) are never formed.  The decoder keeps the centred betas (n, p), the
    eigendecomposition of their Gram matrix and a reference to the training targets, which it streams when it
    predicts; a saved decoder has its own copy of them.

    Parameters
    ----------
    params : DecodingParams, optional

    Attributes
    ----------
    accuracy : dict of str to TargetFit
        Cross-validated R² and penalty of every target group.
    geometry : Geometry
        Voxels, affine, shape and space of the training betas.
    attrs : dict
        What the training targets were made from (`model_digest`, `feature_normalisation`, ...).
    stimulus_ids : ndarray (n,) int
        Stimulus of every training row.
    """

    def __init__(self, params: DecodingParams | None = None) -> None:
        self.params = params or DecodingParams()
        self.accuracy: dict[str, TargetFit] = {}
        self.attrs: dict[str, Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Targets that the decoder predicts, in the project's order."""
        return tuple(self.accuracy)

    def fit(
        self, train: Responses, targets: Targets, progress: Progress | None = None, names: Sequence[str] | None = None
    ) -> Self:
        """Choose a penalty per target group by leaving one stimulus out, on training data only.

        Parameters
        ----------
        train : Betas
            Data (n, p); products run in its floating-point type.  Several rows of one stimulus are allowed
            and are left out together.
        targets : TargetFile or Embeddings
            Targets of at least the training stimuli; must stay open while the decoder is used, unless it is
            saved and loaded.
        names : sequence of str, optional
            Targets that are fitted, all where None.  `join_decoders` puts the parts together, and gives the bits of
            one decoder of all targets.

        Raises
        ------
        DecodingError
            If a stimulus has no targets, a value is not finite, or fewer than 3 stimuli are given.
        """
        data = checked_data(train)
        groups = solver.stimulus_groups(train.stimulus_ids)
        n = sum(len(g) for g in groups)
        if n < FEWEST_STIMULI:
            raise DecodingError(
                f"betas must have at least {FEWEST_STIMULI} different training stimuli, got {n}. "
                "Read more sessions, or check which stimuli are marked as shared."
            )
        self.geometry = Geometry.of(train)
        self.stimulus_ids = np.array(train.stimulus_ids, dtype=np.int64)
        self.beta_mean = data.mean(0, dtype=np.float64)
        self.x = (data - self.beta_mean).astype(data.dtype)
        self.use_targets(targets)
        self.spectrum = solver.decompose(self.x)
        leaves = [solver.leave_out(self.spectrum, groups, a) for a in self.params.alphas]
        self._choose_penalties(leaves, _chosen(target_names(targets), names), progress)
        return self

    def use_targets(self, targets: Targets) -> None:
        """Take the training targets from `targets`, matched to the training rows by stimulus."""
        self.targets = targets
        self.attrs = dict(getattr(targets, "attrs", {}))
        self.rows = match_rows(targets.stimulus_ids, self.stimulus_ids)

    def _choose_penalties(
        self, leaves: list[solver.LeaveOut], names: dict[str, int], progress: Progress | None
    ) -> None:
        self.accuracy = {}
        for done, (name, k) in enumerate(names.items(), 1):
            fit, best = self._fit_target(name, leaves, np.random.default_rng([self.params.seed, k]))
            self.accuracy[name] = replace(fit, alignment=self._measure_alignment(name, fit.mean, best))
            if progress:
                progress(done, len(names), f"ridge {name}")

    def _measure_alignment(self, name: str, mean: np.ndarray, left: solver.LeaveOut) -> alignment.Alignment:
        """Spread of training stimuli that are predicted without themselves, in one pass over the targets."""
        dtype, n = self.x.dtype, len(self.x)
        some = n if n <= MOST_LEFT_OUT else SOME_LEFT_OUT
        left_out = left_out_map(self.spectrum, left, dtype, some, self.params.seed)
        place = np.full(n, -1)
        place[left_out.rows] = np.arange(len(left_out.rows))
        truth, decoded = (np.zeros((len(left_out.rows), mean.size), dtype) for _ in range(2))
        decoded_mean, squares = np.zeros(mean.size), np.zeros(mean.size)
        for positions, y in self._centred_targets(name, mean):
            decoded += left_out.sample[:, positions] @ y
            decoded_mean += left_out.mean[positions] @ y
            squares += np.einsum("ij,ij->j", y, y)
            among = place[positions] >= 0
            truth[place[positions[among]]] = y[among]
        known = alignment.Moments(decoded_mean, np.zeros(mean.size), np.sqrt(squares / n))
        return alignment.measure(decoded, truth, self.params.align_form, known, self.params.seed).moved(mean)

    def _fit_target(
        self, name: str, leaves: list[solver.LeaveOut], rng: np.random.Generator
    ) -> tuple[TargetFit, solver.LeaveOut]:
        shape = target_shape(self.targets, name)
        size = int(np.prod(shape))
        columns = np.sort(rng.choice(size, min(size, self.params.cv_targets), replace=False))
        mean, chosen = summary(self.targets, name, self.rows, self.x.dtype, columns)
        chosen -= chosen.mean(0, dtype=np.float64).astype(chosen.dtype)
        if is_constant(solver.energy(chosen), mean[columns], len(chosen)):
            # it has no R², and what is left of its variance is rounding: the largest penalty predicts its mean
            r2, best = np.full(len(leaves), np.nan), max(leaves, key=lambda left: left.alpha)
        else:
            r2 = solver.leave_out_r2(self.spectrum, chosen, leaves)
            best = leaves[int(np.argmax(r2))]
        tried = tuple(left.alpha for left in leaves)
        return TargetFit(best.alpha, tried, tuple(float(value) for value in r2), shape, mean), best

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
            raise DecodingError("decoder must be fitted, got an unfitted one. Call fit() or RidgeDecoder.load().")
        self.check(betas)
        return (checked_data(betas) - self.beta_mean).astype(self.x.dtype)

    def similarity(self, x: np.ndarray) -> np.ndarray:
        """Inner products (m, n) of centred betas x (m, p) with the training betas: K_test."""
        return x @ self.x.T

    def deviations(self, name: str, similarity: np.ndarray) -> np.ndarray:
        """Prediction minus training mean, K_test (K + αI)⁻¹ Y, (m, T), before any alignment (method.md eq. 10)."""
        smoother = solver.apply_inverse(self.spectrum, self.accuracy[name].chosen, similarity.T).T
        out = np.zeros((len(similarity), self.accuracy[name].mean.size), self.x.dtype)
        for positions, y in self._centred_targets(name, self.accuracy[name].mean):
            out += smoother[:, positions] @ y
        return out

    def pull_back(self, name: str, q: np.ndarray) -> np.ndarray:
        """W q for every row of q (m, T), W (p, T) being the weights that are never formed: (m, p)."""
        products = np.empty((len(self.x), len(q)), self.x.dtype)
        for positions, y in self._centred_targets(name, self.accuracy[name].mean):
            products[positions] = y @ q.T
        return solver.apply_inverse(self.spectrum, self.accuracy[name].chosen, products).T @ self.x

    def _centred_targets(self, name: str, mean: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        mean = mean.astype(self.x.dtype)
        for positions, y in blocks(self.targets, name, self.rows, self.x.dtype):
            yield positions, y - mean

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
        similarity = self.similarity(self.centre(betas))
        if absent := " and no ".join(name for name in ("z", "c") if name not in self.names):
            raise DecodingError(f"decoder must have z and c to decode, got no {absent}. Join its parts, or fit all.")
        out = {}
        for k, name in enumerate(self.names):
            values = self.deviations(name, similarity)
            values += self.accuracy[name].mean.astype(values.dtype)
            values = alignment.apply(values, alignment.how(name, self.params, align), self.accuracy[name].alignment)
            if not np.isfinite(values).all():
                raise DecodingError(f"decoder must predict finite {name}, got NaN or infinity. {store.REMEDY}")
            out[name] = values.astype(np.float32).reshape(-1, *self.accuracy[name].shape)
            if progress:
                progress(k + 1, len(self.names), f"decode {name}")
        attrs = self.attrs | alignment.attrs(self.accuracy, self.params, align)
        return Embeddings(out.pop("z"), out.pop("c"), out, np.array(betas.stimulus_ids), attrs)

    def arrays(self) -> list[np.ndarray]:
        """Centred betas, their mean and spectrum, and the means of the targets."""
        return [self.x, self.beta_mean, self.spectrum.s, *(fit.mean for fit in self.accuracy.values())]

    def save(self, path: str | Path) -> None:
        """Write everything, training targets included, to one HDF5 file, atomically.

        Raises
        ------
        DecodingError
            If the decoder is not fitted.
        """
        if not self.accuracy:
            raise DecodingError("decoder must be fitted to be saved, got an unfitted one. Call fit() first.")
        with creating_hdf5(path) as file:
            file.attrs.update(self.attrs)
            self._save_targets(file)
            group = store.create_group(file, "ridge", self)
            group["betas"], group["beta_mean"] = self.x, self.beta_mean
            group["stimulus_ids"] = self.stimulus_ids
            group["u"], group["s"] = self.spectrum.u, self.spectrum.s
            # betas without geometry have None here, which is left out
            group.update({f"geometry/{field}": v for field, v in vars(self.geometry).items() if v is not None})

    def _save_targets(self, file: h5py.File) -> None:
        """The targets of every training stimulus once, in the type they have on disk."""
        ids = np.asarray(self.targets.stimulus_ids)[np.unique(self.rows.stored)]
        file["stimulus_id"] = ids
        rows = match_rows(self.targets.stimulus_ids, ids)
        for name in self.names:
            source = self.targets[name]
            out = file.create_dataset(dataset_name(name), (len(ids), *source.shape[1:]), source.dtype)
            for positions, values in blocks(self.targets, name, rows, source.dtype):
                out[positions[0] : positions[-1] + 1] = values.reshape(-1, *source.shape[1:])

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a file written by `save`; the targets stay on disk.  DecodingError if it is not one."""
        with store.opened(path) as file:
            group = file["decoder"]
            decoder = cls(store.read_params(group))
            decoder.x = store.read_array(group, "betas", None, None)
            n, p = decoder.x.shape
            decoder.beta_mean = store.read_array(group, "beta_mean", p)
            decoder.stimulus_ids = store.read_array(group, "stimulus_ids", n)
            u = store.read_array(group, "u", n, None)
            decoder.spectrum = solver.Spectrum(u, store.read_array(group, "s", u.shape[1]))
            decoder.geometry = Geometry.read(group["geometry"], p)
            decoder.accuracy = store.read_fits(group)
        decoder._use_saved_targets(path)
        return decoder

    def _use_saved_targets(self, path: str | Path) -> None:
        """Stream the targets from the decoder's own file, if they are those that it was fitted to."""
        targets = TargetFile(path)
        try:
            self.use_targets(targets)
            for name, fit in self.accuracy.items():
                if (shape := target_shape(targets, name)) != fit.shape:
                    raise DecodingError(
                        f"{path} must have targets {name} of shape {fit.shape}, got {shape}. {store.REMEDY}"
                    )
        except UserError:
            targets.close()
            raise

    def close(self) -> None:
        """Close the file that a loaded decoder streams its targets from."""
        if isinstance(self.targets, TargetFile):
            self.targets.close()


def _chosen(present: tuple[str, ...], names: Sequence[str] | None) -> dict[str, int]:
    """Targets to fit, and the place of each among all: the scored columns do not depend on what else is fitted."""
    unknown = sorted(set(names or ()) - set(present))
    if unknown:
        raise DecodingError(f"targets to fit must be among {present}, got {unknown}.")
    return {name: k for k, name in enumerate(present) if names is None or name in names}
