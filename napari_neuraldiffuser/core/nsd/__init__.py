"""NSD files, MindEye2's files and own scans -> trials table, betas, ROIs, stimuli; and a simulator of the first.

`simulate` is imported when first used: reading real data needs nothing of it.
"""

import importlib
from typing import Any

from ..params import BetasParams
from ..recipe import Source
from .betas import Betas
from .betas_file import betas_facts, dropped_notes, load_betas, save_betas
from .errors import NSDError
from .mindeye import mindeye_betas
from .own import MASK, OwnScans
from .own_stimuli import OwnStimuli
from .rois import Rois
from .sessions import read_surface_session
from .stimuli import Stimuli
from .subject import Subject
from .user import OWN_SPACE, user_betas

__all__ = [
    "Betas",
    "MASK",
    "NSDError",
    "OWN_SPACE",
    "OwnScans",
    "OwnStimuli",
    "Rois",
    "Stimuli",
    "Subject",
    "betas_facts",
    "dropped_notes",
    "load_betas",
    "mindeye_betas",
    "open_source",
    "read_surface_session",
    "save_betas",
    "simulate",
    "user_betas",
]


def open_source(source: Source, params: BetasParams | None = None) -> Subject | OwnScans:
    """The subject of an NSD folder, or own scans; opens no large file.

    Raises
    ------
    NSDError
        If nothing was chosen, a file is missing, or the folder is not an NSD tree with the subject.
    """
    if source.own:
        return OwnScans(source, params)
    stray = [name for name in ("mask", "trials", "images", "captions", "anatomy", "rois") if getattr(source, name)]
    if not source.nsd_dir:
        got = f"{', '.join(stray)} without betas" if stray else "neither"
        raise NSDError(
            f"source must be an NSD folder or own scans, got {got}. "
            "Choose the folder that holds nsddata, or a 4-D NIfTI of betas with its mask and trials."
        )
    return Subject(source.nsd_dir, source.subject, params)


def __getattr__(name: str) -> Any:
    if name == "simulate":
        return importlib.import_module(".simulate", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
