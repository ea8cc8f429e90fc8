"""Images on disk: written batch after batch, so that a run that was stopped continues where it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skimage.io import imsave

from napari_neuraldiffuser.core.base.files import atomic_path, json_object, read_json, write_json
from napari_neuraldiffuser.core.base.names import LABELS, Derivatives, numbering, stimulus_entity
from napari_neuraldiffuser.core.base.pictures import read_picture
from napari_neuraldiffuser.core.base.progress import Progress
from napari_neuraldiffuser.core.base.recipe import ARMS, guidance_of
from napari_neuraldiffuser.core.diffusion.pipeline import (
    Reconstruction,
    StepEvent,
    batches,
    check_fit,
    reconstruct_batch,
)
from napari_neuraldiffuser.core.evaluation.ruin import FIGURES
from napari_neuraldiffuser.core.job import made_from
from napari_neuraldiffuser.core.job.resume import Records
from napari_neuraldiffuser.core.networks.embeddings import Embeddings
from napari_neuraldiffuser.core.networks.models import Models
from napari_neuraldiffuser.core.networks.precision import resolved
from napari_neuraldiffuser.core.outputs.description import generated_by, model_name
from napari_neuraldiffuser.core.params import DiffusionParams, GuidanceParams, Settings

Listener = Callable[[StepEvent], None]
LOSSES, LATENTS = "FeatureLossPerGuidedStep", "FinalLatents"
"""In the images' sidecar, of each arm: stimulus to its repeats' losses, and to figures of their final latents."""


@dataclass(frozen=True)
class ImageJob:
    """Which images are made, and where.

    Attributes
    ----------
    decoded : Embeddings
        Of the stimuli, in this order.
    models : Models
    settings : Settings
    places : Derivatives
        The images go to `places.recon`.
    records : Records
        Of finished batches, and the feature losses of their images.
    arms : tuple of str
    """

    decoded: Embeddings
    models: Models
    settings: Settings
    places: Derivatives
    records: Records
    arms: tuple[str, ...] = ARMS

    def parts(self) -> "Iterator[ImagePart]":
        """Every batch of every arm.

        A batch is the unit of resuming, and its composition depends on the parameters only: so a continued run
        computes the same batches, and so the same bits, as an undisturbed one.
        """
        for index, batch in enumerate(batches(self.decoded, self.settings.diffusion)):
            for arm in self.arms:
                yield ImagePart(self, arm, index, batch)


@dataclass(frozen=True)
class ImagePart:
    """One arm's images of one batch of stimuli."""

    job: ImageJob
    arm: str
    index: int
    batch: Embeddings

    @property
    def name(self) -> str:
        return f"recon-{self.arm}-{self.index:04d}"

    @property
    def losses(self) -> Path:
        """JSON of stimulus to its feature losses, whether its latents stayed finite, and figures of them."""
        return self.job.records.folder / f"{self.name}_losses.json"

    @property
    def images(self) -> list[Path]:
        """PNG files, stimulus by stimulus, repeat by repeat."""
        repeats = range(1, self.job.settings.diffusion.repeats + 1)
        return [self.job.places.image(int(s), r, self.arm) for s in self.batch.stimulus_ids for r in repeats]

    def make(self, tell: Listener) -> bool:
        """Compute and write the images, unless that was done from the same; True if it was done now."""
        settings, models = self.job.settings, self.job.models
        guidance = guidance_of(self.arm, settings.guidance)
        fingerprint = made_from.images(self.batch, models.digest, settings.diffusion, guidance)

        def work() -> None:
            self._write(reconstruct_batch(self.batch, models, settings.diffusion, guidance, tell))

        return self.job.records.make(self.name, fingerprint, [*self.images, self.losses], work)

    def _write(self, result: Reconstruction) -> None:
        flat = result.images.reshape(-1, *result.images.shape[2:])
        for path, image in zip(self.images, flat, strict=True):
            write_png(path, image)
        rows = {
            str(s): {"finite": bool(ok), "losses": result.losses[i].tolist(), "latents": _figures(result.latents[i])}
            for i, (s, ok) in enumerate(zip(result.stimulus_ids, result.finite, strict=True))
        }
        write_json(self.losses, rows)

    def read(self) -> Reconstruction:
        """The images and losses that `make` wrote."""
        repeats, rows = self.job.settings.diffusion.repeats, list(read_json(self.losses).values())
        images = np.stack([read_picture(path) for path in self.images])
        losses = np.array([row["losses"] for row in rows], np.float32).reshape(len(rows), repeats, -1)
        finite, latents = np.array([row["finite"] for row in rows]), _figures_of(rows, repeats)
        images = images.reshape(-1, repeats, *images.shape[1:])
        return Reconstruction(images, losses, finite, self.batch.stimulus_ids, latents)


