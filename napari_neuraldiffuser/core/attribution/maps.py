"""Contribution maps: what every attribution method gives, their tables of ROIs, and the files they become."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.attribution.significance import Null, p_values
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.names import KINDS
from napari_neuraldiffuser.core.params import ContributionParams

OUTSIDE = "outside "
"""Begins the name of what lies in no region of a family."""


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

    @property
    def regions(self) -> np.ndarray:
        """Which are regions (rois,) bool, and not what lies outside of a family."""
        return np.array([not roi.startswith(OUTSIDE) for _, roi in self.names])

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Of every voxel (p,) the value (rois,) of largest size of the regions that it lies in, 0 of those in none."""
        out = np.zeros(self.masks.shape[1])
        for mask, value in zip(self.masks[self.regions], values[self.regions], strict=True):
            out[mask & (np.abs(out) < abs(value))] = value
        return out

    def undefined(self, x: np.ndarray) -> "Part":
        """The part of a target that has nothing to split, for betas x (m, p)."""
        m, p = x.shape
        return Part(np.full(p, np.nan), np.full((m, len(self.masks)), np.nan), np.ones(m), np.nan)


@dataclass(frozen=True)
class Part:
    """One target: shares (p,), ROI numerators (m, rois), denominators (m,), and what the shares sum to; NaN where
    there is nothing to split.

    `errors` is what the bootstrap's standard errors are multiplied by, `beside` further columns (rois,) of the table,
    and `null` what its p values are made of.
    """

    voxels: np.ndarray
    numerators: np.ndarray
    denominators: np.ndarray
    total: float
    errors: float = 1.0
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    null: Null | None = None

    def tested(self, null: Null) -> "Part":
        """The same, with its null."""
        return replace(self, null=null)


