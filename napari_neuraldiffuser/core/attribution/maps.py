"""Contribution maps: what every attribution method gives, and the files they become."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.attribution import tables
from napari_neuraldiffuser.core.base.contracts import Responses
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.outputs.names import KINDS
from napari_neuraldiffuser.core.params import ContributionParams


@dataclass(frozen=True)
class Part:
    """One target: shares (p,), ROI numerators (m, rois), denominators (m,), and what the shares sum to."""

    voxels: np.ndarray
    numerators: np.ndarray
    denominators: np.ndarray
    total: float


@dataclass
class ContributionMaps:
    """Shares of voxels and ROIs in the prediction of every target.

    Attributes
    ----------
    kind : str
        What the shares of a target sum to: "product-measure" R², "prediction-share" 1.
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
    table: pd.DataFrame
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
            paths.append(folder / KINDS["map"].name(sub=prefix, space=self.space, target=target))
            with atomic_path(paths[-1]) as temporary:
                nibabel.save(image, temporary)
        paths.append(folder / KINDS["shares"].name(sub=prefix))
        with atomic_path(paths[-1]) as temporary:
            self.table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
        return paths


def collect(
    parts: dict[str, Part], groups: tables.RoiMasks, betas: Responses, params: ContributionParams, kind: str
) -> ContributionMaps:
    """The maps and the table of all targets, with standard errors by bootstrap over stimuli."""
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


def _volume(betas: Responses, values: np.ndarray) -> Any:
    image = betas.to_volume(values.astype(np.float32))
    image.set_data_dtype(np.float32)
    image.header.set_xyzt_units("mm")
    return image
