"""Reads NSD's files, MindEye2's and own scans as trials, betas, regions and stimuli; and simulates NSD's.

`simulate` is imported when first used: reading real data needs nothing of it.
"""

import importlib
from typing import Any

from napari_neuraldiffuser.core.base.recipe import OWN_SPACE, Source
from napari_neuraldiffuser.core.base.registry import SURFACES
from napari_neuraldiffuser.core.nsd.algonauts import Challenge
from napari_neuraldiffuser.core.nsd.betas import CROSSVAL, Betas, betas_facts, dropped_notes, load_betas, save_betas
from napari_neuraldiffuser.core.nsd.brain_source import BrainSource
from napari_neuraldiffuser.core.nsd.ceiling import ceiling_text
from napari_neuraldiffuser.core.nsd.further.subject import FurtherSubject, open_further
from napari_neuraldiffuser.core.nsd.mindeye import mindeye_betas
from napari_neuraldiffuser.core.nsd.own import MASK, OwnScans
from napari_neuraldiffuser.core.nsd.own_stimuli import OwnStimuli
from napari_neuraldiffuser.core.nsd.reading.surfaces import read_surface_session
from napari_neuraldiffuser.core.nsd.reading.volumes import NSDError
from napari_neuraldiffuser.core.nsd.rois import Rois
from napari_neuraldiffuser.core.nsd.stimuli import Stimuli
from napari_neuraldiffuser.core.nsd.subject import Subject
from napari_neuraldiffuser.core.nsd.surface_subject import SurfaceSubject
from napari_neuraldiffuser.core.nsd.user import user_betas
from napari_neuraldiffuser.core.params import BetasParams

__all__ = [
    "Betas", "BrainSource", "CROSSVAL", "Challenge", "FurtherSubject",
    "MASK", "NSDError", "OWN_SPACE", "OwnScans", "OwnStimuli", "Rois",
    "Stimuli", "Subject", "SurfaceSubject", "betas_facts", "ceiling_text", "dropped_notes", "load_betas",
    "mindeye_betas", "open_source", "read_surface_session", "save_betas", "simulate", "user_betas",
]  # fmt: skip


def open_source(source: Source, params: BetasParams | None = None) -> BrainSource:
    """Open the subject of an NSD folder or of the Algonauts challenge, or own scans; no large file is read.

    Raises
    ------
    NSDError
        If nothing was chosen, a file is missing, or the folder has no such subject.
    """
    if source.further:
        _check_further(source)
        return open_further(source, params)
    if source.own:
        return OwnScans(source, params)
    if source.challenge:
        return Challenge(source, params)
    stray = [name for name in ("mask", "trials", "images", "captions", "anatomy", "rois") if getattr(source, name)]
    if not source.nsd_dir:
        got = f"{', '.join(stray)} without betas" if stray else "neither"
        raise NSDError(
            f"source must be an NSD folder or own scans, got {got}. "
            "Choose the folder that holds nsddata, or a 4-D NIfTI of betas with its mask and trials."
        )
    on_surface = params is not None and params.space in SURFACES
    return (SurfaceSubject if on_surface else Subject)(source.nsd_dir, source.subject, params)


def _check_further(source: Source) -> None:
    """Raise NSDError unless a further test set stands beside an NSD folder."""
    if source.own or source.challenge or not source.nsd_dir:
        got = source.betas or source.nsd_dir or "none"
        raise NSDError(
            f"test_set {source.test_set} must stand beside an NSD folder, got {got}. Give the folder that holds "
            "nsddata and nsddata_betas, or leave --test-set out."
        )


def __getattr__(name: str) -> Any:
    if name == "simulate":
        return importlib.import_module(".simulate", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
