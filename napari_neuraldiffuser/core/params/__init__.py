"""One frozen dataclass per stage: default, limits, unit and help text of every parameter.

The napari controls, the Nipype traits and the command-line options are generated from the field metadata written in
this folder, so a default stands here and nowhere else.  Standard library only.
"""

from napari_neuraldiffuser.core.base.fields import ParamError, Params, default_of, param
from napari_neuraldiffuser.core.base.presets import PRESETS
from napari_neuraldiffuser.core.base.registry import LAYERS, SPACES, TARGETS
from napari_neuraldiffuser.core.params.betas import BetasParams, BoldParams
from napari_neuraldiffuser.core.params.crossval import CrossvalParams
from napari_neuraldiffuser.core.params.decoding import DecodingParams, FeatureParams
from napari_neuraldiffuser.core.params.diffusion import DiffusionParams, GuidanceParams, preset
from napari_neuraldiffuser.core.params.results import ContributionParams, EvaluationParams, WorkflowParams
from napari_neuraldiffuser.core.params.settings import Settings, settings_from_dict
from napari_neuraldiffuser.core.params.simulation import BoldSimulationParams, SimulationParams
from napari_neuraldiffuser.core.params.tune import TuneParams

__all__ = [
    "LAYERS",
    "PRESETS",
    "SPACES",
    "TARGETS",
    "BetasParams",
    "BoldParams",
    "BoldSimulationParams",
    "ContributionParams",
    "CrossvalParams",
    "DecodingParams",
    "DiffusionParams",
    "EvaluationParams",
    "FeatureParams",
    "GuidanceParams",
    "ParamError",
    "Params",
    "Settings",
    "SimulationParams",
    "TuneParams",
    "WorkflowParams",
    "default_of",
    "param",
    "preset",
    "settings_from_dict",
]
