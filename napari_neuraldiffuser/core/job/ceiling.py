"""The ceiling of picture scores: the seen images, encoded and decoded by the autoencoder alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Pictures
from napari_neuraldiffuser.core.base.files import array_digest, fingerprint, json_object
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.diffusion.pipeline import to_images
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.params import EvaluationParams

AT_ONCE = 8
"""Images that are encoded and decoded at once."""


def round_trip(seen: Pictures, models: Models, progress: Progress) -> Iterator[np.ndarray]:
    """What a perfect z alone would show (method.md eq. 52): seen images (H', W', 3) uint8 to parts (m, H, W, 3)."""
    for first in range(0, len(seen), AT_ONCE):
        progress(first, len(seen), "ceiling of scores")
        part = np.stack([seen[i] for i in range(first, min(first + AT_ONCE, len(seen)))])
        yield to_images(models, models.encode_images(part))


def made_from(seen: Pictures, models: Models, params: EvaluationParams) -> str:
    """Differs when the ceiling does."""
    pictures = [array_digest(seen[i]) for i in range(len(seen))]
    return fingerprint(["ceiling", pictures, models.digest, params.but(trust="none", trust_stimuli=1)])


def known_ceiling(places: Derivatives, key: str) -> dict[str, float] | None:
    """The levels that the subject's summary has of the same images, models and parameters."""
    protocol = (json_object(places.summary) or {}).get("protocol")
    told: Any = protocol.get("ceiling") if isinstance(protocol, dict) else None
    if isinstance(told, dict) and told.get("made_from") == key and isinstance(told.get("levels"), dict):
        return dict(told["levels"])
    return None
