"""What the voxels of each region alone decode, for one subject: decoder, betas and true targets in; table and maps
out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import atomic_path
from napari_neuraldiffuser.core.base.names import ACCURACY, Derivatives, remove_stale
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.decoding.decoder import Decoder
from napari_neuraldiffuser.core.decoding.solver import Spectrum
from napari_neuraldiffuser.core.decoding.worth import RegionAccuracy, Voxels, by_region
from napari_neuraldiffuser.core.job.stages import opened
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks.embeddings import Targets
from napari_neuraldiffuser.core.params import ContributionParams

NO_TARGETS = "what single regions decode is not told, as neither the decoder nor the run has its training targets"


def region_accuracy(
    decoder: Path,
    train: nsd.Betas,
    test: nsd.Betas,
    subject: nsd.BrainSource,
    targets: tuple[Path | None, Path],
    places: Derivatives,
    params: ContributionParams,
    progress: Progress = silent,
) -> list[Path]:
    """Judge every region of the mapped families, and write the table and a map per target to the subject's folder.

    Those of an earlier run that are not written again are removed.

    Parameters
    ----------
    decoder : Path
        Its penalties are tried; a ridge decoder lends its decomposition and its training targets.
    train, test : Betas
    subject : BrainSource
        Has the regions.
    targets : (Path or None, Path)
        True targets of the training stimuli, needed where the decoder has none, and of the test stimuli.
    places : Derivatives
    params : ContributionParams
    progress : callable

    Returns
    -------
    list of Path
        Table and maps; nothing where it is turned off or there are no training targets.

    Raises
    ------
    DecodingError
        If a stimulus has no targets.
    """
    written: list[Path] = []
    if params.region_accuracy:
        families = [subject.rois(name) for name in subject.mapped_families()]
        with (
            opened(decoder) as known,
            training_targets(known, targets[0]) as learned,
            embeddings.TargetFile(targets[1]) as own,
        ):
            if learned is None:
                progress(0, 0, NO_TARGETS)
            else:
                voxels = Voxels(train, test, learned, own, families, _spectrum(known, train))
                written = save(by_region(voxels, known.params, params, progress), test, places)
    remove_stale(places, {path.name for path in written}, ACCURACY)
    return written


@contextmanager
def training_targets(decoder: Decoder, path: Path | None) -> Iterator[Targets | None]:
    """The training targets of a decoder, else those of a file."""
    if getattr(decoder, "targets", None) is not None:
        yield decoder.targets  # type: ignore[attr-defined]
    elif path is not None and path.is_file():
        with embeddings.TargetFile(path) as targets:
            yield targets
    else:
        yield None


def _spectrum(decoder: Decoder, train: nsd.Betas) -> Spectrum | None:
    """The decoder's decomposition, if it is of these betas."""
    if not isinstance(decoder, RidgeDecoder) or decoder.compacted:
        return None
    same = np.array_equal(decoder.stimulus_ids, train.stimulus_ids) and decoder.x.shape == train.data.shape
    return decoder.spectrum if same else None


def save(found: RegionAccuracy, betas: nsd.Betas, places: Derivatives) -> list[Path]:
    """Write the table, and a map per target in the space of the betas; none of betas without geometry."""
    written = [found.save(places.region_scores)]
    for path, image in _images(found, betas, places):
        with atomic_path(path) as temporary:
            nibabel.save(image, temporary)
        written.append(path)
    return written


def _images(found: RegionAccuracy, betas: nsd.Betas, places: Derivatives) -> Iterator[tuple[Path, Any]]:
    for target, values in found.best.items() if betas.voxels is not None else ():
        images = betas.to_surface(values).values() if betas.on_surface else [betas.to_volume(values)]
        yield from zip(places.accuracy_maps(target), images, strict=True)
