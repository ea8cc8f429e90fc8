"""Which voxels and ROIs carried each decoded target: the exact additive split of a linear prediction.

The prediction is a sum over voxels, ŷ'_i = Σ_v x_iv W_v, so voxel v adds x_iv W_v · q_i to q_i · ŷ'_i; `shares` has
what q is.  The weights W (voxels x targets) are never formed.  The un-aligned prediction is split: the spread that
alignment gives to a target comes from no voxel.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from napari_neuraldiffuser.core.attribution import maps, shares, significance
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.decoder import Decoder, LinearDecoder
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams


def additive(
    decoder: Decoder,
    betas: Responses,
    rois: RegionFamily | Sequence[RegionFamily],
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """Split a linear decoder's prediction for `betas` over voxels and ROIs; `attribution.map` has the arguments.

    Raises
    ------
    ContributionError
        If the decoder is not linear, stimuli or targets are missing, or ROIs of one family overlap.
    """
    if not isinstance(decoder, LinearDecoder):
        raise maps.ContributionError(
            "decoder must be linear for the additive split, got one that is not. Choose another method."
        )
    x = decoder.centre(betas)
    similarity = decoder.similarity(x)
    groups = maps.roi_masks(rois, betas)
    truth = shares.Truth(decoder, betas, targets) if targets is not None else None
    dealt = significance.orders(len(x), params) if len(x) > 1 else np.empty((0, 1), int)
    parts = {}
    for k, name in enumerate(decoder.names):
        predicted, fit = decoder.deviations(name, similarity), decoder.accuracy[name]
        distribute = partial(_distribute, decoder, name, x)
        if truth is None:
            parts[name] = shares.of_prediction(predicted, fit, x, groups, distribute)
        elif name in truth.lacking:
            parts[name] = groups.undefined(x)
        else:
            y = truth.minus(name, fit.mean, x.dtype)
            parts[name] = shares.of_explained(predicted, y, fit, x, groups, distribute)
            if len(dealt) and np.isfinite(parts[name].total):
                parts[name] = parts[name].tested(_null(decoder.pull_back(name, y), x, groups, dealt))
        if progress:
            progress(k + 1, len(decoder.names), f"contribution {name}")
    return maps.collect(parts, groups, betas, params, shares.kind_of(truth))


def _null(back: np.ndarray, x: np.ndarray, groups: maps.RoiMasks, dealt: np.ndarray) -> significance.Null:
    """Null of the ROIs' parts of the prediction: true targets dealt out anew among the test stimuli.

    Of the product measure only Σ_i y'_i · ŷ^R_i depends on the order, and y'_i · ŷ^R_j is the sum over the ROI's voxels
    of (W y'_i)_v x_jv; `back` (m, p) has W y'.
    """
    return significance.of_labels((back[:, mask] @ x[:, mask].T for mask in groups.masks), dealt)


def _distribute(decoder: LinearDecoder, name: str, x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """x_iv W_v · q_i, (m, p)."""
    return x * decoder.pull_back(name, q)
