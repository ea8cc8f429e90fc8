"""Least squares, separate and all: single-trial betas as weights over the volumes of a run.

Both are linear in the data, so that a run's betas are one product of matrices: weights (trials, volumes) times data
(volumes, voxels).  The nuisance is taken out of the regressors alone (Frisch, Waugh and Lovell): what is left is
orthogonal to it, and its product with the data does not see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.bold.design import RunDesign
from napari_neuraldiffuser.core.bold.read import by_chunk
from napari_neuraldiffuser.core.bold.runs import BoldError
from napari_neuraldiffuser.core.params import BoldParams

Fit = Callable[[Sequence[RunDesign], Sequence[np.ndarray], BoldParams, Progress], list[np.ndarray]]
"""fit(designs, data, params, progress): betas (n_trials, n_voxels) float32 of every run from its fitted volumes
(n_fitted, n_voxels) float32, as stored; percent signal change where `params.scale` says so."""

DISTINCT = 1e-6
"""Smallest singular value, relative to the largest, of regressors that are told apart."""


@dataclass(frozen=True)
class Estimator:
    """A way from BOLD to single-trial betas.

    Attributes
    ----------
    name : str
        In words, for reports.
    fit : callable
        `Fit`.
    weights : callable or None
        weights(design) -> (n_trials, n_fitted) float64, where the betas are linear in the data.
    by_session : bool
        Whether the runs of a session are fitted together; else every run on its own.
    """

    name: str
    fit: Fit
    weights: Callable[[RunDesign], np.ndarray] | None = None
    by_session: bool = False


def separate(design: RunDesign) -> np.ndarray:
    """Weights of least squares separate: a model per trial, with all other trials in one regressor.

    Mumford et al. 2012, doi:10.1016/j.neuroimage.2011.08.076.
    """
    own = _told_apart(design)
    rest = own.sum(axis=0) - own
    both = np.concatenate([own, rest], axis=1)
    size = np.linalg.norm(both, axis=2, keepdims=True)
    unit = both / np.where(size > 0, size, 1.0)
    inverse = np.linalg.pinv(unit @ unit.transpose(0, 2, 1), rcond=DISTINCT**2, hermitian=True)
    return np.einsum("nk,nkt->nt", inverse[:, 0], unit) / size[:, 0]


def together(design: RunDesign) -> np.ndarray:
    """Weights of least squares all: one model with a regressor for each trial."""
    own = _told_apart(design)
    n, k, t = own.shape
    columns = own.reshape(n * k, t)
    size = np.linalg.norm(columns, axis=1, keepdims=True)
    u, s, vt = np.linalg.svd(columns / np.where(size > 0, size, 1.0), full_matrices=False)
    free = t - design.basis.shape[1]
    if n * k > free or s[-1] < DISTINCT * s[0]:
        raise BoldError(
            f"trials of {design.run.name} must be told apart to be fitted all at once, got {n} trials in {free} "
            "volumes beside drift and confounds. Choose the estimator lss, or fewer confounds."
        )
    inverse = (u / s) @ vt / size
    return inverse.reshape(n, k, t)[:, 0]


def _told_apart(design: RunDesign) -> np.ndarray:
    """Responses without the nuisance; a BoldError where one is nothing but nuisance."""
    own = design.cleaned(design.responses)
    left = np.linalg.norm(own[:, 0], axis=1) / np.linalg.norm(design.responses[:, 0], axis=1)
    if (left < 1e-3).any():
        row = design.trials["row"].iloc[int(left.argmin())]
        raise BoldError(
            f"trials of {design.run.name} must differ from drift and confounds, got row {row} of {design.run.events} "
            "explained by them. Choose fewer confounds, or a lower --high-pass."
        )
    return own


def variance_inflation(design: RunDesign, weights: np.ndarray) -> np.ndarray:
    """(n_trials,) how many times the variance of a beta is that of a trial alone in a run without nuisance."""
    alone = design.responses[:, 0] - design.responses[:, 0].mean(axis=1, keepdims=True)
    return (alone**2).sum(axis=1) * (weights**2).sum(axis=1)


def _fitter(weights_of: Callable[[RunDesign], np.ndarray]) -> Fit:
    def fit(
        designs: Sequence[RunDesign], data: Sequence[np.ndarray], params: BoldParams, progress: Progress
    ) -> list[np.ndarray]:
        return [apply(weights_of(one), values, params, progress) for one, values in zip(designs, data, strict=True)]

    return fit


def apply(weights: np.ndarray, data: np.ndarray, params: BoldParams, progress: Progress) -> np.ndarray:
    """Betas (n_trials, n_voxels) float32: weights times data, summed in float64, some voxels at a time."""
    n = data.shape[1]
    betas = np.empty((len(weights), n), dtype=np.float32)
    for part, values in by_chunk(data, params):
        mean = values.mean(axis=0)
        scale = 100 / np.where(mean > 0, mean, np.inf) if params.scale == "percent" else 1.0
        # the mean goes first: it is a hundred times the response, and the weights sum to 0 up to rounding only
        values -= mean
        betas[:, part] = (weights @ values) * scale
        progress(part.stop, n, "voxels fitted")
    return betas


LSS = Estimator("least squares separate", _fitter(separate), separate)
LSA = Estimator("least squares all", _fitter(together), together)