@dataclass
class ContributionMaps:
    """Shares of voxels and ROIs in the prediction of every target.

    Attributes
    ----------
    kind : str
        What a share is: "product-measure" (they sum to R²), "prediction-share" and "pattern-energy" (they sum to 1),
        "roi-only" (R² of the ROI alone), "lost-without" (R² that is lost without it).
    space : str
        Space of the voxels, such as "func1pt8mm".
    voxel_shares : dict of str to ndarray (p,) float64
        Share of every voxel, per target.
    totals : dict of str to float
        What the shares of a target sum to, computed from the prediction and not from the shares.
    table : pandas.DataFrame
        Columns roi, target, share, se, n_voxels, family, total, kind.  Where the kind is of shares, the rows of one
        family and target, "outside <family>" among them, sum to the total; of decoders fitted anew it is the R² of all
        voxels.  An ROI without voxels has share 0.  Share, se and total are NaN for a target that does not vary.  With
        `roi_permutations` also p, p_fdr and p_max; `random_mean`, `random_sd`, `random_z` and `random_p` where random
        sets of voxels were drawn; `shared` of `unique`.
    per_stimulus : dict of str to ndarray (m, rois)
        Numerators per stimulus and ROI in the order of `rois`; their sum over the sum of `denominators` is
        the share.
    denominators : dict of str to ndarray (m,)
    rois : list of (family, roi)
    volumes : dict of str to nibabel image
        Shares in the betas' space, float32, 0 outside the mask; none of a target that does not vary.
    surfaces : dict of str to dict of str to nibabel image
        The same of betas on a surface, for which there are no volumes: target, then hemisphere.
    stimulus_ids : ndarray (m,) int
    """

    kind: str
    space: str
    voxel_shares: dict[str, np.ndarray]
    totals: dict[str, float]
    table: pd.DataFrame
    per_stimulus: dict[str, np.ndarray]
    denominators: dict[str, np.ndarray]
    rois: list[tuple[str, str]]
    volumes: dict[str, Any]
    stimulus_ids: np.ndarray
    params: ContributionParams
    surfaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: float = 1.0

    @property
    def mapped(self) -> list[str]:
        """The targets that have a map."""
        return [*self.volumes, *self.surfaces]

    def combined(self, rois: Sequence[str], target: str, family: str | None = None) -> tuple[float, float]:
        """Share of several disjoint ROIs together, such as V1-V3, and its bootstrap standard error.

        Raises
        ------
        ContributionError
            If an ROI is not in the table, or is in several families and `family` does not say which.
        """
        columns = [_find(self.rois, roi, family) for roi in rois]
        numerator = self.per_stimulus[target][:, columns].sum(1, keepdims=True)
        share, se = ratio_and_se(numerator, self.denominators[target], self.params)
        return float(share[0]), float(se[0]) * self.errors

    def save(self, folder: str | Path, prefix: str) -> list[Path]:
        """Write one NIfTI per target that has shares and one table, each atomically, and return their paths.

        `<prefix>_space-<space>_target-<target>_contribution.nii.gz` and `<prefix>_contribution.tsv`; on a surface
        `<prefix>_hemi-<L, R>_space-<space>_target-<target>_contribution.shape.gii`.
        """
        import nibabel

        folder = Path(folder)
        paths = []
        for path, image in self._images(prefix):
            paths.append(folder / path)
            with atomic_path(paths[-1]) as temporary:
                nibabel.save(image, temporary)
        paths.append(folder / KINDS["shares"].name(sub=prefix))
        with atomic_path(paths[-1]) as temporary:
            self.table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
        return paths

    def _images(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Name and image of every map."""
        for target, image in self.volumes.items():
            yield KINDS["map"].name(sub=prefix, space=self.space, target=target), image
        for target, hemispheres in self.surfaces.items():
            for hemi, image in hemispheres.items():
                yield KINDS["surface map"].name(sub=prefix, hemi=hemi, space=self.space, target=target), image


def collect(
    parts: dict[str, Part], groups: RoiMasks, betas: Responses, params: ContributionParams, kind: str
) -> ContributionMaps:
    """The maps and the table of all targets, with standard errors by bootstrap over stimuli."""
    totals = {name: part.total for name, part in parts.items()}
    numerators = {name: part.numerators for name, part in parts.items()}
    denominators = {name: part.denominators for name, part in parts.items()}
    varying = {name: part.voxels for name, part in parts.items() if np.isfinite(part.total)}
    return ContributionMaps(
        kind=kind,
        space=str(betas.space),
        voxel_shares={name: part.voxels for name, part in parts.items()},
        totals=totals,
        table=_table(groups, parts, params, kind),
        per_stimulus=numerators,
        denominators=denominators,
        rois=groups.names,
        volumes={} if betas.on_surface else {name: _volume(betas, shares) for name, shares in varying.items()},
        stimulus_ids=np.array(betas.stimulus_ids),
        params=params,
        surfaces={name: betas.to_surface(shares) for name, shares in varying.items()} if betas.on_surface else {},
        errors=max((part.errors for part in parts.values()), default=1.0),
    )


def _volume(betas: Responses, values: np.ndarray) -> Any:
    image = betas.to_volume(values.astype(np.float32))
    image.set_data_dtype(np.float32)
    image.header.set_xyzt_units("mm")
    return image


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
    return masks | {f"{OUTSIDE}{family.name}": count == 0}


def _find(names: list[tuple[str, str]], roi: str, family: str | None) -> int:
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
    """Σ_i numerators (m, k) / Σ_i denominators (m,) (method.md eq. 40), and its bootstrap standard error over stimuli
    (method.md eq. 41).

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


def _table(groups: RoiMasks, parts: dict[str, Part], params: ContributionParams, kind: str) -> pd.DataFrame:
    """DataFrame with columns roi, target, share, se, n_voxels, family, total, kind and what the method has beside them;
    one row per target, family and ROI."""
    family, roi = zip(*groups.names, strict=True)
    blocks = []
    for target, part in parts.items():
        share, se = ratio_and_se(part.numerators, part.denominators, params)
        columns: dict[str, Any] = {"roi": roi, "target": target, "share": share, "se": se * part.errors}
        columns |= {"n_voxels": groups.masks.sum(1), "family": family, "total": part.total, "kind": kind}
        tests = p_values(part.null, groups.regions) if part.null is not None else {}
        blocks.append(pd.DataFrame(columns | dict(part.beside) | tests))
    return pd.concat(blocks, ignore_index=True)
