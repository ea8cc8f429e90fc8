"""Which voxels are used, by their noise ceiling: that of NSD's ncsnr file, or of the training images' repeats."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core.nsd.ceiling import ceiling_of, signal_share
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.params import BetasParams

CIRCULAR = "from NSD's ncsnr, which was computed with the test images too: this choice is mildly circular"
TRAINING = "from the repeats of the training images"


def resolved(params: BetasParams, own: bool) -> BetasParams:
    """The params with the source of the ceilings named: for own scans there is no file of them.

    Raises
    ------
    NSDError
        If own scans are to be chosen by NSD's file, or training repeats cannot give ceilings.
    """
    if not params.chooses_voxels:
        return params
    if own and params.ceiling_from == "ncsnr":
        raise NSDError("ceiling_from must be training or auto for own scans, got ncsnr. NSD's file is of its subjects.")
    named = params.but(ceiling_from="training" if own else "ncsnr") if params.ceiling_from == "auto" else params
    if named.ceiling_from == "training" and not (params.zscore and params.average_repeats):
        raise NSDError(
            "zscore and average_repeats must be on to find noise ceilings from training repeats, got one of them off. "
            "Turn them on, or set min_noise_ceiling and max_voxels to 0."
        )
    return named


def check_ncsnr(paths: Iterable[Path], params: BetasParams) -> None:
    """Raise NSDError if voxels are to be chosen by files of which one is not there."""
    absent = next((path for path in paths if not path.is_file()), None)
    if params.chooses_voxels and params.ceiling_from == "ncsnr" and absent:
        raise NSDError(
            f"min_noise_ceiling and max_voxels must have NSD's noise ceilings, got no file {absent}. Copy "
            f"{absent.name} there, or choose ceiling_from training (--ceiling-from training)."
        )


def per_trial(trials: pd.DataFrame, average: bool) -> float:
    """Mean over the test images (all, where there are none) of 1 / the trials that are averaged into a row."""
    if not average:
        return 1.0
    of = trials[trials["shared"].astype(bool)] if trials["shared"].any() else trials
    return float((1 / of.groupby("stimulus_id").size()).mean())


def ncsnr_ceiling(ncsnr: np.ndarray, inverse: float) -> np.ndarray:
    """Noise ceiling (n_voxels,) in percent from NSD's ncsnr (method.md eq. 4).

    Parameters
    ----------
    ncsnr : (n_voxels,)
        Standard deviation of the signal over that of the noise, per trial.
    inverse : float
        1/r, mean over the test images of r trials each.
    """
    power = np.nan_to_num(ncsnr.astype(np.float64), posinf=0.0, neginf=0.0) ** 2
    return 100 * power / (power + inverse)


def training_ceiling(data: np.ndarray, repeats: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Noise ceiling (n_voxels,) in percent, for test rows, from training rows alone (method.md eq. 51).

    Parameters
    ----------
    data : (n, n_voxels) float32
        Means over repeats of z-scored betas.
    repeats : (n,) int
    test : (n,) bool

    Raises
    ------
    NSDError
        If no training image was shown twice.
    """
    several = ~test & (repeats > 1)
    if not several.any():
        raise NSDError(
            "training images must have been shown more than once to choose voxels by their noise ceiling, got no "
            "repeats. Read more sessions, or set min_noise_ceiling and max_voxels to 0."
        )
    of = test if test.any() else ~test
    return 100 * ceiling_of(signal_share(data, repeats, several), float(np.mean(1 / repeats[of])))


def chosen(ceiling: np.ndarray, params: BetasParams, of: str, source: str) -> tuple[np.ndarray, str]:
    """Which voxels are kept, (n_voxels,) bool, and a note that counts them.

    Of voxels with the same ceiling the first ones count as the better.

    Raises
    ------
    NSDError
        If none is kept.
    """
    kept, rules = ceiling >= params.min_noise_ceiling, []
    if params.min_noise_ceiling > 0:
        rules.append(f"noise ceiling of at least {params.min_noise_ceiling:g} %")
    else:
        kept &= ceiling > 0  # without signal a voxel is not among the best
    if 0 < params.max_voxels < kept.sum():
        best = np.argsort(np.where(kept, -ceiling, np.inf), kind="stable")[: params.max_voxels]
        kept = np.zeros_like(kept)
        kept[best] = True
    if params.max_voxels:
        rules.append(f"at most {params.max_voxels:,} of the highest noise ceiling")
    if not kept.any():
        raise NSDError(
            f"min_noise_ceiling must leave voxels of {of}, got {params.min_noise_ceiling:g} % where the highest is "
            f"{ceiling.max():.3g} %. Lower it, or choose other voxels."
        )
    return kept, f"{int(kept.sum()):,} of {len(kept):,} voxels kept: {' and '.join(rules)} ({source})"
