"""Which voxels and ROIs vary with what a linear decoder predicts: forward patterns (Haufe et al. 2014).

A decoder's weights also cancel noise, so that they do not say where a target is encoded; the covariance of voxels with
the prediction does.  Of a target with many columns a voxel has the energy

    ‖cov(x_v, ŷ)‖² ∝ x_vᵀ (Ŷ Ŷᵀ) x_v

with x_v (m,) and Ŷ (m, T) minus their mean over the stimuli; shares are of the sum over voxels.  No weights are needed.

The test is of the same energy with the true target in place of the predicted one, for a voxel that the decoder uses
varies with its prediction whatever it encodes: p says how often true targets that are dealt out anew vary as much with
the ROI's responses.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from napari_neuraldiffuser.core.attribution import maps, shares, significance
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.decoding.decoder import Decoder, LinearDecoder
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams

PATTERN = "pattern-energy"
PAIRED = 2.0
"""Of the standard error: every stimulus enters the energy twice, the bootstrap of its rows draws it once."""


def haufe(
    decoder: Decoder,
    betas: Responses,
    rois: RegionFamily | Sequence[RegionFamily],
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> maps.ContributionMaps:
    """Forward patterns of a linear decoder over `betas`; `attribution.map` has the arguments.

    Raises
    ------
    ContributionError
        If the decoder is not linear, stimuli or targets are missing, or ROIs of one family overlap.
    """
    if not isinstance(decoder, LinearDecoder):
        raise maps.ContributionError(
            "decoder must be linear for forward patterns, got one that is not. Choose integrated-gradients."
        )
    x = decoder.centre(betas)
    similarity, own = decoder.similarity(x), _centred(x)
    groups = maps.roi_masks(rois, betas)
    truth = shares.Truth(decoder, betas, targets) if targets is not None else None
    dealt = significance.orders(len(x), params)
    parts = {}
    for k, name in enumerate(decoder.names):
        part = _part(decoder.deviations(name, similarity), own, groups)
        if decoder.accuracy[name].constant or part is None:
            parts[name] = groups.undefined(x)
        elif truth is None or name in truth.lacking or not len(dealt):
            parts[name] = part
        else:
            y = _centred(truth.minus(name, decoder.accuracy[name].mean, x.dtype))
            parts[name] = part.tested(_null(y @ y.T, own, groups, dealt))
        if progress:
            progress(k + 1, len(decoder.names), f"contribution {name}")
    return maps.collect(parts, groups, betas, params, PATTERN)


def _part(predicted: np.ndarray, x: np.ndarray, groups: maps.RoiMasks) -> maps.Part | None:
    """Shares of energy; None where the prediction does not vary over the stimuli."""
    varying = _centred(predicted)
    energies = x * ((varying @ varying.T) @ x)
    rows = energies.sum(1, dtype=np.float64)
    if not rows.sum() > 0:
        return None
    voxels = energies.sum(0, dtype=np.float64) / rows.sum()
    return maps.Part(voxels, groups.sums(energies), rows, 1.0, errors=PAIRED)


def _null(products: np.ndarray, x: np.ndarray, groups: maps.RoiMasks, dealt: np.ndarray) -> significance.Null:
    """Energies Σ_ij K_ij S_ij of ROIs' inner products K with those of the true targets S (m, m), dealt out anew."""
    kernels = np.stack([(own @ own.T).ravel() for own in (x[:, mask] for mask in groups.masks)])

    def statistics() -> Iterator[np.ndarray]:
        yield kernels @ products.ravel()
        for order in dealt:
            yield kernels @ products[np.ix_(order, order)].ravel()

    observed, *permuted = statistics()
    return significance.Null(observed, np.array(permuted))


def _centred(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0, dtype=np.float64)).astype(values.dtype)
