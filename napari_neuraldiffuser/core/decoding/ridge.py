"""RidgeDecoder: betas to embeddings by ridge regression, one penalty per target group, block of columns or column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import array_digest
from napari_neuraldiffuser.core.base.hdf5 import creating_hdf5, reading_hdf5
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding import alignment, kept, solver, store
from napari_neuraldiffuser.core.decoding.checks import check_room_to_fit, check_room_to_predict, finite
from napari_neuraldiffuser.core.decoding.compact import Compact, compact, said
from napari_neuraldiffuser.core.decoding.decoder import DecodingError, TargetFit
from napari_neuraldiffuser.core.decoding.fitting import Fitting, penalty_parts
from napari_neuraldiffuser.core.decoding.geometry import Geometry, checked_data, checked_training
from napari_neuraldiffuser.core.decoding.products import TargetMatrix, checked_device, device_here, product
from napari_neuraldiffuser.core.decoding.targets import chosen_names, match_rows, target_names, target_shape
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile, Targets
from napari_neuraldiffuser.core.params import DecodingParams

FEWEST_STIMULI = 3
LARGE = 10**7
"""Betas of so many numbers take seconds to decompose, which is told."""

OF_BETAS = "betas_digest"
"""Attribute of a file of a decomposition."""


class RidgeDecoder:
    """Linear decoder from betas to the embeddings z, c and g (method.md eq. 9-13).

    The weights (voxels x targets) are never formed.  The decoder keeps the centred betas (n, p), the
    eigendecomposition of their Gram matrix and a reference to the training targets, which it streams when it
    predicts; what a saved decoder has of them, `params.keep_targets` says.  With `params.ridge_rank` it keeps the
    leading directions of its predictions instead of all three.

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
        self.compacted: dict[str, Compact] = {}
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        """Targets that the decoder predicts, in the project's order."""
        return tuple(self.accuracy)

    @property
    def device(self) -> str:
        """Where the decoder predicts."""
        return device_here(self.params.decoder_device)

    def fit(
        self,
        train: Responses,
        targets: Targets,
        progress: Progress | None = None,
        names: Sequence[str] | None = None,
        spectrum: str | Path | None = None,
    ) -> Self:
        """Choose penalties by leaving one stimulus out, on training data only.

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
        spectrum : path, optional
            File that `decompose` made of the same betas, which parts share; made anew where None.

        Raises
        ------
        DecodingError
            If a stimulus has no targets, a value is not finite, fewer than 3 stimuli are given, the spectrum is of
            other betas, or there is no such device.
        """
        checked_device(self.params.decoder_device)
        data = checked_training(train, FEWEST_STIMULI)
        check_room_to_fit(data)
        groups = solver.stimulus_groups(train.stimulus_ids)
        self.geometry = Geometry.of(train)
        self.stimulus_ids = np.array(train.stimulus_ids, dtype=np.int64)
        self.beta_mean = data.mean(0, dtype=np.float64)
        self.dtype = data.dtype
        self.x = (data - self.beta_mean).astype(data.dtype)
        self.use_targets(targets)
        chosen = chosen_names(target_names(targets), names)
        self.spectrum = self._decomposed(progress) if spectrum is None else _read_spectrum(Path(spectrum), self.x)
        fitting = Fitting(self.spectrum, groups, self.targets, self.rows, self.params)
        self.accuracy, self.compacted = {}, {}
        for done, (name, k) in enumerate(chosen.items(), 1):
            self.accuracy[name] = fitting.fit(name, k)
            if progress:
                progress(done, len(chosen), f"ridge {name}")
        if self.params.ridge_rank:
            self._reduce(progress)
        return self

    def _decomposed(self, progress: Progress | None) -> solver.Spectrum:
        if progress and self.x.size > LARGE:
            progress(0, 1, f"decomposing betas, {len(self.x)} x {self.x.shape[1]}")
        return solver.decompose(self.x, self.params.decoder_device)

    def _reduce(self, progress: Progress | None) -> None:
        """Keep the leading directions of every target, from the exact predictions."""
        reduced = {}
        for done, name in enumerate(self.names, 1):
            reduced[name] = compact(self, name, self.x, self.params.ridge_rank, self.params.seed)
            if progress:
                progress(done, len(self.names), f"reducing {name}")
        self.compacted = reduced

    def use_targets(self, targets: Targets) -> None:
        """Take the training targets from `targets`, matched to the training rows by stimulus."""
        self.targets = targets
        self.attrs = dict(getattr(targets, "attrs", {}))
        self.rows = match_rows(targets.stimulus_ids, self.stimulus_ids)

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
        return (checked_data(betas) - self.beta_mean).astype(self.dtype)

    def similarity(self, x: np.ndarray) -> np.ndarray:
        """Inner products (m, n) of centred betas x (m, p) with the training betas, K_test; x itself when reduced."""
        return x if self.compacted else product(x, self.x.T, self.device)

    def deviations(self, name: str, similarity: np.ndarray) -> np.ndarray:
        """Prediction minus training mean, K_test (K + αI)⁻¹ Y, (m, T), before any alignment (method.md eq. 10)."""
        return self._deviations(name, similarity, self._smoothers([name], similarity))

    def _smoothers(self, names: Sequence[str], similarity: np.ndarray) -> dict[float, np.ndarray]:
        """K_test (K + αI)⁻¹ (m, n) at every penalty of some targets, which often have the same."""
        if self.compacted:
            return {}
        alphas = sorted({alpha for name in names for alpha, _ in penalty_parts(self.accuracy[name])})
        smoothers = solver.apply_inverses(self.spectrum, alphas, similarity.T, self.device)
        return {alpha: smoother.T for alpha, smoother in zip(alphas, smoothers, strict=True)}

    def _deviations(self, name: str, similarity: np.ndarray, smoothers: dict[float, np.ndarray]) -> np.ndarray:
        if self.compacted:
            return self.compacted[name].deviations(similarity, self.device)
        parts = penalty_parts(self.accuracy[name])
        return self._matrix(name).weighted([(smoothers[alpha], columns) for alpha, columns in parts])

    def pull_back(self, name: str, q: np.ndarray) -> np.ndarray:
        """W q for every row of q (m, T), W (p, T) being the weights that are never formed: (m, p)."""
        device = self.device
        if self.compacted:
            return self.compacted[name].pull_back(q, device)
        parts = penalty_parts(self.accuracy[name])
        products = self._matrix(name).times([(q[:, columns], columns) for _, columns in parts])
        dual = [
            solver.apply_inverses(self.spectrum, [alpha], each, device)[0]
            for (alpha, _), each in zip(parts, products, strict=True)
        ]
        return product(sum(dual[1:], start=dual[0]).T, self.x, device)

    def _matrix(self, name: str) -> TargetMatrix:
        mean, device = self.accuracy[name].mean, self.device
        return TargetMatrix(self.targets, name, self.rows, mean, self.dtype, device)

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
        check_room_to_predict(len(similarity), self.accuracy)
        out, smoothers = {}, self._smoothers(self.names, similarity)
        for k, name in enumerate(self.names):
            out[name] = self._predicted(name, similarity, smoothers, align)
            if progress:
                progress(k + 1, len(self.names), f"decode {name}")
        attrs = self.attrs | alignment.attrs(self.accuracy, self.params, align)
        if self.compacted:
            attrs |= {"compact": self.compact_said()}
        return Embeddings(out.pop("z"), out.pop("c"), out, np.array(betas.stimulus_ids), attrs)

    def predict_target(self, name: str, betas: Responses, align: str | None = None) -> np.ndarray:
        """One target alone, (m, ...) float32, as `predict` gives it."""
        align = self.params.but(align=align or self.params.align).align
        x = self.centre(betas)
        if name not in self.names:
            raise DecodingError(f"target must be among those of the decoder, {self.names}, got {name!r}.")
        similarity = self.similarity(x)
        return self._predicted(name, similarity, self._smoothers([name], similarity), align)

    def _predicted(
        self, name: str, similarity: np.ndarray, smoothers: dict[float, np.ndarray], align: str
    ) -> np.ndarray:
        fit = self.accuracy[name]
        values = self._deviations(name, similarity, smoothers)
        values += fit.mean.astype(values.dtype)
        values = alignment.apply(values, alignment.how(name, self.params, align), fit.alignment)
        return finite(name, values).reshape(-1, *fit.shape)

    def compact_said(self) -> str:
        """How many directions a reduced decoder keeps, and how far it is from the exact one, in words."""
        return said(self.params.ridge_rank, {name: each.error for name, each in self.compacted.items()})

    def arrays(self) -> list[np.ndarray]:
        """Centred betas, their mean and spectrum, and the fits of the targets; what is kept, when reduced."""
        fits = [array for fit in self.accuracy.values() for array in fit.arrays()]
        if self.compacted:
            return [
                self.beta_mean,
                *fits,
                *(array for c in self.compacted.values() for array in (c.projection, c.basis)),
            ]
        return [self.x, self.beta_mean, self.spectrum.s, *fits]

    def save(self, path: str | Path, keep: str | None = None) -> None:
        """Write everything to one HDF5 file, atomically.

        Parameters
        ----------
        path : path
        keep : {"copy", "half", "refer"}, optional
            What the file has of the training targets; `params.keep_targets` where None, of which "auto" means a copy.

        Raises
        ------
        DecodingError
            If the decoder is not fitted, or cannot keep the targets in that way.
        """
        if not self.accuracy:
            raise DecodingError("decoder must be fitted to be saved, got an unfitted one. Call fit() first.")
        keep = keep or self.params.keep_targets
        with creating_hdf5(path) as file:
            file.attrs.update(self.attrs)
            if not self.compacted and keep != "refer":
                kept.copy(file, self.targets, self.rows, self.names, keep == "half")
            group = store.create_group(file, "ridge", self)
            group["beta_mean"] = self.beta_mean
            # betas without geometry have None here, which is left out
            group.update({f"geometry/{field}": v for field, v in vars(self.geometry).items() if v is not None})
            group["stimulus_ids"] = self.stimulus_ids
            if self.compacted:
                self._save_compacted(group)
                return
            if keep == "refer":
                kept.refer(group, self.targets, self.names, Path(path))
            group["betas"] = self.x
            group["u"], group["s"] = self.spectrum.u, self.spectrum.s

    def _save_compacted(self, group: h5py.Group) -> None:
        for name, each in self.compacted.items():
            out = group.create_group(f"fits/{name}/compact")
            out["projection"], out["basis"] = each.projection, each.basis
            out.attrs["error"] = each.error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a file written by `save`; the targets stay on disk.  DecodingError if it is not one."""
        with store.opened(path) as file:
            group = file["decoder"]
            decoder = cls(store.read_params(group))
            decoder.beta_mean = store.read_array(group, "beta_mean", None)
            decoder.geometry = Geometry.read(group["geometry"], len(decoder.beta_mean))
            decoder.accuracy = store.read_fits(group)
            decoder.stimulus_ids = store.read_array(group, "stimulus_ids", None)
            if decoder.params.ridge_rank:
                decoder._read_compacted(group)
                decoder.attrs = dict(file.attrs)
                return decoder
            decoder._read_exact(group)
            targets = kept.opened(group, Path(path), decoder.names)
        decoder._use_saved_targets(targets)
        return decoder

    def _read_compacted(self, group: h5py.Group) -> None:
        for name, fit in self.accuracy.items():
            part, p = group[f"fits/{name}/compact"], len(self.beta_mean)
            projection = store.read_array(part, "projection", p, None)
            basis = store.read_array(part, "basis", projection.shape[1], fit.mean.size)
            self.compacted[name] = Compact(projection, basis, float(part.attrs["error"]))
            self.dtype = projection.dtype

    def _read_exact(self, group: h5py.Group) -> None:
        self.x = store.read_array(group, "betas", None, len(self.beta_mean))
        n, self.dtype = len(self.x), self.x.dtype
        if len(self.stimulus_ids) != n:
            self.stimulus_ids = store.read_array(group, "stimulus_ids", n)
        u = store.read_array(group, "u", n, None)
        s = store.read_array(group, "s", u.shape[1])
        self.spectrum = solver.Spectrum(u.astype(self.dtype, copy=False), s)

    def _use_saved_targets(self, targets: TargetFile) -> None:
        """Stream the targets of the decoder's own file or another, if they are those that it was fitted to."""
        try:
            self.use_targets(targets)
            for name, fit in self.accuracy.items():
                if (shape := target_shape(targets, name)) != fit.shape:
                    raise DecodingError(
                        f"{targets.path} must have targets {name} of shape {fit.shape}, got {shape}. {store.REMEDY}"
                    )
        except UserError:
            targets.close()
            raise

    def close(self) -> None:
        """Close the file that a loaded decoder streams its targets from."""
        if not self.compacted and isinstance(self.targets, TargetFile):
            self.targets.close()


def decompose(train: Responses, path: str | Path, params: DecodingParams | None = None) -> Path:
    """Write the eigendecomposition of betas to a file, for decoders that are fitted to parts of the targets.

    Raises
    ------
    DecodingError
        If a value is not finite, or the betas do not vary.
    """
    data = checked_training(train, FEWEST_STIMULI)
    check_room_to_fit(data)
    x = (data - data.mean(0, dtype=np.float64)).astype(data.dtype)
    spectrum = solver.decompose(x, checked_device((params or DecodingParams()).decoder_device))
    with creating_hdf5(path) as file:
        file.attrs[OF_BETAS] = array_digest(x)
        file["u"], file["s"] = spectrum.u, spectrum.s
    return Path(path)


def _read_spectrum(path: Path, x: np.ndarray) -> solver.Spectrum:
    """What `decompose` wrote, if it is of the centred betas x (n, p)."""
    with reading_hdf5(path, "a decomposition of betas", DecodingError) as file:
        if file.attrs.get(OF_BETAS) != array_digest(x):
            raise DecodingError(f"{path} must be the decomposition of these betas, got that of others. Make it again.")
        u = store.read_array(file, "u", len(x), None)
        return solver.Spectrum(u, store.read_array(file, "s", u.shape[1]))
