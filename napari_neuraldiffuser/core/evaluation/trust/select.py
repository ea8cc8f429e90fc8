"""One of several repeats: the first, or the one that agrees best with what was decoded, whatever was seen."""

import numpy as np

from napari_neuraldiffuser.core.evaluation.trust.rows import Values

SELECTOR = (
    "the repeat whose features, of the guide network at the run's guidance layers, correlate best with the decoded "
    "g, both minus the training mean (mean over layers): chosen from fMRI alone, no seen image is looked at"
)


def first(values: Values) -> dict[str, np.ndarray]:
    """Scores of the first repeat alone, (n, 1), without those between repeats."""
    return {metric: scores[:, :1] for metric, scores in values.items() if not metric.startswith("repeat_")}


def chosen(values: Values, choice: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (n, 1) of repeat `choice` (n,) of every stimulus, without those between repeats."""
    rows = np.arange(len(choice))
    known = {metric: scores for metric, scores in values.items() if not metric.startswith("repeat_")}
    return {metric: scores[rows, choice][:, None] for metric, scores in known.items()}


def choose(agreement: np.ndarray) -> np.ndarray:
    """Repeat (n,) of the highest agreement (n, repeats); the first one where there is no value."""
    return np.where(np.isfinite(agreement), agreement, -np.inf).argmax(axis=1)
