"""Nested cross-validation: every stimulus of a small set decoded by a decoder that has not seen it."""

from napari_neuraldiffuser.core.decoding.crossval.folds import deal
from napari_neuraldiffuser.core.decoding.crossval.scores import NULL_TEXT, TargetScore, TwoWay, score_target
from napari_neuraldiffuser.core.decoding.crossval.validate import CrossValidation, Fold, cross_validate

__all__ = ["NULL_TEXT", "CrossValidation", "Fold", "TargetScore", "TwoWay", "cross_validate", "deal", "score_target"]
