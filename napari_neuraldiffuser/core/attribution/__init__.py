"""Attribution: which voxels and ROIs carried each decoded target."""

from collections.abc import Sequence

from napari_neuraldiffuser.core.attribution.hemispheres import TOGETHER, by_hemisphere
from napari_neuraldiffuser.core.attribution.maps import ContributionError, ContributionMaps
from napari_neuraldiffuser.core.base.contracts import RegionFamily, Responses
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import ATTRIBUTION_METHODS
from napari_neuraldiffuser.core.decoding.decoder import Decoder
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams

__all__ = ["TOGETHER", "ContributionError", "ContributionMaps", "by_hemisphere", "map"]


def map(
    decoder: Decoder,
    betas: Responses,
    rois: RegionFamily | Sequence[RegionFamily],
    targets: Targets | None = None,
    params: ContributionParams | None = None,
    progress: Progress | None = None,
) -> ContributionMaps:
    """Attribute the decoder's prediction for `betas` to voxels and ROIs by the method `params.method`.

    A method is a function of these arguments, named in `base.registry.ATTRIBUTION_METHODS`.  It must give every
    field of `ContributionMaps`; `attribution.maps.collect` makes them of one `Part` per target.

    Parameters
    ----------
    decoder : Decoder
        Fitted.
    betas : Betas
        Data (m, p) of the decoder's voxels.
    rois : Rois or sequence of Rois
        One or more families.  ROIs of different families may overlap.
    targets : TargetFile or Embeddings, optional
        True targets of the stimuli: gives the product measure.  Without them, shares of the prediction.

    Raises
    ------
    ContributionError
        If stimuli or targets are missing, ROIs of one family overlap, or a target or prediction equals the
        training mean.
    DecodingError
        If the betas do not fit the decoder.
    """
    params = params or ContributionParams()
    return ATTRIBUTION_METHODS[params.method](decoder, betas, rois, targets, params, progress)
