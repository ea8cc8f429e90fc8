"""Pictures that every run is compared with and that take no diffusion: the decoded start, the mean training image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core.base.contracts import Pictures, SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.diffusion.pipeline import decode_start
from napari_neuraldiffuser.core.evaluation.controls import MEAN, START
from napari_neuraldiffuser.core.job.pictures import SeenPictures, spooled
from napari_neuraldiffuser.core.networks.embeddings import TargetFile, rows_of
from napari_neuraldiffuser.core.networks.models import Models

AT_ONCE = 8
"""Latents that are decoded, and training images that are read, at once."""
MEAN_OF = 1000
"""Most training images that the mean is of: of more it hardly changes, and NSD's 9,000 take minutes to read."""


@dataclass(frozen=True)
class Baselines:
    """What the controls of a run are made from.

    Attributes
    ----------
    embeddings : Path
        Decoded embeddings, whose z are the starts.
    train_ids : sequence of int
        Stimuli that the decoder was fitted on.
    mean : ndarray (H, W, 3) uint8, optional
        Their mean image, where it is there already.
    """

    embeddings: Path
    train_ids: StimulusIds
    mean: np.ndarray | None = None


@dataclass(frozen=True)
class Same:
    """One picture (H, W, 3) uint8 for every stimulus."""

    picture: np.ndarray
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> np.ndarray:
        return self.picture


def starts(embeddings: Path, stimulus_ids: StimulusIds, models: Models, progress: Progress) -> Iterator[np.ndarray]:
    """Decoded starting points of some stimuli, in parts (m, H, W, 3) uint8."""
    with TargetFile(embeddings) as decoded:
        rows, z = rows_of(decoded.stimulus_ids, stimulus_ids), decoded["z"]
        for first in range(0, len(rows), AT_ONCE):
            progress(first, len(rows), "decoded starts")
            part = rows[first : first + AT_ONCE]
            yield decode_start(np.stack([z[row] for row in part]).astype(np.float32), models)
    progress(len(rows), len(rows), "decoded starts")


def mean_image(stimuli: SeenImages, train_ids: StimulusIds, progress: Progress) -> np.ndarray:
    """Pixelwise mean (H, W, 3) uint8 of up to `MEAN_OF` training images, evenly spaced in their order."""
    ids = np.unique(np.asarray(train_ids))
    chosen = ids[np.linspace(0, len(ids) - 1, min(len(ids), MEAN_OF)).round().astype(int)]
    total = np.zeros(1)
    for first in range(0, len(chosen), AT_ONCE):
        progress(first, len(chosen), "mean training image")
        total = total + stimuli[chosen[first : first + AT_ONCE]].sum(axis=0, dtype=np.float64)
    progress(len(chosen), len(chosen), "mean training image")
    return (total / len(chosen)).round().astype(np.uint8)


@contextmanager
def control_pictures(
    baselines: Baselines, seen: SeenPictures, models: Models, progress: Progress
) -> Iterator[dict[str, Pictures]]:
    """Pictures of every control by its name, an item (H, W, 3) uint8 for each seen image."""
    mean = mean_image(seen.stimuli, baselines.train_ids, progress) if baselines.mean is None else baselines.mean
    with spooled(starts(baselines.embeddings, seen.stimulus_ids, models, progress)) as pictures:
        yield {START: pictures, MEAN: Same(mean, len(seen))}
