"""What the decoded values of a subject are worth: decoder, betas and true targets in; a table out."""

from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.decoding.decoder import Decoder, DecodingError
from napari_neuraldiffuser.core.decoding.worth import Worth, WorthParts, assess
from napari_neuraldiffuser.core.job.stages import opened
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.params import BetasParams, ContributionParams


def worth(
    decoder: Path,
    test: nsd.Betas,
    trials: nsd.Betas | None,
    targets: Path,
    places: Derivatives,
    params: ContributionParams,
    progress: Progress = silent,
) -> Worth:
    """Judge every target of a decoder on test stimuli, and write the table to the subject's folder.

    Parameters
    ----------
    decoder, targets : Path
        Decoder file; true targets of at least the test stimuli.
    test : Betas
    trials : Betas, optional
        Single trials of them, of `single_trials`.
    places : Derivatives
    params : ContributionParams
    progress : callable

    Raises
    ------
    DecodingError
        If there is no stimulus, voxels differ, or a stimulus has no targets.
    """
    with embeddings.TargetFile(targets) as truth, opened(decoder) as known:
        found = assess(WorthParts(known, test, truth, _of_the_same_voxels(known, trials)), params, progress)
    found.save(places.worth)
    places.projected.unlink(missing_ok=True)
    if found.projected is not None:
        found.projected.save(places.projected)
    return found


def _of_the_same_voxels(decoder: Decoder, trials: nsd.Betas | None) -> nsd.Betas | None:
    """The trials; None where single trials were chosen other voxels for, as by a noise ceiling."""
    if trials is None:
        return None
    try:
        decoder.check(trials)
    except DecodingError:
        return None
    return trials


def single_trials(source: Source, betas: BetasParams, test: nsd.Betas, params: ContributionParams) -> nsd.Betas | None:
    """Trials of the test stimuli, each a row; None where they are not asked for or no image was shown twice."""
    if not params.trial_ceiling or not betas.average_repeats or not (np.asarray(test.repeats) > 1).any():
        return None
    trials = nsd.open_source(source, betas.but(average_repeats=False)).betas()
    known = np.unique(test.stimulus_ids)
    return trials.subset(known[np.isin(known, trials.stimulus_ids)])
