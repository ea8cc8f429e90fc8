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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.attribution import tables
from napari_neuraldiffuser.core.attribution.tables import ContributionError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.targets import gather, match_rows
from napari_neuraldiffuser.core.params import ContributionParams

__all__ = ["ContributionError", "ContributionMaps", "map"]

PRODUCT, PREDICTION = "product-measure", "prediction-share"


@dataclass
class ContributionMaps:
    """Shares of voxels and ROIs in the prediction of every target.

    Attributes
    ----------
    kind : str
        "product-measure" (shares sum to R²) or "prediction-share" (shares sum to 1).
    space : str
        Space of the voxels, such as "func1pt8mm".
    voxel_shares : dict of str to ndarray (p,) float64
        Share of every voxel, per target.
    totals : dict of str to float
        What the shares of a target sum to, computed from the prediction and not from the shares.
    table : pandas.DataFrame
        Columns roi, target, share, se, n_voxels, family, total, kind.  The rows of one family and target,
        "outside <family>" among them, sum to the total.  An ROI without voxels has share 0.
    per_stimulus : dict of str to ndarray (m, rois)
        Numerators per stimulus and ROI in the order of `rois`; their sum over the sum of `denominators` is
        the share.
    denominators : dict of str to ndarray (m,)
    rois : list of (family, roi)
    volumes : dict of str to nibabel image
        Shares in the betas' space, float32, 0 outside the mask.
    stimulus_ids : ndarray (m,) int
    """

    kind: str
    space: str
    voxel_shares: dict[str, np.ndarray]
    totals: dict[str, float]
    table: Any
    per_stimulus: dict[str, np.ndarray]
    denominators: dict[str, np.ndarray]
    rois: list[tuple[str, str]]
    volumes: dict[str, Any]
    stimulus_ids: np.ndarray
    params: ContributionParams

    def combined(self, rois: Sequence[str], target: str, family: str | None = None) -> tuple[float, float]:
        """Share of several disjoint ROIs together, such as V1-V3, and its bootstrap standard error.

        Raises
        ------
        ContributionError
            If an ROI is not in the table, or is in several families and `family` does not say which.
        """
        columns = [tables.find(self.rois, roi, family) for roi in rois]
        numerator = self.per_stimulus[target][:, columns].sum(1, keepdims=True)
        share, se = tables.ratio_and_se(numerator, self.denominators[target], self.params)
        return float(share[0]), float(se[0])

    def save(self, folder: str | Path, prefix: str) -> list[Path]:
        """Write one NIfTI per target and one table, each atomically, and return their paths.

        `<prefix>_space-<space>_target-<target>_contribution.nii.gz` and `<prefix>_contribution.tsv`.
        """
        import nibabel

        folder = Path(folder)
        paths = []
        for target, image in self.volumes.items():
            paths.append(folder / f"{prefix}_space-{self.space}_target-{target}_contribution.nii.gz")
            with atomic_path(paths[-1]) as temporary:
                nibabel.save(image, temporary)
        paths.append(folder / f"{prefix}_contribution.tsv")
        with atomic_path(paths[-1]) as temporary:
            self.table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
        return paths


def map(
    decoder: Any,
    betas: Any,
    rois: Any,
    targets: Any = None,
    params: ContributionParams | None = None,
    progress: Progress | None = None,
) -> ContributionMaps:
    """Split the decoder's prediction for `betas` over voxels and ROIs.

    Parameters
    ----------
    decoder : RidgeDecoder
        Fitted.
    betas : Betas
        Data (m, p) of the decoder's voxels.
    rois : Rois or sequence of Rois
        One or more families.  ROIs of different families may overlap.
    targets : TargetFile or Embeddings, optional
        True targets of the stimuli: gives the product measure.  Without them, shares of the prediction.

    Raises
    ------
    ContributionError
        If stimuli or targets are missing, ROIs of one family overlap, or a target or prediction equals the
        training mean.
    DecodingError
        If the betas do not fit the decoder.
    """
    params = params or ContributionParams()
    x = decoder.centre(betas)
    similarity = decoder.similarity(x)
    groups = tables.roi_masks(rois, betas)
    truth = _Truth(decoder, betas, targets) if targets is not None else None
    parts = {}
    for k, name in enumerate(decoder.names):
        parts[name] = _split(decoder, name, (x, similarity), groups, truth)
        if progress:
            progress(k + 1, len(decoder.names), f"contribution {name}")
    return _collect(parts, groups, betas, params, PREDICTION if truth is None else PRODUCT)


