"""Thin Nipype interfaces: files in, one call of the core, files out."""

from nipype_interfaces.interfaces.betas import BoldRuns, EstimateBetas, JoinBetas
from nipype_interfaces.interfaces.crossval import CrossValidate
from nipype_interfaces.interfaces.data import CheckModels, LoadNSDBetas, NSDIndex, PrepareBetas
from nipype_interfaces.interfaces.decoding import Decode, ExtractFeatures, FitDecoder, JoinDecoders, PretrainNetwork
from nipype_interfaces.interfaces.recon import CollectImages, GuidedReconstruct
from nipype_interfaces.interfaces.results import ContributionMap, EvaluateReconstruction, GroupReport, SubjectReport
from nipype_interfaces.interfaces.sink import DerivativesSink
from nipype_interfaces.interfaces.tune import TuneGuidance

__all__ = [
    "BoldRuns", "CheckModels", "CollectImages", "ContributionMap", "CrossValidate", "Decode", "DerivativesSink",
    "EstimateBetas", "EvaluateReconstruction", "ExtractFeatures", "FitDecoder", "GroupReport", "GuidedReconstruct",
    "JoinBetas", "JoinDecoders", "LoadNSDBetas", "NSDIndex", "PrepareBetas", "PretrainNetwork",
    "SubjectReport", "TuneGuidance",
]  # fmt: skip
