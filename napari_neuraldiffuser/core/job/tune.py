"""Guidance strength and schedule for a model folder, chosen on training stimuli alone; the test set is not read.

A part of the training stimuli is held out, the decoder is fitted on the others, and what it decodes of the held-out
ones is reconstructed at many settings, narrowed down one parameter after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core import nsd
from napari_neuraldiffuser.core.base.errors import UserError
from napari_neuraldiffuser.core.base.files import array_digest, make_folder, write_json
from napari_neuraldiffuser.core.base.lock import held, output_lock
from napari_neuraldiffuser.core.base.progress import Progress, silent
from napari_neuraldiffuser.core.base.recipe import Source
from napari_neuraldiffuser.core.job import stages
from napari_neuraldiffuser.core.job.check import check_settings
from napari_neuraldiffuser.core.job.made_from import Origin
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.job.tune_choice import CRITERION, GAINED, SCORES, Setting, Tried
from napari_neuraldiffuser.core.job.tune_scores import HeldOut, Measured
from napari_neuraldiffuser.core.job.tune_search import Found, Search
from napari_neuraldiffuser.core.networks import chosen
from napari_neuraldiffuser.core.networks import models as model_folder
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.folder import check_folder
from napari_neuraldiffuser.core.outputs.description import model_name, versions
from napari_neuraldiffuser.core.outputs.report.tune import write_tune
from napari_neuraldiffuser.core.params import Settings, TuneParams, preset

LEAST = 20
"""Training stimuli without which no decoder is worth tuning for."""


@dataclass(frozen=True)
class TuneJob:
    """What is tuned, on whose scans.

    Attributes
    ----------
    sources : sequence of Source
        Subjects whose held-out stimuli are scored together.
    out_dir : Path
        For table, page and `work`.
    models, guide, device : str
        As in `models.load`.
    settings : Settings
        Of betas, features, decoding and evaluation.
    starts : sequence of str
        Presets that the search begins from: the first round takes the best.
    params : TuneParams
    write : bool
        Whether to record the choice in the model folder.
    record : Path or None
        Another file to record it in.
    """

    sources: Sequence[Source]
    out_dir: Path
    models: str = "demo"
    guide: str | None = None
    device: str = "cpu"
    settings: Settings = field(default_factory=Settings)
    starts: Sequence[str] = (chosen.DEFAULT,)
    params: TuneParams = field(default_factory=TuneParams)
    write: bool = True
    record: Path | None = None
    work_dir: Path | None = None
    resume: bool = True
    command: str = ""

    @property
    def work(self) -> Path:
        return Path(self.work_dir or Path(self.out_dir) / "work")

    def settings_to_try(self) -> list[Setting]:
        """The starting settings, with the search's own repeats."""
        pairs = [preset(name) for name in self.starts]
        repeats = self.params.repeats
        return [Setting(d.but(repeats=repeats, seed=0, batch_size=max(repeats, d.batch_size)), g) for d, g in pairs]


@dataclass(frozen=True)
class TuneResult:
    """What was found and written.

    Attributes
    ----------
    chosen : dict
        "preset", "diffusion" and "guidance" changes, and "about": how they were chosen.
    rows : list of dict
        One per setting tried: setting, stage, cost, seconds and the gain in each score.
    page, table : Path
    record : Path or None
        Where front ends find it; None where it was not recorded.
    note : str
        A sentence on what was chosen and where it is recorded.
    """

    chosen: dict[str, Any]
    rows: list[dict[str, Any]]
    page: Path
    table: Path
    record: Path | None
    note: str


def tune(job: TuneJob, progress: Progress = silent, models: Any = None) -> TuneResult:
    """Search, write table and page, and record what was found.

    Parameters
    ----------
    job : TuneJob
    progress : callable
        What it raises ends the search, which the next call continues.
    models : Models, optional
        Loaded already.

    Raises
    ------
    UserError
        If there are too few training stimuli, models or scans are not there, or values cannot be.
    """
    check_settings(job.settings)
    check_folder(job.models, job.guide)
    starts = job.settings_to_try()
    if any(not start.guidance.guidance_scale for start in starts):
        raise UserError(f"presets to start from must guide, got {', '.join(job.starts)}. Leave out none.")
    make_folder(job.out_dir)
    label = model_name(job.models).replace("/", "_") or "models"
    with held(*output_lock(Path(job.out_dir), f"tune-{label}")):
        networks = models or model_folder.load(job.models, job.guide, job.device)
        subjects = [_held_out(job, source, networks, progress) for source in job.sources]
        found, measured = _search(job, starts, subjects, networks, progress)
        return _write(job, label, found, subjects, measured)