class _Truth:
    """True targets of the test stimuli, minus the training mean."""

    def __init__(self, decoder: Any, betas: Any, targets: Any) -> None:
        missing = [name for name in decoder.names if name not in set(targets)]
        if missing:
            raise ContributionError(
                f"targets must have the decoder's targets {decoder.names}, got none of {missing}. "
                "Extract them with the layers of the training targets."
            )
        if not np.isin(betas.stimulus_ids, targets.stimulus_ids).any():
            raise ContributionError(
                "betas and targets must have stimuli in common, got none. Give the targets of these stimuli, "
                "or no targets to have shares of the prediction."
            )
        self.decoder, self.targets = decoder, targets
        self.rows = match_rows(targets.stimulus_ids, betas.stimulus_ids)

    def deviations(self, name: str) -> np.ndarray:
        """y' (m, T) of one target."""
        wanted, have = self.decoder.accuracy[name].shape, tuple(self.targets[name].shape[1:])
        if wanted != have:
            raise ContributionError(
                f"targets[{name!r}] must have the decoder's shape {wanted}, got {have}. Extract them with its models."
            )
        dtype = self.decoder.x.dtype
        y = gather(self.targets, name, self.rows, dtype) - self.decoder.accuracy[name].mean.astype(dtype)
        if not np.isfinite(y).all():
            raise ContributionError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract them again.")
        return y


@dataclass(frozen=True)
class _Part:
    """One target: shares (p,), ROI numerators (m, rois), denominators (m,), and what the shares sum to."""

    voxels: np.ndarray
    numerators: np.ndarray
    denominators: np.ndarray
    total: float


def _split(decoder: Any, name: str, x_and_similarity: tuple, groups: tables.RoiMasks, truth: _Truth | None) -> _Part:
    """Voxel and ROI numerators x_iv W_v · q_i, with q = 2 y' - ŷ' (truth known) or ŷ' / ‖ŷ'‖² (not)."""
    x, similarity = x_and_similarity
    predicted = decoder.deviations(name, similarity)
    if truth is None:
        energy = _positive(_energies(predicted), f"decoded {name}")
        q, denominators, total = predicted / energy[:, None].astype(predicted.dtype), np.ones(len(x)), 1.0
    else:
        y = truth.deviations(name)
        denominators = _energies(y)
        whole = float(_positive(denominators.sum(keepdims=True), f"true {name}")[0])
        q, total = 2 * y - predicted, 1.0 - float(_energies(y - predicted).sum()) / whole
    numerators = x * decoder.pull_back(name, q)  # (m, p)
    voxels = numerators.sum(0, dtype=np.float64) / denominators.sum()
    return _Part(voxels, groups.sums(numerators), denominators, total)


def _energies(values: np.ndarray) -> np.ndarray:
    """‖row‖² of values (m, T), (m,) float64."""
    return np.einsum("ij,ij->i", values, values, dtype=np.float64)


def _positive(energy: np.ndarray, what: str) -> np.ndarray:
    if not (energy > 0).all():
        raise ContributionError(
            f"{what} must differ from its training mean, got none in {int((energy <= 0).sum())} rows. "
            "There is nothing to split; check the betas and the penalties tried."
        )
    return energy


def _collect(
    parts: dict[str, _Part], groups: tables.RoiMasks, betas: Any, params: ContributionParams, kind: str
) -> ContributionMaps:
    totals = {name: part.total for name, part in parts.items()}
    numerators = {name: part.numerators for name, part in parts.items()}
    denominators = {name: part.denominators for name, part in parts.items()}
    return ContributionMaps(
        kind=kind,
        space=str(betas.space),
        voxel_shares={name: part.voxels for name, part in parts.items()},
        totals=totals,
        table=tables.table(groups, numerators, denominators, params).assign(
            total=lambda rows: rows["target"].map(totals), kind=kind
        ),
        per_stimulus=numerators,
        denominators=denominators,
        rois=groups.names,
        volumes={name: _volume(betas, part.voxels) for name, part in parts.items()},
        stimulus_ids=np.array(betas.stimulus_ids),
        params=params,
    )


def _volume(betas: Any, values: np.ndarray) -> Any:
    image = betas.to_volume(values.astype(np.float32))
    image.set_data_dtype(np.float32)
    image.header.set_xyzt_units("mm")
    return image
