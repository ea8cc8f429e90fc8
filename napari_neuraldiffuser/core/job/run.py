"""The whole job for one subject: NSD files in; images, scores, contribution maps and a page out."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_neuraldiffuser.core import attribution, nsd
from napari_neuraldiffuser.core.base.files import fingerprint, make_folder
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.decoding import RidgeDecoder
from napari_neuraldiffuser.core.job.images import ReconJob, reconstruct_arms, write_failed
from napari_neuraldiffuser.core.job.page import PageParts, page_facts, write_page
from napari_neuraldiffuser.core.job.resume import Stages
from napari_neuraldiffuser.core.job.scores import ROI_FAMILIES, first_test, map_families, score_arms
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks import embeddings
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.outputs.names import Derivatives, names_of, remove_stale
from napari_neuraldiffuser.core.outputs.report.page import ReportData
from napari_neuraldiffuser.core.outputs.sidecars import Facts, write_sidecars
from napari_neuraldiffuser.core.params import TARGETS

__all__ = ["ALGORITHM_VERSION", "Job", "JobResult", "ROI_FAMILIES", "map_families", "run_subject"]

ALGORITHM_VERSION = 1
"""Counted up when a change of the code changes results, so that old stages are not taken for new ones."""


@dataclass
class JobResult:
    """What was written, the stimuli that failed (empty when all is well), and what the page shows."""

    page: Path
    summary: Path
    failed: list[int]
    shown: ReportData


@dataclass
class Run:
    """What the stages of one job hand on to each other."""

    job: Job
    progress: Progress
    subject: Any
    train: Any
    test: Any
    models: Any
    stages: Stages
    inputs: str
    notes: list[str]

    @property
    def places(self) -> Derivatives:
        return self.job.places


def run_subject(job: Job, progress: Progress = silent) -> JobResult:
    """Run every stage of one subject that is not complete already.

    Raises
    ------
    UserError
        On bad input; the message names the file and the remedy.
    """
    make_folder(job.out_dir)
    run = prepare(job, progress)
    decoder = fit(run)
    decoded = decode(run, decoder)
    failed = reconstruct(run, decoded)
    asked = decoded.stimulus_ids
    decoded = decoded.subset([s for s in decoded.stimulus_ids if int(s) not in failed])
    summary, table = score(run, decoded.stimulus_ids)
    maps = contributions(run, decoder, decoded.stimulus_ids)
    write_failed(run.places.failed, failed)
    shown = page(run, decoder, decoded, (summary, table, maps, failed))
    remove_stale(run.places, names_of(run.places, maps.volumes, asked, job.settings.diffusion.repeats))
    write_sidecars(run.places, Facts.of(job, run.models.digest, run.notes))
    return JobResult(run.places.page, run.places.summary, failed, shown)


def prepare(job: Job, progress: Progress) -> Run:
    """Read the betas, choose the test stimuli, open the models."""
    subject = nsd.open_source(job.scans, job.settings.betas)
    progress(0, 1, "reading betas")
    betas = subject.betas()
    train, _ = betas.split()
    test = first_test(betas, job.n_stimuli)
    progress(1, 1, "reading betas")
    models = model_folder.load(job.models, job.guide, job.device)
    read = [_stamp(part) for part in (betas.data, betas.stimulus_ids, betas.shared, betas.voxels)]
    inputs = fingerprint([ALGORITHM_VERSION, models.digest, job.settings.betas, *read, *_own_stimuli(subject, betas)])
    notes = [*betas.notes, *nsd.dropped_notes(betas.dropped)]
    notes += subject.stimuli.notes if job.scans.own else []
    stages = Stages(make_folder(job.work / "stages"), job.resume)
    return Run(job, progress, subject, train, test, models, stages, inputs, notes)


def _stamp(values: np.ndarray) -> str:
    """Digest of an array's bytes: the betas as they were read, so that any change of any file counts."""
    return hashlib.sha256(np.ascontiguousarray(values)).hexdigest()


