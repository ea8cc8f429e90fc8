"""What a score stands between: its chance level and its ceiling, as a summary of scores has them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.evaluation.scores import Scores

CEILING_TEXT = (
    "Ceiling: the score of the seen image encoded and decoded by the autoencoder alone, which is what a perfect z "
    "would show. It bounds what these networks can draw, not what the brain tells; scores between repeats have none."
)
CHANCE_TEXT = "Chance: the score of the same pictures with their stimuli mixed up."


def chance_of(summary: Mapping[str, Any], arm: str, metric: str) -> float | None:
    """Chance level of a score of one arm; None where there is none, as with one stimulus."""
    return summary.get("arms", {}).get(arm, {}).get(metric, {}).get("chance")


def ceiling_of(summary: Mapping[str, Any], metric: str) -> float | None:
    """Ceiling of a score; None of scores between repeats, and in files that have none."""
    return summary.get("protocol", {}).get("ceiling", {}).get("levels", {}).get(metric)


def levels(scores: Scores) -> dict[str, float]:
    """Mean over stimuli of every score that has a value."""
    means = {name: values[np.isfinite(values)] for name in scores.values for values in [scores.per_stimulus(name)]}
    return {name: float(values.mean()) for name, values in means.items() if values.size}


def level(value: float | None, digits: int = 3) -> str:
    """A level as tables show it."""
    return "n/a" if value is None else f"{value:.{digits}f}"