def _held_out(job: TuneJob, source: Source, models: model_folder.Models, progress: Progress) -> HeldOut:
    """Decoded held-out stimuli of one subject, from the work folder where they are there."""
    subject = nsd.open_source(source, job.settings.betas)
    progress(0, 1, "reading betas")
    train = _training(subject)
    progress(1, 1, "reading betas")
    held_out, fit_on = split_training(train.stimulus_ids, job.params)
    work = make_folder(job.work / f"{source.subject}-{models.digest[:12] or 'models'}")
    path, targets = work / "decoded.h5", work / "targets.h5"
    seen = subject.stimuli.fingerprint(np.union1d(held_out, fit_on))
    origin = Origin(array_digest(train.data, train.stimulus_ids), seen, models.digest)
    made_from = [origin.decoder(job.settings), [int(s) for s in held_out], [int(s) for s in fit_on]]

    def work_() -> None:
        stages.targets(models, subject.stimuli, fit_on, targets, job.settings.features, progress)
        decoder = stages.fit(train.subset(fit_on), targets, work / "decoder.h5", job.settings.decoding, progress)
        with stages.opened(decoder) as known:
            stages.decode(known, train.subset(held_out), path)

    Records(make_folder(work / "stages"), job.resume).make("decoded", made_from, [path], work_)
    return HeldOut(Embeddings.load(path), subject.stimuli, seen)


def _training(subject: nsd.BrainSource) -> nsd.Betas:
    """Training rows alone; all rows where no stimulus is marked as test."""
    betas = subject.betas()
    return betas.split()[0] if betas.shared.any() else betas


def split_training(stimulus_ids: np.ndarray, params: TuneParams) -> tuple[np.ndarray, np.ndarray]:
    """Held-out training stimuli, at most a fifth of them, and the others, sorted, which the decoder is fitted on."""
    if len(stimulus_ids) < LEAST:
        raise UserError(
            f"training stimuli must be at least {LEAST} to tune on some of them, got {len(stimulus_ids)}. Give more "
            "sessions, or use the settings of a model folder that was tuned on other scans."
        )
    order = np.random.default_rng(params.split_seed).permutation(np.sort(stimulus_ids))
    n = min(params.n_stimuli, len(order) // 5)
    return order[:n], np.sort(order[n:])


def _search(
    job: TuneJob,
    starts: Sequence[Setting],
    subjects: Sequence[HeldOut],
    models: model_folder.Models,
    progress: Progress,
) -> tuple[Found, Measured]:
    folder = make_folder(job.work / "scores")
    if not job.resume:
        for path in folder.glob("*.json"):
            path.unlink()
    screened, whole = job.params.most_evaluations(len(starts))
    n = sum(len(subject.decoded) for subject in subjects) * job.params.repeats
    # finalists were screened already, so that they take the other half of the stimuli alone
    total = screened * -(-n // 2) + whole * n
    measured = Measured(subjects, models, job.settings.evaluation, folder, progress, total)
    found = Search(measured, job.params).run(starts)
    progress(total, total, "tuning")
    return found, measured


def rows_of(found: Found) -> list[dict[str, Any]]:
    """One row per setting: on half of the stimuli as "screening", on all as "final", gains over the start unguided."""
    told = [*((one, found.half, "screening") for one in found.screened)]
    told += [(one, found.baseline, "final") for one in found.finals]
    return [_row(one, baseline, stage) for one, baseline, stage in told]


def _row(one: Tried, baseline: Tried, stage: str) -> dict[str, Any]:
    gains = {name: vars(one.gain(baseline, name)) for name in SCORES}
    means = {name: float(np.nanmean(one.scores[name])) for name in SCORES}
    return {
        "setting": str(one.setting),
        "stage": stage,
        **one.setting.changes(),
        "cost": one.setting.cost,
        "seconds_per_image": one.seconds,
        "failed": one.failed,
        "mean": means,
        "gain": gains,
    }


def _write(job: TuneJob, label: str, found: Found, subjects: Sequence[HeldOut], measured: Measured) -> TuneResult:
    n = sum(len(subject.decoded) for subject in subjects)
    start = job.settings_to_try()[0]
    best = found.chosen.setting if found.chosen else start.unguided
    about = {
        "command": job.command or "core.job.tune.tune",
        "data": f"{n} held-out training stimuli of {', '.join(s.subject for s in job.sources)}, "
        f"repeats {job.params.repeats}, decoder {job.settings.decoding.decoder}",
        "criterion": CRITERION,
        "evaluations": {"screening": len(found.screened) + 1, "all stimuli": len(found.finals) + 2},
        "guided": _means(found.chosen or found.unguided),
        "unguided": _means(found.unguided),
        "gain": {name: vars(found.chosen.gain(found.unguided, name)) for name in SCORES} if found.chosen else {},
        "when": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
    }
    changes = best.changes()
    record = chosen.write(job.models, job.guide, chosen.DEFAULT, changes, about, job.record) if job.write else None
    result = {"preset": chosen.DEFAULT, **changes, "about": about}
    rows = rows_of(found)
    page = write_tune(Path(job.out_dir), label, result, rows, str(best))
    table = Path(job.out_dir) / f"tune-{label}.json"
    write_json(table, {"chosen": result, "tried": rows, "computed_images": measured.computed})
    return TuneResult(result, rows, page, table, record, _note(found, best, record))


def _means(one: Tried) -> dict[str, float]:
    return {name: float(np.nanmean(one.scores[name])) for name in SCORES}


def _note(found: Found, best: Setting, record: Path | None) -> str:
    where = f"recorded in {record}, which runs without a named preset use" if record else "not recorded (--no-write)"
    if found.chosen is None:
        return f"no setting helped on these stimuli, so guidance is off: {where}"
    gain = found.chosen.gain(found.unguided, GAINED)
    return f"{best}: PixCorr {gain} over the same schedule without guidance; {where}"
