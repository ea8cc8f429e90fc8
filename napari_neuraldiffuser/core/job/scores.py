"""Stages that read and write whole files: shared by the plain run of a subject and by the workflow's nodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core import evaluation, nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import atomic_path, write_json
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS
from napari_neuraldiffuser.core.job.images import read_arm
from napari_neuraldiffuser.core.outputs.names import Derivatives
from napari_neuraldiffuser.core.params import Settings

ROI_FAMILIES = ("prf-visualrois", "floc-faces", "floc-bodies", "floc-places", "floc-words")


def first_test(betas: nsd.Betas, n_stimuli: int | None, among: Sequence[int] | None = None) -> nsd.Betas:
    """The first `n_stimuli` test stimuli (all where None), or those that are `among`, in that order."""
    _, test = betas.split()
    if n_stimuli is not None:
        test = test.subset(test.stimulus_ids[:n_stimuli])
    return test if among is None else test.subset(among)


def score_arms(
    places: Derivatives, stimuli: Any, models: Any, what: tuple[np.ndarray, Settings], progress: Progress
) -> tuple[dict, pd.DataFrame]:
    """Score the arms' images on disk, and write the table and the summary.

    Parameters
    ----------
    places : Derivatives
    stimuli : Stimuli
        `stimuli[ids]` gives the seen images (n, H, W, 3) uint8.
    models : Models
        Its image encoder does the two-way identification.
    what : (stimulus ids (n,), Settings)
    progress : callable

    Returns
    -------
    summary : dict
        `evaluation.summarise`.
    table : DataFrame
        `evaluation.scores_table`.

    Raises
    ------
    UserError
        If there are fewer than 2 stimuli.
    """
    stimulus_ids, settings = what
    if len(stimulus_ids) < 2:
        raise UserError(f"at least 2 stimuli must be reconstructed to be scored, got {len(stimulus_ids)}.")
    repeats, seen = settings.diffusion.repeats, stimuli[np.asarray(stimulus_ids)]
    arms: Mapping[str, evaluation.Scores] = {
        arm: evaluation.evaluate(
            read_arm(places, stimulus_ids, repeats, arm), seen, models.image_features, settings.evaluation, progress
        )
        for arm in ARMS
    }
    table, summary = evaluation.scores_table(arms, stimulus_ids), evaluation.summarise(arms)
    with atomic_path(places.scores) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
    write_json(places.summary, summary)
    return summary, table


def map_families(subject: Any) -> list[str]:
    """ROI families that contribution maps tell about: NSD's, or the label volumes of own scans (else the mask).

    Raises
    ------
    UserError
        If an NSD subject has none of them.
    """
    names = subject.roi_names()
    if isinstance(subject, nsd.OwnScans):
        return [name for name in names if name != nsd.MASK] or [nsd.MASK]
    found = [name for name in ROI_FAMILIES if name in names]
    if not found:
        raise UserError(
            f"ROI volumes must be there for contribution maps, none of {', '.join(ROI_FAMILIES)} was found "
            f"under {subject.layout.root}. Copy NSD's roi folder of {subject.name}."
        )
    return found
