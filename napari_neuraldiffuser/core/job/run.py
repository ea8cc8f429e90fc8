"""The whole job for one subject in one process: NSD files in; images, scores, contribution maps and a page out."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile

import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.files import array_digest, atomic_path, make_folder
from napari_neuraldiffuser.core.base.lock import held, output_lock
from napari_neuraldiffuser.core.base.names import ACCURACY, Derivatives, names_of, remove_stale
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.registry import TARGETS
from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.job.check import check_job
from napari_neuraldiffuser.core.job.controls import Baselines
from napari_neuraldiffuser.core.job.images import ImageJob, reconstruct_arms, write_failed
from napari_neuraldiffuser.core.job.inputs import Inputs
from napari_neuraldiffuser.core.job.made_from import Origin
from napari_neuraldiffuser.core.job.page import PageParts, write_page
from napari_neuraldiffuser.core.job.region_accuracy import region_accuracy
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.job.scores import score_arms
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.job.trust.parts import TrustParts
from napari_neuraldiffuser.core.job.trust.sheet import write_trust
from napari_neuraldiffuser.core.job.worth import single_trials, worth
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.outputs import complete
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars

__all__ = ["Job", "JobResult", "run_subject"]


@dataclass(frozen=True)
class JobResult:
    """What was written, the stimuli that failed (empty when all is well), and what was left out or has no value."""

    page: Path
    summary: Path
    failed: list[int]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Given:
    """What a front end has ready already, so that it is neither read nor fitted again.

    Attributes
    ----------
    inputs : Inputs
        Of the job's source and settings.
    models : Models
    decoder : callable
        Gives the file of the decoder of both, fitted where that was not done yet.
    """

    inputs: Inputs
    models: model_folder.Models
    decoder: Callable[[], Path]


@dataclass(frozen=True)
class Run:
    """What the stages of one job have in common."""

    job: Job
    progress: Progress
    inputs: Inputs
    models: model_folder.Models
    records: Records
    origin: Origin
    given: Given | None = None

    @property
    def places(self) -> Derivatives:
        return self.job.places

    def work_file(self, name: str) -> Path:
        """A file of the work folder."""
        return self.job.work / f"{self.places.label}_{name}.h5"


def run_subject(job: Job, progress: Progress = lambda done, total, what: None, given: Given | None = None) -> JobResult:
    """Run every stage of one subject that is not complete already.

    Parameters
    ----------
    job : Job
    progress : callable
    given : Given, optional
        Betas, models and decoder that are there already; all are read and fitted where None.

    Raises
    ------
    UserError
        On bad input, or while another process writes this subject; the message names the remedy.
    """
    check_job(job)
    with held(*output_lock(job.out_dir, job.places.label)):
        return _run(job, progress, given)


def _run(job: Job, progress: Progress, given: Given | None) -> JobResult:
    run = prepare(job, progress, given)
    decoder = fit(run)
    complete.reopen(run.places)
    decoded = decode(run, decoder)
    failed = reconstruct(run, decoded)
    whole = [int(s) for s in decoded.stimulus_ids if int(s) not in failed]
    baselines = Baselines(run.places.embeddings, run.inputs.train.stimulus_ids)
    score_arms(run.places, run.inputs.subject.stimuli, run.models, whole, job.settings, progress, baselines)
    names = contribution(run, decoder, whole)
    trust(run, decoder, whole)
    write_failed(run.places, failed)
    notes = page(run, decoder, names, whole, failed)
    kept = names_of(run.places, names, decoded.stimulus_ids, job.settings.diffusion.repeats)
    remove_stale(run.places, kept)
    write_sidecars(run.places, Facts.of(job, run.models.digest, notes))
    complete.vouch(run.places)
    return JobResult(run.places.page, run.places.summary, failed, notes)


def prepare(job: Job, progress: Progress, given: Given | None = None) -> Run:
    """Open the models, read the betas, choose the test stimuli."""
    models = model_folder.load(job.models, job.guide, job.device) if given is None else given.models
    progress(0, 1, "reading betas")
    inputs = (_read(job) if given is None else _fingerprinted(given.inputs)).first_test(job.n_stimuli)
    progress(1, 1, "reading betas")
    records = Records(make_folder(job.work / "stages"), job.resume)
    origin = Origin(inputs.digest, inputs.stimuli, models.digest)
    return Run(job, progress, inputs, models, records, origin, given)


def _read(job: Job) -> Inputs:
    subject = nsd.open_source(job.scans, job.settings.betas)
    return _fingerprinted(Inputs.of(subject, subject.betas()))


def _fingerprinted(inputs: Inputs) -> Inputs:
    """The inputs with the stimuli's own fingerprint, which a plain run keeps."""
    ids = np.union1d(inputs.train.stimulus_ids, inputs.test.stimulus_ids)
    return replace(inputs, stimuli=inputs.subject.stimuli.fingerprint(ids))


def _targets_file(run: Run, which: str) -> Path:
    return run.work_file(f"desc-{which}targets_embeddings")


def _targets(run: Run, which: str, betas: nsd.Betas) -> Path:
    path, stimuli = _targets_file(run, which), run.inputs.subject.stimuli
    if not run.job.resume:
        path.unlink(missing_ok=True)
    return stages.targets(run.models, stimuli, betas.stimulus_ids, path, run.job.settings.features, run.progress)