def _own_stimuli(subject: Any, betas: Any) -> list[str]:
    """Digest of the images and captions of own scans, whose ids are indices; a 73k id says which image it is."""
    if not isinstance(subject, nsd.OwnScans):
        return []
    return [subject.stimuli.fingerprint(np.unique(betas.stimulus_ids))]


def _targets(run: Run, which: str, betas: Any) -> embeddings.TargetFile:
    path = run.job.work / f"{run.places.label}_desc-{which}targets_embeddings.h5"
    if not run.job.resume:
        path.unlink(missing_ok=True)
    params = run.job.settings.features
    return embeddings.extract(run.models, run.subject.stimuli, betas.stimulus_ids, path, params, run.progress)


def fit(run: Run) -> RidgeDecoder:
    """Target embeddings of the training images, then the ridge decoder."""
    settings = run.job.settings
    targets = _targets(run, "train", run.train)
    path = run.job.work / f"{run.places.label}_desc-ridge_decoder.h5"

    def work() -> None:
        decoder = RidgeDecoder(settings.decoding).fit(run.train, targets, progress=run.progress)
        decoder.save(path)

    run.stages.run("decoder", [run.inputs, settings.features, settings.decoding], [path], work)
    return RidgeDecoder.load(path)


def decode(run: Run, decoder: RidgeDecoder) -> embeddings.Embeddings:
    """Decoded embeddings of the test stimuli."""
    path, settings = run.places.embeddings, run.job.settings
    made_from = [run.inputs, settings.features, settings.decoding, run.test.stimulus_ids]

    def work() -> None:
        decoded = decoder.predict(run.test)
        decoded.attrs.update(feature_normalisation=settings.features.feature_normalisation)
        decoded.save(path)

    run.stages.run("decoded", made_from, [path], work)
    return embeddings.Embeddings.load(path)


def reconstruct(run: Run, decoded: embeddings.Embeddings) -> list[int]:
    """Both arms; returns the stimuli that failed."""
    settings = run.job.settings
    made_from = fingerprint([run.inputs, settings.features, settings.decoding, decoded.stimulus_ids])
    recon = ReconJob(decoded, run.models, settings, run.places, run.stages, made_from)
    return reconstruct_arms(recon, run.progress)


def score(run: Run, stimulus_ids: np.ndarray) -> tuple[dict, pd.DataFrame]:
    """Scores of both arms, as a summary and a table."""
    settings = run.job.settings
    return score_arms(run.places, run.subject.stimuli, run.models, (stimulus_ids, settings), run.progress)


def contributions(run: Run, decoder: RidgeDecoder, stimulus_ids: np.ndarray) -> attribution.ContributionMaps:
    """Product-measure contribution maps of the test stimuli, whose true targets are known."""
    families = [run.subject.rois(name) for name in map_families(run.subject)]
    test = run.test.subset(stimulus_ids)
    run.progress(0, len(TARGETS), "contribution maps")
    maps = attribution.map(decoder, test, families, _targets(run, "test", test), run.job.settings.contribution)
    maps.save(run.places.folder, run.places.label)
    run.progress(len(TARGETS), len(TARGETS), "contribution maps")
    return maps


def page(run: Run, decoder: RidgeDecoder, decoded: embeddings.Embeddings, found: tuple) -> ReportData:
    """`sub-01.html` from what the stages found."""
    summary, table, maps, failed = found
    about = {
        "training images": len(run.train.stimulus_ids),
        "test images": len(run.test.stimulus_ids),
        "trials per test image": float(np.mean(run.test.repeats)),
        "voxels": run.train.data.shape[1],
    }
    parts = PageParts(
        subject=run.subject,
        models=run.models,
        places=run.places,
        decoded=decoded,
        summary=summary,
        scores=table,
        contribution=maps.table,
        volumes=maps.volumes,
        accuracy={target: fit.best_r2 for target, fit in decoder.accuracy.items()},
        settings=run.job.settings,
        facts=page_facts(run.job.subject, run.models, about),
        notes=run.notes,
        command=run.job.command,
        failed=failed,
    )
    return write_page(parts, run.stages, run.progress)