def reconstruct_arms(job: ImageJob, progress: Progress) -> list[int]:
    """Write the arms' images, all from the same noise, and their sidecar.

    Returns
    -------
    list of int
        Stimuli of which a latent overflowed.

    Raises
    ------
    EmbeddingError
        If the embeddings do not fit the models, or a layer is missing.
    """
    diffusion = job.settings.diffusion
    check_fit(job.decoded, job.models, diffusion, job.settings.guidance)
    done, total = 0, len(job.decoded) * diffusion.repeats * len(job.arms)
    for part in job.parts():
        # every image counts as one, whatever share of its steps is done
        images = len(part.batch) * diffusion.repeats
        part.make(_step_progress(progress, done, images, total, part.arm))
        done += images
    return _write_sidecar(job)


def _step_progress(progress: Progress, done: int, images: int, total: int, arm: str) -> Listener:
    def tell(event: StepEvent) -> None:
        step = event.before or f"step {event.done}/{event.total}"
        progress(done + images * event.done // event.total, total, f"images, {arm} {step}")

    return tell


def _write_sidecar(job: ImageJob) -> list[int]:
    """One sidecar for the folder: parameters, feature losses and figures of the latents of each image.

    Returns the failed stimuli.
    """
    told: dict[str, dict[str, Any]] = {arm: {LOSSES: {}, LATENTS: {}} for arm in job.arms}
    failed: set[int] = set()
    for part in job.parts():
        rows = read_json(part.losses)
        failed |= {int(s) for s, row in rows.items() if not row["finite"]}
        told[part.arm][LOSSES] |= {s: row["losses"] for s, row in rows.items()}
        told[part.arm][LATENTS] |= {s: row["latents"] for s, row in rows.items() if "latents" in row}
    guidance = {arm: guidance_of(arm, job.settings.guidance).to_dict() for arm in job.arms}
    sidecar = {
        "GeneratedBy": generated_by(),
        "Sources": [job.places.uri(job.places.embeddings)],
        "Model": model_name(job.models.name),
        "ModelDigest": job.models.digest,
        "DiffusionParams": job.settings.diffusion.to_dict(),
        "Precision": resolved(job.settings.diffusion.precision, job.models.device),
        "Arms": {arm: {"GuidanceParams": guidance[arm], **told[arm]} for arm in job.arms},
        f"{LATENTS}Figures": list(FIGURES),
        **numbering(job.decoded.stimulus_ids, job.decoded.labels),
    }
    write_json(job.places.recon_sidecar, sidecar)
    return sorted(failed)


def made_with(sidecar: Path, settings: Settings) -> Settings:
    """`settings` with the parameters that images were made with, as their sidecar says."""
    said = read_json(sidecar)
    guided = said["Arms"].get("guided", {}).get("GuidanceParams", settings.guidance.to_dict())
    diffusion, guidance = DiffusionParams.from_dict(said["DiffusionParams"]), GuidanceParams.from_dict(guided)
    return replace(settings, diffusion=diffusion, guidance=guidance)


def latents_told(sidecar: Path, arm: str, stimulus_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Figures (n_images, 3) of final latents, as `latent_figures`; empty where the sidecar tells of none."""
    told = (json_object(sidecar) or {}).get("Arms", {}).get(arm, {}).get(LATENTS, {})
    rows = [np.array(told[str(int(s))], dtype=float) for s in stimulus_ids if str(int(s)) in told]
    return np.concatenate(rows) if rows else np.empty((0, 3))


def _figures(latents: np.ndarray) -> list[list[float | None]]:
    """Figures (repeats, 3) for JSON, which has no NaN."""
    return [[float(f"{v:.5g}") if np.isfinite(v) else None for v in row] for row in latents]


def _figures_of(rows: Sequence[dict[str, Any]], repeats: int) -> np.ndarray:
    """Figures (n, repeats, 3) of what `_figures` gave; NaN in files that were written without."""
    unknown = [[np.nan] * 3] * repeats
    return np.array([row.get("latents", unknown) for row in rows], np.float32).reshape(len(rows), repeats, -1)


def merge_sidecars(paths: Sequence[Path], path: Path) -> None:
    """One sidecar of all images from those of chunks of stimuli, which differ in the losses alone."""
    merged = read_json(paths[0])
    for other in map(read_json, paths[1:]):
        for arm, about in other["Arms"].items():
            for what in (LOSSES, LATENTS):
                merged["Arms"][arm].setdefault(what, {}).update(about.get(what, {}))
        if LABELS in merged:
            merged[LABELS] |= other[LABELS]
    write_json(path, merged)


def write_failed(places: Derivatives, failed: Sequence[int]) -> None:
    """The table of stimuli that failed, with the labels of the images' sidecar; no file where none did."""
    if not failed:
        places.failed.unlink(missing_ok=True)
        return
    table = pd.DataFrame({"stim": failed, "reason": "a latent overflowed: lower guidance_scale or cfg_scale"})
    labels = (json_object(places.recon_sidecar) or {}).get(LABELS)
    if labels:
        table.insert(1, "stimulus", [labels[stimulus_entity(s)] for s in failed])
    with atomic_path(places.failed) as temporary:
        table.to_csv(temporary, sep="\t", index=False)


def write_png(path: Path, image: np.ndarray) -> None:
    """One image (H, W, 3) uint8 as PNG, atomically."""
    with atomic_path(path) as temporary:
        imsave(temporary, image, check_contrast=False)
