"""The stages of a job that make embeddings and maps: files in, files out.

The plain run, the Nipype nodes and the plugin's engine call these; what differs between them is where files lie, what
is kept, and who is told of progress.  Images, scores and the page have modules of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from napari_neuraldiffuser.core import attribution, decoding, nsd
from napari_neuraldiffuser.core.base.contracts import SeenImages, StimulusIds
from napari_neuraldiffuser.core.base.names import Derivatives
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import JOINT
from napari_neuraldiffuser.core.decoding.network.files import CHECKPOINT
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.params import ContributionParams, DecodingParams, FeatureParams


def targets(
    models: Models,
    stimuli: SeenImages,
    stimulus_ids: StimulusIds,
    path: Path,
    params: FeatureParams,
    progress: Progress | None = None,
) -> Path:
    """Target embeddings of some stimuli; a file that a killed run left unfinished is continued.

    Raises
    ------
    EmbeddingError
        If an image has no caption.
    """
    embeddings.extract(models, stimuli, stimulus_ids, path, params, progress).close()
    return path


def fit(
    train: nsd.Betas,
    targets: Path,
    path: Path,
    params: DecodingParams,
    progress: Progress | None = None,
    names: Sequence[str] | None = None,
    resume: bool = True,
) -> Path:
    """Fit the decoder that the params name, to all targets or those of `names`, and save it.

    A training that was stopped goes on from its last pass unless `resume` is False; its checkpoint is deleted when the
    decoder is saved.

    Raises
    ------
    DecodingError
        If a stimulus has no targets, a value is not finite, or there are too few stimuli.
    """
    trained = params.decoder in JOINT
    if trained and not params.network_folder:
        params = params.but(network_folder=str(training_folder(path)))
    checkpoint = Path(params.network_folder) / CHECKPOINT
    if trained and not resume:
        checkpoint.unlink(missing_ok=True)
    with embeddings.TargetFile(targets) as rows:
        decoder = decoding.new(params).fit(train, rows, progress, names)
        if isinstance(decoder, decoding.RidgeDecoder) and refers(params, targets, path):
            decoder.save(path, "refer")
        else:
            decoder.save(path)
    if trained:
        checkpoint.unlink(missing_ok=True)
    return path


def training_folder(decoder: Path) -> Path:
    """Checkpoint and TensorBoard log of a decoder's training, where the params name no folder."""
    return decoder.with_name(f"{decoder.stem}_training")


def refers(params: DecodingParams, targets: Path, decoder: Path) -> bool:
    """Whether a decoder's file refers to the targets that it is fitted to: asked for, or they lie in one folder."""
    exact = params.decoder == "ridge" and not params.ridge_rank
    beside = targets.resolve().parent == decoder.resolve().parent
    return exact and (params.keep_targets == "refer" or (params.keep_targets == "auto" and beside))


@contextmanager
def opened(path: Path) -> Iterator[decoding.Decoder]:
    """A saved decoder of any kind; the file that it streams its targets from is closed in the end."""
    decoder = decoding.load(path)
    try:
        yield decoder
    finally:
        decoder.close()


def decode(decoder: decoding.Decoder, test: nsd.Betas, path: Path, progress: Progress | None = None) -> Path:
    """Embeddings of all of `test` at once: a product of matrices rounds differently with fewer rows.

    Raises
    ------
    DecodingError
        If the voxels are not those of the decoder.
    """
    replace(decoder.predict(test, progress=progress), labels=test.labels).save(path)
    return path


def contribution(
    decoder: Path,
    test: nsd.Betas,
    subject: nsd.BrainSource,
    targets: Path | None,
    places: Derivatives,
    params: ContributionParams,
    progress: Progress | None = None,
) -> attribution.ContributionMaps:
    """Contribution maps of test stimuli, written with their table to the subject's folder.

    Without `targets`, the true embeddings of the stimuli, shares are of the prediction and not of what it explains.

    Raises
    ------
    ContributionError
        If stimuli have no targets.
    """
    sides = None if params.hemispheres == attribution.TOGETHER else subject.sides()
    whole = [subject.rois(name) for name in subject.mapped_families()]
    families = attribution.by_hemisphere(whole, sides, params.hemispheres)
    truth = embeddings.TargetFile(targets) if targets else None
    try:
        with opened(decoder) as known:
            maps = attribution.map(known, test, families, truth, params, progress)
    finally:
        if truth is not None:
            truth.close()
    maps.save(places.folder, places.label)
    return maps
