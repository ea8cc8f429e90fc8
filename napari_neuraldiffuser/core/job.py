"""The whole job for one subject: NSD files in; images, scores, contribution maps and a page out."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import contribution, embeddings, evaluation, nsd
from . import models as model_folder
from .decoding import RidgeDecoder
from .derivatives import ARMS, Derivatives, write_description
from .errors import UserError
from .files import atomic_path, fingerprint, make_folder, write_json
from .job_report import write_page
from .params import TARGETS, Settings
from .recipe import Source
from .recon_files import ReconJob, read_arm, reconstruct_arms
from .report import ReportData
from .stages import Stages

Progress = Callable[[int, int, str], None]
ROI_FAMILIES = ("prf-visualrois", "floc-faces", "floc-bodies", "floc-places", "floc-words")
ALGORITHM_VERSION = 1
"""Counted up when a change of the code changes results, so that old stages are not taken for new ones."""


@dataclass(frozen=True)
class Job:
    """What to run and where.

    Attributes
    ----------
    nsd_dir, out_dir : Path
        NSD tree, and the output folder of all subjects.
    subject : str
        `subj01` ...
    settings : Settings
    models : str
        `"demo"`, a model folder or a hub id; `guide` and `device` as in `models.load`.
    n_stimuli : int or None
        The first so many test stimuli; all where None.
    work_dir : Path or None
        Targets, the decoder and the records of finished stages; `OUT_DIR/work` where None.
    command : str
        What the user typed, for the page.
    source : Source or None
        Where the scans come from, own scans included; then `nsd_dir` and `subject` are taken from it.
    """

    nsd_dir: Path
    out_dir: Path
    subject: str = "subj01"
    settings: Settings = field(default_factory=Settings)
    models: str = "demo"
    guide: str | None = None
    device: str = "cpu"
    n_stimuli: int | None = None
    work_dir: Path | None = None
    resume: bool = True
    command: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        if self.source is not None:
            object.__setattr__(self, "nsd_dir", Path(self.source.nsd_dir))
            object.__setattr__(self, "subject", self.source.subject)

    @property
    def scans(self) -> Source:
        """`source`, or the one that `nsd_dir` and `subject` describe."""
        return self.source or Source(nsd_dir=str(self.nsd_dir), subject=self.subject)

    @property
    def places(self) -> Derivatives:
        space = nsd.OWN_SPACE if self.scans.own else self.settings.betas.space
        return Derivatives(Path(self.out_dir), self.subject, space)

    @property
    def work(self) -> Path:
        return Path(self.work_dir or Path(self.out_dir) / "work") / self.places.label


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


def run_subject(job: Job, progress: Progress = lambda done, total, what: None) -> JobResult:
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
    decoded = decoded.subset([s for s in decoded.stimulus_ids if int(s) not in failed])
    summary, table = score(run, decoded.stimulus_ids)
    maps = contributions(run, decoder, decoded.stimulus_ids)
    _write_failed(run, failed)
    write_description(job.out_dir)
    shown = write_page(run, decoder, decoded, summary, table, maps)
    return JobResult(run.places.page, run.places.summary, failed, shown)


def prepare(job: Job, progress: Progress) -> Run:
    """Read the betas, choose the test stimuli, open the models."""
    subject = nsd.open_source(job.scans, job.settings.betas)
    progress(0, 1, "reading betas")
    betas = subject.betas()
    train, test = betas.split()
    if job.n_stimuli is not None:
        if job.n_stimuli < 2:
            raise UserError(f"--n-stimuli must be at least 2 (scores compare stimuli), got {job.n_stimuli}.")
        test = test.subset(test.stimulus_ids[: job.n_stimuli])
    progress(1, 1, "reading betas")
    models = model_folder.load(job.models, job.guide, job.device)
    read = [_stamp(part) for part in (betas.data, betas.stimulus_ids, betas.shared, betas.voxels)]
    inputs = fingerprint([ALGORITHM_VERSION, models.digest, job.settings.betas, *read, *_own_stimuli(subject, betas)])
    notes = [*betas.notes, *(f"{n} voxels dropped: {why}." for why, n in betas.dropped.items() if n)]
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
    """Scores of both arms, as a table and a summary."""
    if len(stimulus_ids) < 2:
        raise UserError(f"at least 2 stimuli must be reconstructed to be scored, got {len(stimulus_ids)}.")
    seen = run.subject.stimuli[stimulus_ids]
    repeats, params = run.job.settings.diffusion.repeats, run.job.settings.evaluation
    arms = {}
    for arm in ARMS:
        images = read_arm(run.places, stimulus_ids, repeats, arm)
        arms[arm] = evaluation.evaluate(images, seen, run.models.image_features, params, run.progress)
    table = evaluation.scores_table(arms, stimulus_ids)
    with atomic_path(run.places.scores) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
    summary = evaluation.summarise(arms)
    write_json(run.places.summary, summary)
    return summary, table


def contributions(run: Run, decoder: RidgeDecoder, stimulus_ids: np.ndarray) -> contribution.ContributionMaps:
    """Product-measure contribution maps of the test stimuli, whose true targets are known."""
    families = [run.subject.rois(name) for name in map_families(run.subject)]
    test = run.test.subset(stimulus_ids)
    run.progress(0, len(TARGETS), "contribution maps")
    maps = contribution.map(decoder, test, families, _targets(run, "test", test), run.job.settings.contribution)
    maps.save(run.places.folder, run.places.label)
    run.progress(len(TARGETS), len(TARGETS), "contribution maps")
    return maps


def map_families(subject: Any) -> list[str]:
    """ROI families that contribution maps tell about: NSD's, or the label volumes of own scans (else the mask).

    Raises
    ------
    UserError
        If an NSD subject has none of them.
    """
    names = subject.roi_names()
    if isinstance(subject, nsd.OwnScans):
        return [name for name in names if name != nsd.MASK] or [nsd.MASK]
    found = [name for name in ROI_FAMILIES if name in names]
    if not found:
        raise UserError(
            f"ROI volumes must be there for contribution maps, none of {', '.join(ROI_FAMILIES)} was found "
            f"under {subject.layout.root}. Copy NSD's roi folder of {subject.name}."
        )
    return found


def _write_failed(run: Run, failed: list[int]) -> None:
    path = run.places.failed
    if not failed:
        path.unlink(missing_ok=True)
        return
    table = pd.DataFrame({"stim": failed, "reason": "a latent overflowed: lower guidance_scale or cfg_scale"})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)
