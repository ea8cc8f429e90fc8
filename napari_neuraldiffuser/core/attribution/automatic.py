"""The attribution method that a decoder allows: the exact split of a linear one, integrated gradients of another."""

from collections.abc import Sequence

from napari_neuraldiffuser.core.attribution.maps import ContributionMaps
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import ATTRIBUTION_METHODS
from napari_neuraldiffuser.core.decoding.decoder import Decoder, LinearDecoder
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams


def automatic(
    decoder: Decoder,
    betas: Responses,
    rois: RegionFamily | Sequence[RegionFamily],
    targets: Targets | None,
    params: ContributionParams,
    progress: Progress | None,
) -> ContributionMaps:
    """Contribution maps by the method that fits the decoder; `attribution.map` has the arguments."""
    method = "additive" if isinstance(decoder, LinearDecoder) else "integrated-gradients"
    return ATTRIBUTION_METHODS[method](decoder, betas, rois, targets, params, progress)
