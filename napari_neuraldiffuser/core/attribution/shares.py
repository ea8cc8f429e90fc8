"""Shares of voxels and ROIs in what a decoder explains, however its prediction is distributed over voxels.

The additive split and integrated gradients distribute the same scalar of every stimulus i, q_i · ŷ'_i, over its voxels;
primes: minus the prediction for the mean betas, which for a linear decoder is the training mean.

- Where the true target y is known, q = 2 y' - ŷ': the voxels' shares over Σ_i ‖y'_i‖² are the product measure
  (method.md eq. 38) and sum to R² = 1 - Σ ‖y_i - ŷ_i‖² / Σ ‖y'_i‖².
- Where it is not (a new scan), q = ŷ' / ‖ŷ'‖² (method.md eq. 39): they sum to 1 for every stimulus, and the map is the
  mean over stimuli.

Negative shares are real: such a voxel cancels what others add.  Product measure: Pratt 1987; himalaya's
`r2_score_split`.
"""

from collections.abc import Callable

import numpy as np

from napari_neuraldiffuser.core.attribution import maps
from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.decoding.decoder import Decoder, TargetFit
from napari_neuraldiffuser.core.decoding.targets import gather, is_constant, match_rows
from napari_neuraldiffuser.core.networks.embeddings import WITHOUT, Targets

PRODUCT, PREDICTION = "product-measure", "prediction-share"

Distribute = Callable[[np.ndarray], np.ndarray]
"""From q (m, T) to what every voxel adds to q_i · ŷ'_i: (m, p)."""


class Truth:
    """True targets of the stimuli of some betas.

    Attributes
    ----------
    lacking : list of str
        The target c where its file says that the images have no captions: its shares are undefined.
    """

    def __init__(self, decoder: Decoder, betas: Responses, targets: Targets) -> None:
        missing = [name for name in decoder.names if name not in set(targets)]
        if missing and not (missing == ["c"] and targets.attrs.get(WITHOUT)):
            raise maps.ContributionError(
                f"targets must have the decoder's targets {decoder.names}, got none of {missing}. "
                "Extract them with the layers of the training targets."
            )
        if not np.isin(betas.stimulus_ids, targets.stimulus_ids).any():
            raise maps.ContributionError(
                "betas and targets must have stimuli in common, got none. Give the targets of these stimuli, "
                "or no targets to have shares of the prediction."
            )
        self.decoder, self.targets, self.lacking = decoder, targets, missing
        self.rows = match_rows(targets.stimulus_ids, betas.stimulus_ids)

    def minus(self, name: str, baseline: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """y' (m, T) of one target: true values minus a `baseline` (T,)."""
        wanted, have = self.decoder.accuracy[name].shape, tuple(self.targets[name].shape[1:])
        if wanted != have:
            raise maps.ContributionError(
                f"targets[{name!r}] must have the decoder's shape {wanted}, got {have}. Extract them with its models."
            )
        y = gather(self.targets, name, self.rows, dtype) - baseline.astype(dtype)
        if not np.isfinite(y).all():
            raise maps.ContributionError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract them again.")
        return y


def kind_of(truth: Truth | None) -> str:
    """What the shares are fractions of."""
    return PREDICTION if truth is None else PRODUCT


def of_prediction(
    predicted: np.ndarray, fit: TargetFit, x: np.ndarray, groups: maps.RoiMasks, distribute: Distribute
) -> maps.Part:
    """Shares of the prediction ŷ' (m, T) itself, for betas x (m, p); a row that is predicted to be the mean counts
    nowhere, and where no row varies the part is undefined."""
    energies = _energies(predicted)
    if fit.constant or not energies.any():
        return groups.undefined(x)
    q = predicted / np.where(energies > 0, energies, 1.0)[:, None].astype(predicted.dtype)
    return _part(distribute(q), (energies > 0).astype(float), 1.0, groups)


def of_explained(
    predicted: np.ndarray, y: np.ndarray, fit: TargetFit, x: np.ndarray, groups: maps.RoiMasks, distribute: Distribute
) -> maps.Part:
    """Shares of what the prediction ŷ' (m, T) explains of the true y' (m, T); undefined where y does not vary."""
    denominators = _energies(y)
    whole = float(denominators.sum())
    if is_constant(whole, fit.mean, len(y)):
        return groups.undefined(x)
    total = 1.0 - float(_energies(y - predicted).sum()) / whole
    return _part(distribute(2 * y - predicted), denominators, total, groups)


def _part(numerators: np.ndarray, denominators: np.ndarray, total: float, groups: maps.RoiMasks) -> maps.Part:
    voxels = numerators.sum(0, dtype=np.float64) / denominators.sum()
    return maps.Part(voxels, groups.sums(numerators), denominators, total)


def _energies(values: np.ndarray) -> np.ndarray:
    """‖row‖² of values (m, T), (m,) float64."""
    return np.einsum("ij,ij->i", values, values, dtype=np.float64)
