"""Which voxels and ROIs carried each decoded target: the exact additive split of the ridge prediction.

The prediction is a sum over voxels, ŷ'_i = Σ_v x_iv W_v (primes: minus the training mean; x likewise).  So

- where the true target y is known, voxel v's share is the product measure (method.md eq. 31)
  Σ_i x_iv W_v · (2 y'_i - ŷ'_i) / Σ_i ‖y'_i‖², and all shares sum to R² = 1 - Σ ‖y_i - ŷ_i‖² / Σ ‖y'_i‖²,
  whose baseline is the training mean;
- where it is not (a new scan), it is x_iv W_v · ŷ'_i / ‖ŷ'_i‖² (method.md eq. 32), which sums to 1 for every
  stimulus, and the map is the mean over stimuli.

The weights W (voxels x targets) are never formed.  The un-aligned prediction is split: the spread that
alignment gives to z comes from no voxel.  Negative shares are real: such a voxel cancels what others add.
Product measure: Pratt 1987; himalaya's `r2_score_split`.
"""

from collections.abc import Sequence

import numpy as np

from napari_neuraldiffuser.core.attribution import maps
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.decoder import Decoder, LinearDecoder
from napari_neuraldiffuser.core.decoding.targets import gather, is_constant, match_rows
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams

PRODUCT, PREDICTION = "product-measure", "prediction-share"


def additive(
    decoder: Decoder,
    betas: Responses,
    rois: RegionFamily | Sequence[RegionFamily],
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """Split a linear decoder's prediction for `betas` over voxels and ROIs; `attribution.map` has the arguments.

    Raises
    ------
    ContributionError
        If the decoder is not linear, stimuli or targets are missing, or ROIs of one family overlap.
    """
    if not isinstance(decoder, LinearDecoder):
        raise maps.ContributionError(
            "decoder must be linear for the additive split, got one that is not. Choose another method."
        )
    x = decoder.centre(betas)
    similarity = decoder.similarity(x)
    groups = maps.roi_masks(rois, betas)
    truth = _Truth(decoder, betas, targets) if targets is not None else None
    parts = {}
    for k, name in enumerate(decoder.names):
        parts[name] = _split(decoder, name, (x, similarity), groups, truth)
        if progress:
            progress(k + 1, len(decoder.names), f"contribution {name}")
    return maps.collect(parts, groups, betas, params, PREDICTION if truth is None else PRODUCT)


class _Truth:
    """True targets of the test stimuli, minus the training mean."""

    def __init__(self, decoder: LinearDecoder, betas: Responses, targets: Targets) -> None:
        missing = [name for name in decoder.names if name not in set(targets)]
        if missing:
            raise maps.ContributionError(
                f"targets must have the decoder's targets {decoder.names}, got none of {missing}. "
                "Extract them with the layers of the training targets."
            )
        if not np.isin(betas.stimulus_ids, targets.stimulus_ids).any():
            raise maps.ContributionError(
                "betas and targets must have stimuli in common, got none. Give the targets of these stimuli, "
                "or no targets to have shares of the prediction."
            )
        self.decoder, self.targets = decoder, targets
        self.rows = match_rows(targets.stimulus_ids, betas.stimulus_ids)

    def deviations(self, name: str, dtype: np.dtype) -> np.ndarray:
        """y' (m, T) of one target."""
        wanted, have = self.decoder.accuracy[name].shape, tuple(self.targets[name].shape[1:])
        if wanted != have:
            raise maps.ContributionError(
                f"targets[{name!r}] must have the decoder's shape {wanted}, got {have}. Extract them with its models."
            )
        y = gather(self.targets, name, self.rows, dtype) - self.decoder.accuracy[name].mean.astype(dtype)
        if not np.isfinite(y).all():
            raise maps.ContributionError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract them again.")
        return y


def _split(
    decoder: LinearDecoder,
    name: str,
    x_and_similarity: tuple[np.ndarray, np.ndarray],
    groups: maps.RoiMasks,
    truth: _Truth | None,
) -> maps.Part:
    """Voxel and ROI numerators x_iv W_v · q_i, with q = 2 y' - ŷ' (truth known) or ŷ' / ‖ŷ'‖² (not).

    Where nothing varies there is nothing to split, and the part is undefined; a row that is predicted to be the mean
    counts nowhere.
    """
    x, similarity = x_and_similarity
    predicted = decoder.deviations(name, similarity)
    fit = decoder.accuracy[name]
    if truth is None:
        energies = _energies(predicted)
        if fit.constant or not energies.any():
            return groups.undefined(x)
        denominators, total = (energies > 0).astype(float), 1.0
        q = predicted / np.where(energies > 0, energies, 1.0)[:, None].astype(predicted.dtype)
    else:
        y = truth.deviations(name, x.dtype)
        denominators = _energies(y)
        whole = float(denominators.sum())
        if is_constant(whole, fit.mean, len(y)):
            return groups.undefined(x)
        q, total = 2 * y - predicted, 1.0 - float(_energies(y - predicted).sum()) / whole
    numerators = x * decoder.pull_back(name, q)  # (m, p)
    voxels = numerators.sum(0, dtype=np.float64) / denominators.sum()
    return maps.Part(voxels, groups.sums(numerators), denominators, total)


def _energies(values: np.ndarray) -> np.ndarray:
    """‖row‖² of values (m, T), (m,) float64."""
    return np.einsum("ij,ij->i", values, values, dtype=np.float64)
