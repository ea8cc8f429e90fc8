"""Rows of the trust sheet that take diffusion: the prior alone, and the true targets through the generator."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.diffusion.pipeline import StepEvent, batches, check_fit, reconstruct_batch
from napari_neuraldiffuser.core.evaluation.trust import rows, sources
from napari_neuraldiffuser.core.job import made_from
from napari_neuraldiffuser.core.job.pictures import ArmPictures, SeenPictures
from napari_neuraldiffuser.core.job.trust.features import training_mean
from napari_neuraldiffuser.core.job.trust.parts import TrustParts
from napari_neuraldiffuser.core.job.trust.scoring import scored
from napari_neuraldiffuser.core.networks.embeddings import Embeddings, TargetFile, Targets
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams

Plan = tuple[Embeddings, DiffusionParams, GuidanceParams]


def diffused_rows(
    parts: TrustParts, training: Targets | None, left_out: list[str], progress: Progress
) -> list[dict[str, Any]]:
    """Prior and oracle of the first `trust_stimuli` stimuli, beside the guided repeat 1 of the same ones."""
    ids = np.asarray(parts.stimulus_ids)[: parts.settings.evaluation.trust_stimuli]
    seen = SeenPictures(parts.stimuli, ids)
    plans = dict(_plans(parts, ids, training, left_out))
    if not plans:
        return []
    guided = scored(parts, ArmPictures(parts.places, ids, 1, "guided"), progress, seen)
    found = []
    for name, plan in plans.items():
        images, finite = _images(parts, name, plan, progress)
        values = scored(parts, images, progress, seen)
        for scores in values.values():
            scores[~finite] = np.nan
        if not finite.all():
            left_out.append(f"{(~finite).sum()} of {len(ids)} pictures of {sources.label(name)}, as latents overflowed")
        if values:
            found.append(rows.row(name, guided, values))
    return found


def _plans(
    parts: TrustParts, ids: np.ndarray, training: Targets | None, left_out: list[str]
) -> Iterator[tuple[str, Plan]]:
    """What is denoised, and how, of every row that can be made."""
    once, guidance = parts.settings.diffusion.but(repeats=1), parts.settings.guidance
    with TargetFile(parts.embeddings) as decoded:
        attrs = dict(decoded.attrs)
    if training is None:
        left_out.append(f"{sources.label(sources.PRIOR)}, as there are no training targets")
    else:
        z, c = (np.repeat(training_mean(parts, training, name)[None], len(ids), axis=0) for name in ("z", "c"))
        same = Embeddings(z, c, {}, ids, attrs)
        yield sources.PRIOR, (same, once.but(strength=1.0, start="decoded"), guidance.but(guidance_scale=0.0))
    if parts.targets is None or not parts.targets.is_file():
        left_out.append(f"{sources.label(sources.ORACLE)}, as there are none")
        return
    if parts.uncaptioned:
        left_out.append(f"{sources.label(sources.ORACLE)}, as the test images have no captions")
        return
    with TargetFile(parts.targets) as true:
        rows_of_true = true.rows(ids, parts.layers)
    yield sources.ORACLE, (replace(rows_of_true, attrs=attrs), once, guidance)


def _images(parts: TrustParts, name: str, plan: Plan, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, H, W, 3) uint8 of a plan and whether they are finite (n,); finished batches are kept."""
    rows_of, diffusion, guidance = plan
    check_fit(rows_of, parts.models, diffusion, guidance)
    found, done = [], 0
    for index, batch in enumerate(batches(rows_of, diffusion)):
        stage = f"trust-{name}-{index:04d}"
        path = parts.kept.folder / f"{stage}.npz"
        tell = _listener(progress, name, done, len(batch), len(rows_of))
        key = made_from.images(batch, parts.models.digest, diffusion, guidance)
        parts.kept.make(stage, key, [path], _maker(parts, batch, diffusion, guidance, path, tell))
        with np.load(path) as stored:
            found.append((stored["images"], stored["finite"]))
        done += len(batch)
    progress(done, done, f"trust sheet, {name}")
    images, finite = (np.concatenate(one) for one in zip(*found, strict=True))
    return images, finite


def _maker(
    parts: TrustParts, batch: Embeddings, diffusion: DiffusionParams, guidance: GuidanceParams, path: Path, tell: Any
) -> Any:
    def work() -> None:
        made = reconstruct_batch(batch, parts.models, diffusion, guidance, tell)
        with path.open("wb") as file:
            np.savez_compressed(file, images=made.images[:, 0], finite=made.finite)

    return work


def _listener(progress: Progress, name: str, done: int, n: int, total: int) -> Any:
    def tell(event: StepEvent) -> None:
        progress(done + n * event.done // event.total, total, f"trust sheet, {name}")

    return tell
