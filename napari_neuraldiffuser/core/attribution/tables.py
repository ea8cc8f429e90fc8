"""ROI tables of contribution maps: partitions of the voxels, ratios and their bootstrap standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.params import ContributionParams


class ContributionError(UserError):
    """Betas, ROIs or targets do not allow a contribution map; the message names what, rule and remedy."""


@dataclass(frozen=True)
class RoiMasks:
    """ROIs of some families as voxel masks: `names` [(family, roi)], `masks` (rois, p) bool.

    Every family is a partition of the voxels: its labels, and "outside <family>".
    """

    names: list[tuple[str, str]]
    masks: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values (m, p) over the voxels of each ROI, (m, rois) float64."""
        # one ROI at a time: a float64 copy of all voxels would be the largest array of the whole computation
        return np.stack([values[:, mask].sum(1, dtype=np.float64) for mask in self.masks], axis=1)


def roi_masks(rois: RegionFamily | Sequence[RegionFamily], betas: Responses) -> RoiMasks:
    """Masks of one Rois or a sequence of them.

    Raises
    ------
    ContributionError
        If there is no family, a family is given twice, or ROIs of one family overlap.
    """
    families = list(rois) if isinstance(rois, Sequence) else [rois]
    if not families:
        raise ContributionError("rois must have at least one family, got none.")
    names: list[tuple[str, str]] = []
    masks = []
    for family in families:
        if any(family.name == known for known, _ in names):
            raise ContributionError(f"rois must have every family once, got {family.name!r} twice.")
        for roi, mask in _partition(family, betas).items():
            names.append((family.name, roi))
            masks.append(mask)
    return RoiMasks(names, np.stack(masks))


def _partition(family: RegionFamily, betas: Responses) -> dict[str, np.ndarray]:
    masks = {roi: np.asarray(mask, dtype=bool) for roi, mask in family.of(betas).items()}
    p = betas.data.shape[1]
    for roi, mask in masks.items():
        if mask.shape != (p,):
            raise ContributionError(f"mask of {roi!r} must have one value per voxel ({p}), got shape {mask.shape}.")
    count = np.sum(list(masks.values()), axis=0) if masks else np.zeros(p, int)
    if (count > 1).any():
        raise ContributionError(
            f"ROIs of family {family.name!r} must not overlap, got {int((count > 1).sum())} shared voxels. "
            "Give overlapping ROIs as separate families."
        )
    return masks | {f"outside {family.name}": count == 0}


def find(names: list[tuple[str, str]], roi: str, family: str | None) -> int:
    """Position of an ROI; ContributionError if it is missing or ambiguous."""
    places = [k for k, (f, r) in enumerate(names) if r == roi and family in (None, f)]
    if len(places) != 1:
        raise ContributionError(
            f"roi must be one of the table's ROIs, got {roi!r} in {len(places)} families. "
            f"Choose from {sorted({r for _, r in names})} and name the family where several have it."
        )
    return places[0]


def ratio_and_se(
    numerators: np.ndarray, denominators: np.ndarray, params: ContributionParams
) -> tuple[np.ndarray, np.ndarray]:
    """Σ_i numerators (m, k) / Σ_i denominators (m,) (method.md eq. 33), and its bootstrap standard error over stimuli
    (method.md eq. 34).

    The ratio of resampled sums is taken, not a mean of ratios.  The error of a single stimulus is NaN.
    """
    m = len(denominators)
    ratio = numerators.sum(0) / denominators.sum()
    if m < 2:
        return ratio, np.full(ratio.shape, np.nan)
    counts = np.random.default_rng(params.seed).multinomial(m, np.full(m, 1 / m), size=params.bootstrap)
    totals = counts @ denominators
    usable = totals > 0
    resampled = (counts[usable] @ numerators) / totals[usable, None]
    return ratio, resampled.std(0, ddof=1)


def table(
    groups: RoiMasks,
    numerators: dict[str, np.ndarray],
    denominators: dict[str, np.ndarray],
    params: ContributionParams,
) -> pd.DataFrame:
    """DataFrame with columns roi, target, share, se, n_voxels, family; one row per target, family and ROI."""
    family, roi = zip(*groups.names, strict=True)
    blocks = []
    for target in numerators:
        share, se = ratio_and_se(numerators[target], denominators[target], params)
        columns = {"roi": roi, "target": target, "share": share, "se": se}
        blocks.append(pd.DataFrame(columns | {"n_voxels": groups.masks.sum(1), "family": family}))
    return pd.concat(blocks, ignore_index=True)
