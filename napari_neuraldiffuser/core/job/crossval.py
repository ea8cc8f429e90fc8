"""Cross-validated decoding of one subject: scans in; scores, decoded embeddings of every stimulus and a page out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import array_digest, fingerprint, make_folder
from napari_neuraldiffuser.core.base.lock import held, output_lock
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.base.recipe import ALGORITHM_VERSION
from napari_neuraldiffuser.core.decoding.crossval import Fold, cross_validate
from napari_neuraldiffuser.core.decoding.network.files import network_digest
from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.job.check import check_settings
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.job.spec import Job
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.networks.words import ATTRIBUTE
from napari_neuraldiffuser.core.nsd.categories import stimulus_categories
from napari_neuraldiffuser.core.outputs.crossval import CrossvalFiles, write_crossval
from napari_neuraldiffuser.core.outputs.description import check_place
from napari_neuraldiffuser.core.outputs.sidecars import Facts
from napari_neuraldiffuser.core.params import CrossvalParams, Settings


@dataclass(frozen=True)
class Kept:
    """Decoded folds in the work folder, so that an interrupted cross-validation goes on where it stopped.

    Attributes
    ----------
    folder : Path
    made_from : str
        Fingerprint of betas, targets and parameters.
    resume : bool
        False decodes every fold again.
    """

    folder: Path
    made_from: str
    resume: bool = True

    def __call__(self, k: int, work: Callable[[], Fold]) -> Fold:
        """The fold `k`, decoded now or before."""
        name = f"crossval-{k + 1:04d}"
        files = [self.folder / f"{name}_{which}.h5" for which in ("plain", "aligned")]

        def do() -> None:
            for path, rows in zip(files, work(), strict=True):
                rows.save(path)

        Records(make_folder(self.folder / "stages"), self.resume).make(name, [self.made_from, k], files, do)
        return Embeddings.load(files[0]), Embeddings.load(files[1])

    def clear(self) -> None:
        """Remove the folds, whose content is in the results."""
        for path in [*self.folder.glob("crossval-*.h5"), *(self.folder / "stages").glob("crossval-*.json")]:
            path.unlink()


def run_crossval(job: Job, params: CrossvalParams | None = None, progress: Progress = silent) -> CrossvalFiles:
    """Decode every stimulus of a subject, marked as test or not, and write `crossval/` of the output folder.

    Raises
    ------
    UserError
        On bad input, or while another process writes this subject; the message names the remedy.
    """
    params = params or CrossvalParams()
    check_place(job.out_dir, None if job.scans.own else job.nsd_dir)
    check_settings(job.settings)
    check_folder(job.models, job.guide)
    if job.scans.further:
        raise UserError(
            f"test_set must be core for a cross-validation, got {job.scans.test_set}: the images of that session are "
            "never trained on. Leave it out, or use run."
        )
    subject = nsd.open_source(job.scans, job.settings.betas)
    for folder in (job.out_dir, job.work):
        make_folder(folder)
    categories = stimulus_categories(subject, params.category)
    with held(*output_lock(job.out_dir, job.places.label)):
        return _run(job, params, subject, categories, progress)


def _run(
    job: Job, params: CrossvalParams, subject: nsd.BrainSource, categories: dict[int, str] | None, progress: Progress
) -> CrossvalFiles:
    progress(0, 1, "reading betas")
    betas = subject.betas()
    progress(1, 1, "reading betas")
    stimuli = np.unique(betas.stimulus_ids)
    subject.stimuli.check(stimuli)
    models = model_folder.load(job.models, job.guide, job.device)
    targets = job.work / f"{job.places.label}_desc-crossvaltargets_embeddings.h5"
    if not job.resume:
        targets.unlink(missing_ok=True)
    stages.targets(models, subject.stimuli, stimuli, targets, job.settings.features, progress)
    betas = replace(betas, notes=[*betas.notes, *nsd.dropped_notes(betas.dropped), *subject.stimuli.notes])
    made_from = _made_from(betas, subject.stimuli.fingerprint(stimuli), models.digest, job.settings, params, categories)
    kept = Kept(job.work, made_from, job.resume)
    with TargetFile(targets) as rows:
        words = [f"captions: {rows.attrs[ATTRIBUTE]}"] if ATTRIBUTE in rows.attrs else []
        found = cross_validate(betas, rows, job.settings.decoding, params, categories, progress, kept)
    facts = Facts.of(job, models.digest, [*betas.notes, *words])
    written = write_crossval(found, params, job.places, facts, n_voxels=betas.n_voxels, command=job.command)
    kept.clear()
    return written


def _made_from(
    betas: nsd.Betas,
    stimuli: str,
    models: str,
    settings: Settings,
    params: CrossvalParams,
    categories: dict[int, str] | None,
) -> str:
    """What decoded folds depend on: not the permutations."""
    digest = array_digest(betas.data, betas.stimulus_ids)
    how = (settings.features, settings.decoding, params.folds, params.fold_seed, sorted((categories or {}).items()))
    network = network_digest(settings.decoding.network_pretrained)
    return fingerprint([ALGORITHM_VERSION, digest, stimuli, models, network, *how])
