"""How well a set of voxels alone decodes each target: ridge fitted anew to the whole mask and to every region.

A contribution map splits what one decoder of all voxels explains; here every set has a decoder of its own, so that what
two regions both know counts for each of them.  A target is scored on some of its columns, the same for all sets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding import solver
from napari_neuraldiffuser.core.decoding.errors import DecodingError
from napari_neuraldiffuser.core.decoding.geometry import checked_data
from napari_neuraldiffuser.core.decoding.penalties import Scores
from napari_neuraldiffuser.core.decoding.targets import (
    Rows,
    converted,
    is_constant,
    match_rows,
    stored_blocks,
    target_names,
    target_shape,
)
from napari_neuraldiffuser.core.decoding.worth import figures
from napari_neuraldiffuser.core.decoding.worth.columns import MASK, N_A, REGION_COLUMNS, WHOLE
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams

MOST_COLUMNS = 512
"""Of a target that are scored; `cv_targets` where that is fewer."""


@dataclass(frozen=True)
class Voxels:
    """What sets of voxels are judged by.

    Attributes
    ----------
    train, test : Betas
        Training stimuli (n, p) and held-out ones (m, p), of the same voxels.
    train_targets, test_targets : Targets
        True targets of both.
    families : sequence of RegionFamily
    spectrum : Spectrum, optional
        Of the centred training betas, which a ridge decoder has already; made anew where None.
    """

    train: Responses
    test: Responses
    train_targets: Targets
    test_targets: Targets
    families: Sequence[RegionFamily] = ()
    spectrum: solver.Spectrum | None = None


@dataclass(frozen=True)
class RegionAccuracy:
    """What every set of voxels decodes.

    Attributes
    ----------
    table : DataFrame
        `columns.REGION_COLUMNS`, a row per target and set.
    best : dict of str to ndarray (p,)
        R² of the best region that a voxel lies in, by target; 0 where it lies in none.  None of a target that does not
        vary.
    """

    table: pd.DataFrame
    best: dict[str, np.ndarray]

    def save(self, path: str | Path) -> Path:
        """Write the table, n/a where there is no value, atomically."""
        with atomic_path(path) as temporary:
            self.table.to_csv(temporary, sep="\t", index=False, na_rep=N_A, float_format="%.6g")
        return Path(path)


def by_region(
    voxels: Voxels,
    decoding: DecodingParams | None = None,
    params: ContributionParams | None = None,
    progress: Progress = silent,
) -> RegionAccuracy:
    """Accuracy on the test stimuli of ridge fitted to all voxels, and to those of each region alone.

    Penalties are those of `decoding.alphas` that predict left-out training stimuli best, for every set and target.
    Takes a decomposition of each set's betas, by the smaller of its sides (method.md eq. 9-12, 57).

    Raises
    ------
    DecodingError
        If train and test differ in their voxels, there is no test stimulus, or a stimulus has no targets.
    """
    decoding, params = decoding or DecodingParams(), params or ContributionParams()
    one = _Fits(voxels, decoding, params)
    sets, known = list(_sets(voxels)), dict[bytes, list[dict[str, Any]]]()
    rows = []
    for k, (family, roi, mask) in enumerate(sets):
        progress(k, len(sets), f"accuracy of {roi}")
        key = mask.tobytes()
        if key not in known:
            known[key] = one.figures(mask)
        rows += [{"roi": roi, "family": family, "n_voxels": int(mask.sum()), **found} for found in known[key]]
    progress(len(sets), len(sets), "accuracy of regions")
    table = pd.DataFrame(rows, columns=list(REGION_COLUMNS))
    return RegionAccuracy(table, _best(table, {(family, roi): mask for family, roi, mask in sets}))


def _sets(voxels: Voxels) -> Iterator[tuple[str, str, np.ndarray]]:
    """Family, region and mask (p,) of every set; what no family names is none."""
    yield MASK, WHOLE, np.ones(voxels.train.data.shape[1], dtype=bool)
    for family in voxels.families:
        for roi, mask in family.of(voxels.train).items():
            yield family.name, roi, np.asarray(mask, dtype=bool)


def _best(table: pd.DataFrame, masks: dict[tuple[str, str], np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for target, rows in table.dropna(subset=["r2"]).groupby("target", sort=False):
        best = np.full(len(masks[MASK, WHOLE]), -np.inf)
        for row in rows.itertuples():
            mask = masks[str(row.family), str(row.roi)]
            if row.family != MASK:
                best[mask] = np.maximum(best[mask], float(row.r2))
        found[str(target)] = np.where(np.isfinite(best), best, 0.0)
    return found


class _Fits:
    """Betas and scored columns of all targets, minus their training mean."""

    def __init__(self, voxels: Voxels, decoding: DecodingParams, params: ContributionParams) -> None:
        x, x_test = checked_data(voxels.train), checked_data(voxels.test)
        if x.shape[1] != x_test.shape[1]:
            raise DecodingError(
                f"test betas must have the {x.shape[1]} voxels of the training betas, got {x_test.shape[1]}. Read both "
                "with one mask."
            )
        mean = x.mean(0, dtype=np.float64)
        self.x, self.x_test = (x - mean).astype(x.dtype), (x_test - mean).astype(x.dtype)
        self.decoding, self.params, self.whole = decoding, params, voxels.spectrum
        self.groups = solver.stimulus_groups(voxels.train.stimulus_ids)
        self.train_rows = match_rows(voxels.train_targets.stimulus_ids, voxels.train.stimulus_ids)
        self.test_rows = match_rows(voxels.test_targets.stimulus_ids, voxels.test.stimulus_ids)
        self.targets = {
            name: self._scored(voxels, name, k)
            for k, name in enumerate(target_names(voxels.train_targets))
            if name in set(voxels.test_targets)
        }

    def _scored(self, voxels: Voxels, name: str, k: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Centred training values (n, t) and test values (m, t); None of a target that does not vary."""
        size = int(np.prod(target_shape(voxels.train_targets, name)))
        n_columns = min(size, self.decoding.cv_targets, MOST_COLUMNS)
        rng = np.random.default_rng([self.decoding.seed, k])
        columns = np.sort(rng.choice(size, n_columns, replace=False))
        y = _columns(voxels.train_targets, name, self.train_rows, columns, self.x.dtype)
        mean = y.mean(0, dtype=np.float64)
        y = (y - mean).astype(y.dtype)
        if is_constant(float(figures.row_energies(y).sum()), mean, len(y)):
            return None
        truth = _columns(voxels.test_targets, name, self.test_rows, columns, self.x.dtype)
        return y, (truth - mean).astype(y.dtype)

    def figures(self, mask: np.ndarray) -> list[dict[str, Any]]:
        """A row of figures for each target, of ridge on the voxels of a mask (p,)."""
        x, device = self.x[:, mask], self.decoding.decoder_device
        varies = bool(mask.any()) and bool((x != x[:1]).any())
        if not varies:
            return [self._row(name, None) for name in self.targets]
        spectrum = self.whole if self.whole is not None and mask.all() else solver.decompose(x, device)
        alphas = sorted(self.decoding.alphas)
        leaves = [solver.leave_out(spectrum, self.groups, alpha) for alpha in alphas]
        scores = Scores(spectrum, leaves, device)
        rows = []
        for name, values in self.targets.items():
            if values is None:
                rows.append(self._row(name, None))
                continue
            y, truth = values
            chosen = alphas[int(np.argmin(scores.pooled(y, self.decoding.seed)))]
            dual = solver.apply_inverses(spectrum, [chosen], y, device)[0]
            rows.append(self._row(name, chosen, truth, self.x_test[:, mask] @ (x.T @ dual)))
        return rows

    def _row(
        self, name: str, penalty: float | None, truth: np.ndarray | None = None, decoded: np.ndarray | None = None
    ) -> dict[str, Any]:
        values = self.targets[name]
        sizes = {"target": name, "n_test": len(self.x_test), "n_columns": 0 if values is None else values[0].shape[1]}
        if penalty is None or truth is None or decoded is None:
            return sizes
        r2, se = figures.explained(truth, decoded, self.params.bootstrap, self.params.seed)
        own = figures.pattern_agreement(truth, decoded).diagonal()
        r_se = float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else np.nan
        figures_of = {"r2": r2, "r2_se": se, "pattern_r": float(own.mean()), "pattern_r_se": r_se}
        return {**sizes, **figures_of, "penalty": penalty}


def _columns(targets: Targets, name: str, rows: Rows, columns: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Some columns (n, t) of a target in betas order, in one pass."""
    out = np.empty((len(rows.order), len(columns)), dtype)
    for positions, stored in stored_blocks(targets, name, rows):
        out[positions] = converted(stored[:, columns], dtype)
    if not np.isfinite(out).all():
        raise DecodingError(f"targets[{name!r}] must be finite, got NaN or infinity. Extract the targets again.")
    return out
