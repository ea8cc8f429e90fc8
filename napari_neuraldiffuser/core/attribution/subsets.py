"""What an ROI alone decodes, what is lost without it, and what it shares with the others: ridge fitted anew.

R² is of held-out stimuli, against the training mean.  `roi-only` and `leave-out` stand beside as many voxels drawn from
all that the decoder uses: their mean, standard deviation, and the share of such sets that do as well.

What is dealt out anew for p: of roi-only, the true targets of the test stimuli.  Of what is lost, that would not do:
two decoders that both work differ also where the ROI adds nothing.  There the ROI's responses are dealt to other
stimuli, in training and test each, and the decoder of all voxels is fitted anew: the null is that the ROI's responses
have nothing to do with target or other voxels, for as many voxels of the same covariance.  The penalty is that of the
decoder without the ROI, and the statistic `refits.agreement` in the `refits.TESTED` leading directions of the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_neuraldiffuser.core.attribution import maps, shares, significance
from napari_neuraldiffuser.core.attribution.coordinates import Coordinates, coordinates
from napari_neuraldiffuser.core.attribution.refits import Fit, Refits
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding.decoder import Decoder
from napari_neuraldiffuser.core.decoding.ridge import RidgeDecoder
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams

ALONE, LOST = "roi-only", "lost-without"
"""Kinds of shares."""

Rois = RegionFamily | Sequence[RegionFamily]
Fits = dict[str, Fit]


def roi_only(
    decoder: Decoder,
    betas: Responses,
    rois: Rois,
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """R² of decoders of each ROI alone; `attribution.map` has the arguments.

    Raises
    ------
    ContributionError
        If the decoder is no ridge decoder with its training data, or targets are missing.
    """
    study = _Study.of("roi-only", decoder, betas, rois, targets, params, progress)
    fits = study.every("alone", lambda mask: mask)
    values = {name: study.explained(name, fits) for name in study.known}
    beside = study.beside_random(values, lambda mask: mask, lambda name, energies: energies)
    nulls: dict[str, significance.Null] = {}
    if params.roi_permutations and len(study.x) > 1:
        dealt = significance.orders(len(study.x), params)
        for name, y in study.known.items():
            nulls[name] = significance.of_labels((y.test @ each[name].decoded.T for each in fits), dealt)
    return study.maps(values, beside, nulls, ALONE)


def leave_out(
    decoder: Decoder,
    betas: Responses,
    rois: Rois,
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """R² that is lost when an ROI is left out, beside that of random sets; arguments and errors as of `roi_only`."""
    study = _Study.of("leave-out", decoder, betas, rois, targets, params, progress)
    without = study.every("without", np.logical_not)
    values = study.lost(without)
    whole = {name: study.refits.explained(name, fit).sum() for name, fit in study.whole.items()}
    beside = study.beside_random(values, np.logical_not, lambda name, energies: whole[name] - energies)
    return study.maps(values, beside, study.dealt_out(without), LOST)


def unique(
    decoder: Decoder,
    betas: Responses,
    rois: Rois,
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """R² that only an ROI adds, and in the column `shared` what it decodes alone beyond that: what others have, too
    (commonality analysis).  Arguments and errors as of `roi_only`."""
    study = _Study.of("unique", decoder, betas, rois, targets, params, progress)
    without, alone = study.every("without", np.logical_not), study.every("alone", lambda mask: mask)
    values = study.lost(without)
    beside = {}
    for name, y in study.known.items():
        common = study.explained(name, alone) - values[name]
        beside[name] = {"shared": common.sum(0) / y.energies.sum()}
    return study.maps(values, beside, study.dealt_out(without), LOST)


@dataclass
class _Study:
    """Sets of voxels of one decoder, fitted anew and judged on the same test stimuli."""

    method: str
    decoder: RidgeDecoder
    betas: Responses
    x: np.ndarray
    groups: maps.RoiMasks
    known: dict[str, Coordinates]
    params: ContributionParams
    progress: Progress
    refits: Refits = field(init=False)
    whole: Fits = field(init=False)

    def __post_init__(self) -> None:
        self.refits = Refits(self.decoder, self.x, self.known)
        self.whole = self.refits.fit(np.ones(self.x.shape[1], bool))

    @classmethod
    def of(
        cls,
        method: str,
        decoder: Decoder,
        betas: Responses,
        rois: Rois,
        targets: Targets | None,
        params: ContributionParams,
        progress: Progress | None,
    ) -> "_Study":
        """Check the arguments, and read the targets once."""
        if not isinstance(decoder, RidgeDecoder) or decoder.compacted:
            raise maps.ContributionError(
                f"decoder must be ridge with all its training data for {method}, which fits it anew to other voxels, "
                "got one of another kind or of reduced rank. Choose auto."
            )
        if targets is None:
            raise maps.ContributionError(
                f"targets must be there for {method}, which scores decoders on held-out stimuli, got none. "
                "Choose additive for new scans."
            )
        x, told = decoder.centre(betas), progress or silent
        groups, truth = maps.roi_masks(rois, betas), shares.Truth(decoder, betas, targets)
        known = {}
        for k, name in enumerate(decoder.names):
            told(k, len(decoder.names), f"targets {name}")
            found = None if name in truth.lacking else coordinates(decoder, truth, name, params.seed)
            if found is not None:
                known[name] = found
        return cls(method, decoder, betas, x, groups, known, params, told)

    def every(self, what: str, voxels: Callable[[np.ndarray], np.ndarray]) -> list[Fits]:
        """Fits of every ROI; `voxels` turns its mask to that of the voxels that are decoded from."""
        done: dict[bytes, Fits] = {}
        for k, ((_, roi), mask) in enumerate(zip(self.groups.names, self.groups.masks, strict=True)):
            self.progress(k, len(self.groups.masks), f"{self.method}: {what} {roi}")
            if mask.tobytes() not in done:
                done[mask.tobytes()] = self.refits.fit(voxels(mask))
        return [done[mask.tobytes()] for mask in self.groups.masks]

    def explained(self, name: str, fits: list[Fits]) -> np.ndarray:
        """Explained energy (m, rois) of one target."""
        return np.stack([self.refits.explained(name, each[name]) for each in fits], axis=1)

    def lost(self, without: list[Fits]) -> dict[str, np.ndarray]:
        """Explained energy (m, rois) that decoders without an ROI lose."""
        return {
            name: self.refits.explained(name, fit)[:, None] - self.explained(name, without)
            for name, fit in self.whole.items()
        }

    def beside_random(
        self,
        values: dict[str, np.ndarray],
        voxels: Callable[[np.ndarray], np.ndarray],
        figure: Callable[[str, float], float],
    ) -> dict[str, dict[str, np.ndarray]]:
        """Columns random_mean, random_sd, random_z and random_p of every target: as many voxels, drawn from all.

        `figure` turns the explained energy of a target to that of `values` (m, rois).
        """
        if not self.params.random_sets:
            return {}
        sizes = self.groups.masks.sum(1)
        tested = np.flatnonzero(self.groups.regions & (sizes > 0) & (sizes < self.x.shape[1]))
        drawn = {size: self._random(int(size), voxels, figure) for size in np.unique(sizes[tested])}
        columns = {}
        for name, energies in values.items():
            own, whole = energies.sum(0), self.known[name].energies.sum()
            table = np.full((4, len(sizes)), np.nan)
            for roi in tested:
                some = drawn[sizes[roi]][name]
                sd = some.std(ddof=1) if len(some) > 1 else np.nan
                z = (own[roi] - some.mean()) / sd if sd > 0 else np.nan
                p = (1 + (some >= own[roi]).sum()) / (1 + len(some))
                table[:, roi] = some.mean() / whole, sd / whole, z, p
            columns[name] = dict(zip(("random_mean", "random_sd", "random_z", "random_p"), table, strict=True))
        return columns

    def _random(
        self, size: int, voxels: Callable[[np.ndarray], np.ndarray], figure: Callable[[str, float], float]
    ) -> dict[str, np.ndarray]:
        """Figures (sets,) of every target, of random sets of `size` voxels."""
        rng, p = np.random.default_rng([self.params.seed, 2, size]), self.x.shape[1]
        found: dict[str, list[float]] = {name: [] for name in self.known}
        for k in range(self.params.random_sets):
            self.progress(k, self.params.random_sets, f"{self.method}: random sets of {size} voxels")
            mask = np.zeros(p, bool)
            mask[rng.choice(p, size, replace=False)] = True
            for name, fit in self.refits.fit(voxels(mask)).items():
                found[name].append(figure(name, float(self.refits.explained(name, fit).sum())))
        return {name: np.array(some) for name, some in found.items()}

    def dealt_out(self, without: list[Fits]) -> dict[str, significance.Null]:
        """Nulls of what is lost: the ROI's rows dealt to other stimuli, and all voxels fitted anew."""
        n, m, count = len(self.decoder.x), len(self.x), self.params.roi_permutations
        if not count or m < 2:
            return {}
        train, test = (
            np.vstack([np.arange(k), significance.orders(k, self.params, purpose)]) for k, purpose in ((n, 1), (m, 2))
        )
        found = {name: np.full((count + 1, len(self.groups.masks)), np.nan) for name in self.known}
        for roi in np.flatnonzero(self.groups.regions & self.groups.masks.any(1)):
            mask, (_, region) = self.groups.masks[roi], self.groups.names[roi]
            self.progress(int(roi), len(self.groups.masks), f"{self.method}: permutations of {region}")
            penalties = {name: min(fit.penalty, max(self.refits.alphas)) for name, fit in without[roi].items()}
            for name, energies in self.refits.with_rows_dealt(mask, penalties, train, test).items():
                found[name][:, roi] = energies
        return {name: significance.Null(values[0], values[1:]) for name, values in found.items()}

    def maps(
        self,
        values: dict[str, np.ndarray],
        beside: dict[str, dict[str, np.ndarray]],
        nulls: dict[str, significance.Null],
        kind: str,
    ) -> maps.ContributionMaps:
        """Maps and table; a voxel has the value of largest size of the ROIs that it lies in."""
        parts = {}
        for name in self.decoder.names:
            if name not in values:
                parts[name] = self.groups.undefined(self.x)
                continue
            y, energies = self.known[name], values[name]
            total = float(self.refits.explained(name, self.whole[name]).sum() / y.energies.sum())
            voxels = self.groups.largest(energies.sum(0) / y.energies.sum())
            parts[name] = maps.Part(voxels, energies, y.energies, total, beside=beside.get(name, {}))
            if name in nulls:
                parts[name] = parts[name].tested(nulls[name])
        return maps.collect(parts, self.groups, self.betas, self.params, kind)
