"""Evaluation: scores of reconstructions against the seen images, and between repeats."""

from napari_neuraldiffuser.core.evaluation.metric import Metric, Stimulus
from napari_neuraldiffuser.core.evaluation.metrics import MetricError
from napari_neuraldiffuser.core.evaluation.scores import Scores, evaluate, scores_table, summarise

__all__ = ["Metric", "MetricError", "Scores", "Stimulus", "evaluate", "scores_table", "summarise"]
