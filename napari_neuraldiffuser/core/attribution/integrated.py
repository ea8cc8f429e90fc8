"""Which voxels and ROIs carried each target of any differentiable decoder: integrated gradients.

Of the scalar s_i(x) = q_i · ŷ(x), with q_i held fixed (`shares` has what it is), voxel v of stimulus i gets

    x_iv ∫_0^1 ∂s_i / ∂x_v (a x_i) da                                                      (method.md eq. 42)

which sums over voxels to q_i · (ŷ(x_i) - ŷ(0)), x being betas minus their training mean.  For a linear decoder this is
the additive split.  The integral is a Gauss-Legendre sum; its points are doubled until the sums agree.
Sundararajan, Taly and Yan, ICML 2017.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from napari_neuraldiffuser.core.attribution import maps, shares
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.decoder import Decoder, DifferentiableDecoder
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams

FEWEST_POINTS, MOST_POINTS = 8, 128
TOLERANCE = 0.01
"""How much the sum over voxels may differ from what is distributed, as a share of it."""


def integrated_gradients(
    decoder: Decoder,
    betas: Responses,
    rois: RegionFamily | Sequence[RegionFamily],
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """Integrated gradients from the mean betas to `betas`; `attribution.map` has the arguments.

    R² in the totals is against the prediction for the mean betas, which is near the training mean.

    Raises
    ------
    ContributionError
        If the decoder has no gradients, stimuli or targets are missing, ROIs of one family overlap, or the integral
        does not settle.
    """
    if not isinstance(decoder, DifferentiableDecoder):
        raise maps.ContributionError(
            "decoder must have gradients for integrated gradients, got one without. Choose another method."
        )
    x = decoder.centre(betas)
    groups = maps.roi_masks(rois, betas)
    truth = shares.Truth(decoder, betas, targets) if targets is not None else None
    parts = {}
    for k, name in enumerate(decoder.names):
        baseline = decoder.respond(name, np.zeros_like(x[:1]))[0]
        predicted, fit = decoder.respond(name, x) - baseline, decoder.accuracy[name]
        distribute = partial(_distribute, decoder, name, x, predicted)
        if truth is None:
            parts[name] = shares.of_prediction(predicted, fit, x, groups, distribute)
        elif name in truth.lacking:
            parts[name] = groups.undefined(x)
        else:
            y = truth.minus(name, baseline, x.dtype)
            parts[name] = shares.of_explained(predicted, y, fit, x, groups, distribute)
        if progress:
            progress(k + 1, len(decoder.names), f"contribution {name}")
    return maps.collect(parts, groups, betas, params, shares.kind_of(truth))


def _distribute(
    decoder: DifferentiableDecoder, name: str, x: np.ndarray, predicted: np.ndarray, q: np.ndarray
) -> np.ndarray:
    """Integrated gradients (m, p) of q (m, T), with as many points as it takes."""
    wanted = np.einsum("ij,ij->i", q, predicted, dtype=np.float64)
    points = FEWEST_POINTS
    while points <= MOST_POINTS:
        found = x * _mean_gradient(decoder, name, x, q, points)
        off = np.abs(found.sum(1, dtype=np.float64) - wanted).sum() / max(np.abs(wanted).sum(), np.finfo(float).tiny)
        if off <= TOLERANCE:
            return found
        points *= 2
    raise maps.ContributionError(
        f"integrated gradients of {name} must sum to the prediction within {TOLERANCE:.0%}, got {off:.1%} with "
        f"{MOST_POINTS} points. The decoder bends too sharply for this method: fit it again with more regularisation."
    )


def _mean_gradient(decoder: DifferentiableDecoder, name: str, x: np.ndarray, q: np.ndarray, points: int) -> np.ndarray:
    """∫_0^1 of the gradient at a x, (m, p)."""
    places, weights = np.polynomial.legendre.leggauss(points)
    total = np.zeros_like(x)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        total += weight.astype(x.dtype) * decoder.gradient(name, place.astype(x.dtype) * x, q)
    return total