def fit(run: Run) -> Path:
    """Target embeddings of the training images, then the decoder; or the one that is there already."""
    settings, train = run.job.settings, run.inputs.train
    path = run.work_file(f"desc-{settings.decoding.decoder}_decoder")

    def work() -> None:
        if run.given is not None:
            with atomic_path(path) as temporary:
                copyfile(run.given.decoder(), temporary)
        else:
            rows = _targets(run, "train", train)
            stages.fit(train, rows, path, settings.decoding, run.progress, resume=run.job.resume)

    files, targets = [path], _targets_file(run, "train")
    if run.given is None and stages.refers(settings.decoding, targets, path):
        # without them the decoder is none
        files.append(targets)
    run.records.make("decoder", run.origin.decoder(settings), files, work)
    return path


def decode(run: Run, decoder: Path) -> Embeddings:
    """Decoded embeddings of the test stimuli."""
    path, test = run.places.embeddings, run.inputs.test

    def work() -> None:
        with stages.opened(decoder) as known:
            stages.decode(known, test, path)

    made_from = run.origin.decoded(run.origin.decoder(run.job.settings), test.stimulus_ids)
    run.records.make("decoded", made_from, [path], work)
    return Embeddings.load(path)


def reconstruct(run: Run, decoded: Embeddings) -> list[int]:
    """Both arms; returns the stimuli that failed."""
    return reconstruct_arms(ImageJob(decoded, run.models, run.job.settings, run.places, run.records), run.progress)


def contribution(run: Run, decoder: Path, stimulus_ids: list[int]) -> list[str]:
    """Contribution maps of the test stimuli, whose true targets are known; returns the targets that have one."""
    test, params = run.inputs.test.subset(stimulus_ids), run.job.settings.contribution
    run.progress(0, len(TARGETS), "contribution maps")
    targets = _targets(run, "test", test)
    maps = stages.contribution(decoder, test, run.inputs.subject, targets, run.places, params)
    run.progress(len(TARGETS), len(TARGETS), "contribution maps")
    _worth(run, decoder, test, targets)
    _regions(run, decoder, test, targets, maps.mapped)
    return maps.mapped


def _worth(run: Run, decoder: Path, test: nsd.Betas, targets: Path) -> None:
    """What decoded values are worth; single trials are read where the table is not there yet."""
    settings, places = run.job.settings, run.places

    def work() -> None:
        trials = single_trials(run.job.scans, settings.betas, test, settings.contribution)
        worth(decoder, test, trials, targets, places, settings.contribution, run.progress)

    decoded = run.origin.decoded(run.origin.decoder(settings), test.stimulus_ids)
    # projected targets are not there for every decoder
    run.records.make("worth", run.origin.maps(decoded, settings, "worth"), [places.worth], work)


def _regions(run: Run, decoder: Path, test: nsd.Betas, targets: Path, mapped: list[str]) -> None:
    """What single regions decode; all of it is made again where a file of it is gone."""
    settings, places, subject = run.job.settings, run.places, run.inputs.subject
    if not settings.contribution.region_accuracy:
        remove_stale(places, (), ACCURACY)
        return

    def work() -> None:
        known = (_targets_file(run, "train"), targets)
        train = run.inputs.train
        region_accuracy(decoder, train, test, subject, known, places, settings.contribution, run.progress)

    labels = [(name, array_digest(subject.rois(name).labels)) for name in subject.mapped_families()]
    decoded = run.origin.decoded(run.origin.decoder(settings), test.stimulus_ids)
    files = [places.region_scores, *(path for target in mapped for path in places.accuracy_maps(target))]
    run.records.make("regions", run.origin.maps(decoded, settings, ["accuracy", *labels]), files, work)


def trust(run: Run, decoder: Path, stimulus_ids: list[int]) -> None:
    """The trust sheet, in the summary of the scores."""
    places = run.places
    parts = TrustParts(
        places,
        run.inputs.subject.stimuli,
        stimulus_ids,
        run.models,
        run.job.settings,
        places.embeddings,
        run.inputs.train.stimulus_ids,
        decoder,
        _targets_file(run, "train"),
        _targets_file(run, "test"),
        places.worth,
        (run.inputs.train, run.inputs.test),
        run.records,
    )
    write_trust(parts, run.progress)


def page(run: Run, decoder: Path, targets: list[str], stimulus_ids: list[int], failed: list[int]) -> list[str]:
    """`sub-01.html` from what the stages made; returns its notes."""
    job, inputs, places = run.job, run.inputs, run.places
    parts = PageParts(
        embeddings=places.embeddings,
        decoder=decoder,
        scores=places.scores,
        summary=places.summary,
        table=places.contribution_table,
        worth=places.worth,
        regions=places.region_scores,
        maps=[path for target in targets for path in places.maps(target)],
        settings=job.settings,
        stimulus_ids=stimulus_ids,
        failed=failed,
        counts=inputs.counts,
        notes=inputs.notes,
        command=job.command,
    )
    return write_page(parts, inputs.subject, run.models, places, run.records, run.progress)
