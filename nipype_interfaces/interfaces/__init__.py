"""Thin Nipype interfaces: files in, one call of the core, files out."""

from .data import CheckModels, LoadNSDBetas, NSDIndex, PrepareBetas
from .decoding import Decode, ExtractFeatures, FitDecoder, JoinDecoders
from .recon import CollectImages, GuidedReconstruct
from .results import ContributionMap, EvaluateReconstruction, GroupReport, SubjectReport
from .sink import DerivativesSink

__all__ = [
    "CheckModels",
    "CollectImages",
    "ContributionMap",
    "Decode",
    "DerivativesSink",
    "EvaluateReconstruction",
    "ExtractFeatures",
    "FitDecoder",
    "GroupReport",
    "GuidedReconstruct",
    "JoinDecoders",
    "LoadNSDBetas",
    "NSDIndex",
    "PrepareBetas",
    "SubjectReport",
]
