"""Scores of one picture for each stimulus."""

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.job.pictures import SeenPictures
from napari_neuraldiffuser.core.job.scores import score
from napari_neuraldiffuser.core.job.trust.parts import TrustParts


def scored(
    parts: TrustParts, pictures: Pictures, progress: Progress, seen: SeenPictures | None = None
) -> dict[str, np.ndarray]:
    """Scores (n, 1) by metric, without those between repeats; none where only those are asked for."""
    params = parts.settings.evaluation
    metrics = tuple(name for name in params.metrics if not name.startswith("repeat_"))
    if not metrics:
        return {}
    own = params.but(metrics=metrics)
    return score(pictures, seen or parts.seen, parts.models, own, progress, with_chance=False).values
