"""NSD files, MindEye2's files and own scans -> trials table, betas, ROIs, stimuli; and a simulator of the first.

`simulate` is imported when first used: reading real data needs nothing of it.
"""

import importlib
from typing import Any

from .betas import Betas
from .errors import NSDError
from .mindeye import mindeye_betas
from .rois import Rois
from .sessions import read_surface_session
from .stimuli import Stimuli
from .subject import Subject
from .user import user_betas

__all__ = [
    "Betas",
    "NSDError",
    "Rois",
    "Stimuli",
    "Subject",
    "mindeye_betas",
    "read_surface_session",
    "simulate",
    "user_betas",
]


def __getattr__(name: str) -> Any:
    if name == "simulate":
        return importlib.import_module(".simulate", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
